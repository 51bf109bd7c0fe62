"""Damages of checkpoints: functions that change the files of a folder, generated from the files that it has."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Damage = Callable[[Path], None]
"""Changes the files of a folder. The files are hard links: they are replaced, never written to."""

FIELD_VALUES: dict[str, Any] = {
    "removed": ...,
    "null": None,
    "0": 0,
    "-1": -1,
    "1.5": 1.5,
    "true": True,
    "false": False,
    "10**9": 10**9,
    "10**30": 10**30,
    "1e400": float("inf"),
    "nan": float("nan"),
    "''": "",
    "'x'": "x",
    "[]": [],
    "[1]": [1],
    "['x', null]": ["x", None],
    "{}": {},
    "{'a': 1}": {"a": 1},
    "nested": [[[[[]]]]],
}
"""Description -> what a field of a JSON file becomes."""

_DEPTH = 100_000

FILE_CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"weights: 5",
    "binary": b"\xff\xfe\x00\x01",
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "an empty object": b"{}",
    "nested lists": b"[" * _DEPTH,
    "nested lists, closed": b"[" * _DEPTH + b"]" * _DEPTH,
    "nested objects": b'{"a":' * _DEPTH + b"1" + b"}" * _DEPTH,
}
"""Description -> what a whole JSON file becomes."""


def replace_file(path: Path, content: bytes) -> None:
    """Write a file anew, so that its other hard links stay as they are."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def json_damages(folder: Path, seed: int, num_fields: int) -> Iterator[tuple[str, Damage]]:
    """Yield (description, damage) of the JSON files of a folder: of whole files, and of a sample of fields and values."""
    fields = []
    for path in sorted(folder.glob("*.json")):
        yield from ((f"{path.name} {what}", damage) for what, damage in _file_damages(path.name))
        content = {} if path.name == "vocab.json" else json.loads(path.read_text(encoding="utf-8"))
        for keys in field_paths(content):
            fields += [(path.name, keys, value) for value in FIELD_VALUES]
    chosen = random.Random(seed).sample(fields, min(num_fields, len(fields)))
    for name, keys, value in sorted(chosen):
        yield f"{name} {'.'.join(keys)} {value}", _set_field(name, keys, FIELD_VALUES[value])


def field_paths(content: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the keys that lead to each field of nested objects, up to three levels."""
    if not isinstance(content, dict) or len(prefix) == 3:
        return
    for key, value in content.items():
        yield (*prefix, key)
        if len(content) < 100 and key not in ("post_processor_config", "vocab"):
            yield from field_paths(value, (*prefix, key))


def weight_damages(folder: Path) -> Iterator[tuple[str, Damage]]:
    """Yield (description, damage) of each file of weights."""
    for path in sorted(folder.glob("*.safetensors")):
        for what, content in _BYTES.items():
            yield f"{path.name} {what}", lambda f, name=path.name, to=content: replace_file(f / name, to(f / name))
        for what, edit in _TENSORS.items():
            yield f"{path.name} {what}", _edit_tensors(path.name, edit)
        for what, put in _PLACES.items():
            yield f"{path.name} {what}", lambda f, name=path.name, put=put: put(f / name)
        if path.name == "model.safetensors":
            yield from ((f"weights {what}", damage) for what, damage in _OTHER_WEIGHTS.items())


def tokenizer_damages(folder: Path) -> Iterator[tuple[str, Damage]]:
    """Yield (description, damage) of the tokenizer."""
    if (folder / "tokenizer.json").is_file():
        yield from ((f"tokenizer {what}", _edit_tokenizer(edit)) for what, edit in _TOKENIZERS.items())


# ---------------------------------------------------------------- whole files


def _file_damages(name: str) -> Iterator[tuple[str, Damage]]:
    for what, content in FILE_CONTENTS.items():
        yield what, lambda folder, content=content: replace_file(folder / name, content)
    yield "cut", lambda folder: replace_file(folder / name, _half(folder / name))
    for what, put in _PLACES.items():
        yield what, lambda folder, put=put: put(folder / name)


def _half(path: Path) -> bytes:
    return path.read_bytes()[: path.stat().st_size // 2]


def _put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _put_link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _put_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


_PLACES: dict[str, Damage] = {
    "removed": lambda path: path.unlink(),
    "a folder": _put_folder,
    "a link to itself": lambda path: _put_link(path, path.name),
    "a dangling link": lambda path: _put_link(path, "/nonexistent/x"),
    "a FIFO": _put_fifo,
}


def _set_field(name: str, keys: tuple[str, ...], value: Any) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        if value is ...:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = value
        replace_file(folder / name, json.dumps(content).encode())

    return damage


# ---------------------------------------------------------------- weights


_BYTES: dict[str, Callable[[Path], bytes]] = {
    "cut": _half,
    "cut in the header": lambda path: path.read_bytes()[:100],
    "empty": lambda path: b"",
    "random bytes": lambda path: random.Random(1).randbytes(5000),
    "header of 10**15 bytes": lambda path: (10**15).to_bytes(8, "little") + path.read_bytes()[8:],
    "header no JSON": lambda path: (5).to_bytes(8, "little") + b"abcde" + bytes(100),
    "header nested": lambda path: (_DEPTH).to_bytes(8, "little") + b"[" * _DEPTH,
    "a text": lambda path: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
}


def _matrix(tensors: dict[str, torch.Tensor]) -> str:
    """Return the name of a matrix that is not square."""
    return next(name for name, t in sorted(tensors.items()) if t.ndim == 2 and t.shape[0] != t.shape[1])


def _fill(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[_matrix(tensors)][0, 0] = value

    return edit


def _convert(dtype: torch.dtype, is_all: bool) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors) if is_all else [_matrix(tensors)]:
            tensors[name] = tensors[name].to(dtype)

    return edit


def _put(value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        name = _matrix(tensors)
        tensors[name] = value(tensors[name]).contiguous()

    return edit


def _rename(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors["x." + name] = tensors.pop(name)


_TENSORS: dict[str, Callable[[dict[str, torch.Tensor]], None]] = {
    "nan": _fill(float("nan")),
    "inf": _fill(float("inf")),
    "int64": _convert(torch.int64, is_all=True),
    "one int64": _convert(torch.int64, is_all=False),
    "one bool": _convert(torch.bool, is_all=False),
    "one uint8": _convert(torch.uint8, is_all=False),
    "one float64": _convert(torch.float64, is_all=False),
    "one float8": _convert(torch.float8_e4m3fn, is_all=False),
    "one complex": _convert(torch.complex64, is_all=False),
    "one missing": lambda tensors: tensors.__delitem__(_matrix(tensors)),
    "one more": lambda tensors: tensors.update({"strange.weight": torch.ones(3)}),
    "no tensors": lambda tensors: tensors.clear(),
    "other names": _rename,
    "transposed": _put(lambda tensor: tensor.T),
    "flat": _put(lambda tensor: tensor.flatten()),
    "a scalar": _put(lambda tensor: torch.tensor(1.0)),
    "no rows": _put(lambda tensor: tensor[:0]),
    "one row less": _put(lambda tensor: tensor[1:]),
}


def _edit_tensors(name: str, edit: Callable[[dict[str, torch.Tensor]], None]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / name)
        edit(tensors)
        (folder / name).unlink()
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return damage


class _Code:
    """An object whose unpickling creates a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.path.join(os.getcwd(), "code-was-run"),)


