"""TODO"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..exceptions import unknown_name


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
    path=Path(__file__).parents[1] / "assets" / "florence-2-nano",
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
