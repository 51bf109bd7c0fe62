"""The files of a checkpoint folder, and the package's cache directory. Importing this module is fast: no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..exceptions import CheckpointError, shorten

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the file with the weights, in the order of preference. `<name>.index.json` lists the shards of a sharded one."""

JSON_FILES = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
)


def cache_dir(kind: str) -> Path:
    """Return the folder for the package's cached files of a kind, such as `"compiled"`. It may not exist yet.

    On Linux it is `$XDG_CACHE_HOME/florence_lab/<kind>`, by default in `~/.cache`; elsewhere it follows the system.
    """
    from platformdirs import user_cache_path

    return Path(user_cache_path("florence_lab", appauthor=False)) / kind


def find_weight_files(folder: Path) -> list[Path]:
    """Return the file with the weights, or all shards. Weights that are incomplete are skipped if there are others.

    Raises:
        CheckpointError: if there are no weights, or if a shard in the index is missing.
    """
    incomplete: CheckpointError | None = None
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                return _find_shards(folder, index)
            except CheckpointError as error:
                incomplete = incomplete or error
    raise incomplete or CheckpointError(
        f"{folder} has no weights: neither {' nor '.join(WEIGHT_FILES)}, nor an .index.json of one"
    )


def is_complete(folder: Path) -> bool:
    """Return whether a folder has a config and all of its weights. An interrupted download does not."""
    try:
        return (folder / "config.json").is_file() and bool(find_weight_files(folder))
    except (CheckpointError, OSError):
        return False


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        CheckpointError: if the file cannot be read, is not valid JSON, or does not contain an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    except RecursionError:
        raise CheckpointError(f"{path} is not valid JSON: it is nested too deeply") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must contain a JSON object, got {type(content).__name__}")
    return content


def read_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the contents of those of `JSON_FILES` that a folder has. transformers ignores some that are invalid.

    Raises:
        CheckpointError: if one is not a regular file, or as `read_json`. A link to a `generation_config.json` that does not exist
            counts as no file.
    """
    found = {}
    for name in JSON_FILES:
        path = folder / name
        if path.is_file():
            found[name] = read_json(path)
        elif path.exists() or (path.is_symlink() and name != "generation_config.json"):
            raise CheckpointError(f"{path} is not a regular file, or a link to none")
    return found


def _find_shards(folder: Path, index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    shards = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not shards or not all(isinstance(shard, str) for shard in shards):
        raise CheckpointError(f"{index} lists no weight files")
    names = sorted(set(shards))
    outside = [name for name in names if os.path.basename(name) != name or "\0" in name or not name.strip(".")]
    if outside:
        raise CheckpointError(f"{index} lists {shorten(outside[0])}, which is not the name of a file in its folder")
    missing = [name for name in names if not _is_file(folder / name)]
    if missing:
        listed = " ".join(", ".join(missing)[:200].split())
        raise CheckpointError(f"{folder} lacks {listed}, which {index.name} lists: an incomplete download?")
    return [folder / name for name in names]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
