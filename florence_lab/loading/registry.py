"""The known models: `model_type` -> where it is published."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ..exceptions import ArgumentError, unknown_name


@dataclass(frozen=True)
class ModelInfo:
    """A known model.

    Attributes:
        model_type: its name.
        modelscope_id: its id on ModelScope; None if it is not published there.
        hf_id: its id on Hugging Face; None if it is not published there.
        description: one line for help texts.
        path: the folder of a model that ships with the package, else None.
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
    description="6.4M parameters, ships with florence_lab; trained on the package's cartoon scenes only.",
    path=Path(str(files("florence_lab") / "assets" / "florence-2-nano")),
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
"""`model_type` -> `ModelInfo`."""


def available_models() -> list[str]:
    """Return the names of the known models."""
    return list(MODELS)


def get_model_info(model_type: str) -> ModelInfo:
    """Return the entry of a known model.

    Raises:
        ArgumentError: for an unknown name; the message lists the known ones.
    """
    if model_type not in MODELS:
        raise ArgumentError(unknown_name("model_type", model_type, MODELS))
    return MODELS[model_type]
