"""The files of a checkpoint folder, and the package's cache directory. Importing this module is fast: no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..exceptions import CheckpointError

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
        CheckpointError: if the file is not valid JSON, or does not contain an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must contain a JSON object, got {type(content).__name__}")
    return content


def _find_shards(folder: Path, index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    shards = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    if not shards or not all(isinstance(shard, str) for shard in shards):
        raise CheckpointError(f"{index} lists no weight files")
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {index.name} lists: an incomplete download?")
    return [folder / shard for shard in sorted(shards)]
