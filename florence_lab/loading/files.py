"""TODO"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..exceptions import CheckpointError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

JSON_FILES = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
)


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights, the shards where there are several.

    Raises:
        CheckpointError: if there are none, or if shards that the index names are missing.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            weight_map = _read_json(index).get("weight_map")
            shards = set(weight_map.values()) if isinstance(weight_map, dict) else set()
            if not shards or not all(isinstance(shard, str) for shard in shards):
                raise CheckpointError(f"{index} names no files with weights")
            missing = sorted(shard for shard in shards if not (folder / shard).is_file())
            if missing:
                raise CheckpointError(
                    f"{folder} lacks {', '.join(missing)}, which {index.name} names: half a download?"
                )
            return [folder / shard for shard in sorted(shards)]
    raise CheckpointError(f"{folder} has no weights: none of {', '.join(WEIGHT_FILES)} (nor an .index.json of one)")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not whole: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object, but {type(content).__name__}")
    return content


def _is_complete(folder: Path) -> bool:
    """Whether `folder` has a config and all of its weights; an interrupted download has not."""
    if not (folder / "config.json").is_file():
        return False
    return any(
        (folder / weights).is_file() or _has_shards(folder, folder / f"{weights}.index.json")
        for weights in ("model.safetensors", "pytorch_model.bin")
    )


def _has_shards(folder: Path, index: Path) -> bool:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(shards) and all((folder / shard).is_file() for shard in shards)
