"""Files of weights: their tensors one by one, and checks of names, shapes and dtypes before a model is built."""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from transformers import Florence2Config

from ..exceptions import CheckpointError, shorten, summarize_error
from .checks import quantized_error

MISSING_KEYS = "lacks the weights"
UNEXPECTED_KEYS = "contains weights that Florence-2 does not have:"
INVALID_VALUES = "contains weights that are NaN or infinite:"
MISMATCHED_SHAPES = "contains weights of another shape:"

_FLOAT_TYPES = {"F64", "F32", "F16", "BF16", "float64", "float32", "float16", "bfloat16"}

# Ends of the names of quantized weights: bitsandbytes, GPTQ and AWQ, compressed-tensors, fp8, torchao
_QUANTIZED_RE = re.compile(
    r"\.(absmax|quant_map|nested_absmax|SCB|weight_format|qweight|qzeros|scales|g_idx|weight_packed|weight_scale(_inv)?"
    r"|weight_zero_point|input_scale)$|\.quant_state\."
)

# Layers in the names of weights (either layout) -> the field of the config with their number
_LAYER_FIELDS = (
    (re.compile(r"language_model\.(?:model\.)?encoder\.layers\.(\d+)\."), "encoder_layers"),
    (re.compile(r"language_model\.(?:model\.)?decoder\.layers\.(\d+)\."), "decoder_layers"),
)
_EMBEDDINGS_RE = re.compile(r"(shared|embed_tokens|lm_head)\.weight$")
_BLOCK_RE = re.compile(r"vision_tower\.blocks\.(\d+)\.(\d+)\.")

# Name of a weight (either layout), its axis -> the field of the config with the size of the axis, and how much larger it is
_SHAPE_FIELDS = tuple(
    (re.compile(pattern), axis, part, field, extra)
    for pattern, axis, part, field, extra in (
        (_EMBEDDINGS_RE.pattern, 0, "text_config", "vocab_size", 0),
        (_EMBEDDINGS_RE.pattern, 1, "text_config", "d_model", 0),
        (r"(encoder|decoder)\.embed_positions\.weight$", 0, "text_config", "max_position_embeddings", 2),
        (r"encoder\.layers\.0\.fc1\.weight$", 0, "text_config", "encoder_ffn_dim", 0),
        (r"decoder\.layers\.0\.fc1\.weight$", 0, "text_config", "decoder_ffn_dim", 0),
        (r"image_proj_norm\.weight$", 0, "vision_config", "projection_dim", 0),
        (r"row_embeddings\.weight$", 0, "vision_config", "max_position_embeddings", 0),
        (r"pos_idx_to_embed$", 0, "vision_config", "max_temporal_embeddings", 0),
    )
)
_CONV_RE = re.compile(r"vision_tower\.convs\.(\d+)\.(?:proj|conv)\.weight$")


class TensorInfo(NamedTuple):
    """Shape and dtype of a stored tensor."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorInfo:
        """Return those of a tensor."""
        return cls(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


class _WeightFile(NamedTuple):
    """An opened file of weights.

    Attributes:
        names: the names of its tensors.
        read: name -> tensor.
        describe: name -> shape and dtype.
        max_bytes: how much to read before opening the file anew: the pages of a mapped file count as memory until it is closed.
    """

    names: list[str]
    read: Callable[[str], torch.Tensor]
    describe: Callable[[str], TensorInfo]
    max_bytes: float


def iter_weights(weights: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield names and tensors one by one. A tensor is valid until the next is requested."""
    for path in weights:
        names: list[str] | None = None
        while names is None or names:
            with name_file(path):
                file = _open(path)
            if names is None:
                # the embeddings are the largest tensor, so they are copied first, while little else is in memory
                names = sorted(file.names, key=lambda name: not _EMBEDDINGS_RE.search(name))
            num_bytes = 0
            while names and num_bytes <= file.max_bytes:
                name = names.pop(0)
                with name_file(path):
                    tensor = file.read(name)
                num_bytes += tensor.nbytes
                yield name, tensor


def describe_weights(weights: list[Path]) -> dict[str, TensorInfo]:
    """Return name -> shape and dtype of all tensors, without reading them.

    Raises:
        CheckpointError: for a damaged file, an entry that is no tensor, or a tensor that two files contain.
    """
    found: dict[str, TensorInfo] = {}
    for path in weights:
        with name_file(path):
            file = _open(path)
            for name in file.names:
                if name in found:
                    raise CheckpointError(f"{path} contains {name}, which another of the files contains too")
                found[name] = file.describe(name)
    return found


def check_stored_types(folder: Path, stored: Mapping[str, TensorInfo]) -> None:
    """Refuse weights that are not floating-point numbers.

    Raises:
        CheckpointError: for quantized weights, and for integers or booleans.
    """
    quantized = [name for name, info in stored.items() if _QUANTIZED_RE.search(name) or "8_E" in info.dtype.upper()]
    if quantized:
        raise quantized_error(folder, names=quantized)
    check_names(
        folder,
        "contains weights that are not floating-point numbers:",
        [f"{name} ({info.dtype})" for name, info in stored.items() if info.dtype not in _FLOAT_TYPES],
    )


