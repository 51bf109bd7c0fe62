"""The model and the settings that a file of predictions was made with, recorded beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..exceptions import DatasetError, shorten
from ..inference.generation import resolve_generation_kwargs
from ..output_files import write_text

if TYPE_CHECKING:
    from ..predictor import Predictor


_VALUES_PER_TENSOR = 64
_NAME = "model"  # the same weights may be loaded by another name


def describe_settings(predictor: Predictor, generate_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what determines the answers of a model, as a dictionary of JSON values.

    Args:
        predictor: the model.
        generate_kwargs: as for `Predictor.predict`.

    Returns:
        `model` (its name), `weights` (see `weights_digest`), `adapter` (whether it has the layers of a LoRA adapter), `dtype`,
        `image_size` (of the pixel values), and `generation` (the checkpoint's settings, overridden by `generate_kwargs`).
    """
    stored = predictor.model.generation_config.to_diff_dict()
    generation = {**stored, **resolve_generation_kwargs(predictor.model, generate_kwargs)}
    settings = {
        _NAME: predictor.name,
        "weights": weights_digest(predictor.model),
        "adapter": any("lora_" in name for name, _ in predictor.model.named_parameters()),
        "dtype": str(predictor.model.dtype).removeprefix("torch."),
        "image_size": predictor.processor.image_processor.size,
        "generation": {name: value for name, value in sorted(generation.items()) if name != "transformers_version"},
    }
    described: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return described


def weights_digest(model: torch.nn.Module) -> str:
    """Return 16 hexadecimal digits that differ for models of other weights.

    64 values of each tensor are read, which takes milliseconds; training changes all values.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().flatten()
        values = values[:: max(1, len(values) // _VALUES_PER_TENSOR)]
        digest.update(f"{name} {tuple(tensor.shape)} {values.double().cpu().tolist()}".encode())
    return digest.hexdigest()[:16]


def settings_path(answers: Path) -> Path:
    """Return the path of the settings of a file of answers: `answers.settings.json` for `answers.jsonl`."""
    return answers.with_suffix(".settings.json")


def write_settings(answers: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a file of answers."""
    write_text(settings_path(answers), json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def read_settings(answers: Path) -> dict[str, Any] | None:
    """Return the settings of a file of answers; None if they are not recorded.

    Raises:
        DatasetError: for a file with other content.
    """
    path = settings_path(answers)
    try:
        settings = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise DatasetError(f"{path} must be a JSON object, got {shorten(settings)}")
    return settings


def describe_difference(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Return in which settings answers would differ: `"num_beams 3 instead of 1"`; "" if in none.

    The names of models are given, but not compared: only their weights are.
    """
    differences = []
    before, now = _flatten(recorded), _flatten(current)
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old == new or name == _NAME or (name == "weights" and before.get("dtype") != now.get("dtype")):
            continue  # the digest depends on the dtype
        if name == "weights":
            old, new = f"{before.get(_NAME)} ({old})", f"{now.get(_NAME)} ({new})"
            name = _NAME
        differences.append(f"{name} {_show(old)} instead of {_show(new)}")
    return ", ".join(differences)


def _flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    generation = settings.get("generation")
    rest = {name: value for name, value in settings.items() if name != "generation"}
    return rest | (generation if isinstance(generation, dict) else {})


def _show(value: Any) -> str:
    return value if isinstance(value, str) else shorten(value)
