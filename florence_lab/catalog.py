"""Which models there are, as data: `model_type` -> where it is published and one line about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelInfo:
    """One model of the catalogue.

    `modelscope_id` and `hf_id` are its hub ids, `None` where it is not published there; `path` is the folder
    of a model that ships with this package.
    """

    model_type: str
    modelscope_id: str | None
    hf_id: str | None
    description: str
    path: Path | None = None


def _published(name: str, description: str) -> ModelInfo:
    return ModelInfo(name.lower(), f"AI-ModelScope/{name}", f"microsoft/{name}", description)


_NANO = ModelInfo(
    "florence-2-nano",
    modelscope_id=None,
    hf_id=None,
    description="Ships with florence_lab and needs no network; it only knows this package's cartoon scenes.",
    path=Path(__file__).parent / "assets" / "florence-2-nano",
)

MODELS: dict[str, ModelInfo] = {
    info.model_type: info
    for info in (
        _published("Florence-2-base", "0.23B parameters, pretrained."),
        _published("Florence-2-base-ft", "0.23B parameters, fine-tuned on a collection of downstream tasks."),
        _published("Florence-2-large", "0.77B parameters, pretrained."),
        _published("Florence-2-large-ft", "0.77B parameters, fine-tuned on a collection of downstream tasks."),
        _NANO,
    )
}


def available_models() -> list[str]:
    """The model types that `get_model_info` knows."""
    return list(MODELS)


def get_model_info(model_type: str) -> ModelInfo:
    """The catalogue's entry for `model_type`; an unknown one raises `ValueError`, naming those there are."""
    if model_type not in MODELS:
        raise ValueError(unknown_name("model_type", model_type, MODELS))
    return MODELS[model_type]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a `name` not among the `known` ones: it suggests the nearest and lists them all.

    `kind` says what was being named, as in "model_type". Case does not count towards nearness.
    """
    spelled = {str(item).lower(): str(item) for item in known}
    nearest = difflib.get_close_matches(str(name).lower(), spelled, n=1)
    hint = f"; did you mean {spelled[nearest[0]]!r}?" if nearest else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(spelled.values())}"