def _as_pickle(content: Callable[[dict[str, torch.Tensor]], Any], cut: bool = False) -> Damage:
    def damage(folder: Path) -> None:
        torch.save(content(load_file(folder / "model.safetensors")), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        if cut:
            replace_file(folder / "pytorch_model.bin", _half(folder / "pytorch_model.bin"))

    return damage


def _as_index(index: Any) -> Damage:
    def damage(folder: Path) -> None:
        content = index(sorted(load_file(folder / "model.safetensors"))) if callable(index) else index
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "model.safetensors.index.json").write_text(text)

    return damage


_SHARD = "model-00001-of-00001.safetensors"

_OTHER_WEIGHTS: dict[str, Damage] = {
    "a pickle": _as_pickle(lambda tensors: tensors),
    "half a pickle": _as_pickle(lambda tensors: tensors, cut=True),
    "a pickle with code": _as_pickle(lambda tensors: tensors | {"a": _Code()}),
    "a pickle of a list": _as_pickle(lambda tensors: list(tensors.values())),
    "a pickle of numbers": _as_pickle(lambda tensors: dict.fromkeys(tensors, 5)),
    "a pickle with a tensor of strings": _as_pickle(lambda tensors: tensors | {next(iter(tensors)): "x"}),
    "index": _as_index(lambda names: {"weight_map": dict.fromkeys(names, _SHARD)}),
    "index with another shard": _as_index(lambda names: {"weight_map": dict.fromkeys(names, _SHARD) | {"a": "b.bin"}}),
    "index of lists": _as_index({"weight_map": {"a": [_SHARD]}}),
    "index of numbers": _as_index({"weight_map": {"a": 5}}),
    "index of null bytes": _as_index({"weight_map": {"a": "a\0b"}}),
    "index of long names": _as_index({"weight_map": {"a": "x" * 5000}}),
    "index of folders": _as_index({"weight_map": {"a": "."}}),
    "index a list": _as_index([]),
    "index without map": _as_index({}),
    "index nested": _as_index("[" * _DEPTH),
}


# ---------------------------------------------------------------- tokenizer


def _grow(content: dict[str, Any]) -> None:
    last = max(token["id"] for token in content["added_tokens"])
    token = content["added_tokens"][-1]
    content["added_tokens"] += [token | {"id": last + 1 + i, "content": f"<more_{i}>"} for i in range(3000)]


_TOKENIZERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "with 3000 more tokens": _grow,
    "without added tokens": lambda content: content.update(added_tokens=[]),
    "with one added token": lambda content: content.update(added_tokens=content["added_tokens"][:1]),
    "of 10 words": lambda content: content["model"].update(vocab=dict(list(content["model"]["vocab"].items())[:10])),
    "without words": lambda content: content["model"].update(vocab={}),
    "without merges": lambda content: content["model"].update(merges=[]),
    "with wrong merges": lambda content: content["model"].update(merges=["a"]),
    "of another kind": lambda content: content["model"].update(type="WordLevel"),
    "of ids that are strings": lambda content: content["model"].update(vocab={"a": "b"}),
    "of negative ids": lambda content: content["model"].update(vocab={"a": -1}),
    "without pre-tokenizer": lambda content: content.update(pre_tokenizer=None),
    "without decoder": lambda content: content.update(decoder=None),
    "without post-processor": lambda content: content.update(post_processor=None),
    "without model": lambda content: content.update(model=None),
    "with tokens that are numbers": lambda content: content.update(added_tokens=[1, 2]),
}


def _edit_tokenizer(edit: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        edit(content)
        replace_file(folder / "tokenizer.json", json.dumps(content).encode())

    return damage