def check_stored_shapes(
    folder: Path, stored: Mapping[str, TensorInfo], config: Florence2Config, vocab_size: int
) -> None:
    """Compare the numbers of layers and the main sizes in a config with the weights. A wrong number may take hours to build.

    Args:
        folder: the checkpoint, for messages.
        stored: its weights.
        config: in transformers' layout.
        vocab_size: of the stored embeddings.

    Raises:
        CheckpointError: names the field of `config.json`, its value and what the weights have.
    """
    parts: dict[str, Any] = {"text_config": config.text_config, "vision_config": config.vision_config}
    for pattern, field in _LAYER_FIELDS:
        layers = {int(match[1]) for name in stored if (match := pattern.search(name))}
        _check_count(folder, f"text_config.{field}", getattr(parts["text_config"], field), len(layers))
    blocks = {(int(match[1]), int(match[2])) for name in stored if (match := _BLOCK_RE.search(name))}
    depths = list(parts["vision_config"].depths)
    _check_count(folder, "the number of vision_config.depths", len(depths), len({stage for stage, _ in blocks}))
    for stage, depth in enumerate(depths):
        _check_count(folder, f"vision_config.depths[{stage}]", depth, sum(block[0] == stage for block in blocks))

    for name, info in stored.items():
        for pattern, axis, part, field, extra in _SHAPE_FIELDS:
            if pattern.search(name):
                value = vocab_size if field == "vocab_size" else getattr(parts[part], field)
                _check_axis(folder, name, info, axis, f"{part}.{field}", value, extra)
        if match := _CONV_RE.search(name):
            stage = int(match[1])
            for axis, field in ((0, "embed_dim"), (2, "patch_size"), (3, "patch_size")):
                value = getattr(parts["vision_config"], field)[stage]
                _check_axis(folder, name, info, axis, f"vision_config.{field}[{stage}]", value)


def check_finite(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse NaN and infinity.

    Args:
        folder: the checkpoint, for messages.
        tensors: names and floating-point tensors.

    Raises:
        CheckpointError: names some of the tensors.
    """
    check_names(folder, INVALID_VALUES, [name for name, tensor in tensors if not is_finite(tensor)])


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether a floating-point tensor has neither NaN nor infinity."""
    # reads the memory once; `isfinite` takes forty times as long
    return not tensor.numel() or all(math.isfinite(bound.item()) for bound in torch.aminmax(tensor))


def check_names(folder: Path, problem: str, names: Iterable[str]) -> None:
    """Raise a CheckpointError that lists names of weights, unless there are none.

    Args:
        folder: the checkpoint.
        problem: `MISSING_KEYS`, `UNEXPECTED_KEYS` or `MISMATCHED_SHAPES`.
        names: the names of the weights that have the problem.
    """
    names = sorted(names)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise CheckpointError(f"{folder} {problem} {', '.join(map(_one_line, names[:3]))}{more}")


@contextmanager
def name_file(path: Path, expected: str = "Florence-2") -> Iterator[None]:
    """Turn what a library raises for a damaged file into a CheckpointError that names the file, and what is expected in it."""
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))  # the rest of the message explains how to run it nevertheless
        raise CheckpointError(
            f"{path} is a pickle with more than weights{f' ({found[1]})' if found else ''}, which could run code when "
            "loaded; it was refused (torch.load with weights_only=True)"
        ) from error
    except Exception as error:  # damaged files make the libraries raise nearly anything
        raise CheckpointError(f"cannot read {path} as {expected}: {summarize_error(error)}") from error


def read_tensors(path: Path, expected: str) -> dict[str, torch.Tensor]:
    """Return all tensors of a file.

    Args:
        path: the file.
        expected: what it should contain, for messages.

    Raises:
        CheckpointError: for a damaged file, or one that contains something else.
    """
    with name_file(path, expected):
        file = _open(path)
        for name in file.names:
            file.describe(name)
        return {name: file.read(name) for name in file.names}


def _open(path: Path) -> _WeightFile:
    max_bytes = path.stat().st_size / 16
    if path.suffix == ".safetensors":
        file = safe_open(path, "pt")

        def describe(name: str) -> TensorInfo:
            stored = file.get_slice(name)
            return TensorInfo(tuple(stored.get_shape()), str(stored.get_dtype()))

        return _WeightFile(list(file.keys()), file.get_tensor, describe, max_bytes)

    is_mapped = zipfile.is_zipfile(path)  # the format of torch.save since 1.6
    tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    if not isinstance(tensors, dict):
        raise CheckpointError(
            f"cannot read {path} as Florence-2: it contains a {type(tensors).__name__}, not named tensors"
        )
    return _WeightFile(
        list(tensors),
        tensors.pop,
        lambda name: _describe(path, name, tensors[name]),
        max_bytes if is_mapped else math.inf,
    )


def _describe(path: Path, name: Any, tensor: Any) -> TensorInfo:
    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        raise CheckpointError(
            f"cannot read {path} as Florence-2: {shorten(name)} is a {type(tensor).__name__}, not a named tensor"
        )
    return TensorInfo.of(tensor)


def _check_count(folder: Path, field: str, expected: int, found: int) -> None:
    if expected != found:
        problem = MISSING_KEYS if expected > found else UNEXPECTED_KEYS.removesuffix(" that Florence-2 does not have:")
        raise CheckpointError(
            f"{folder} {problem} of {abs(expected - found)} layers: {field} in config.json is {expected}, but the weights have "
            f"{found}"
        )


def _check_axis(folder: Path, name: str, info: TensorInfo, axis: int, field: str, value: int, extra: int = 0) -> None:
    if axis >= len(info.shape) or info.shape[axis] != value + extra:
        shape = " x ".join(map(str, info.shape))
        raise CheckpointError(
            f"{folder} {MISMATCHED_SHAPES} {_one_line(name)} is {shape}, but {field} in config.json is {value}"
        )


def _one_line(name: str) -> str:
    return " ".join(name.split()) if len(name) < 200 else shorten(name)
