"""TODO"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..exceptions import ImageError
from ..loading.registry import MODELS

if TYPE_CHECKING:
    from .images import Picture


def what_it_knows(models: tuple[str, ...], picture: Picture) -> str:
    """A line about each model that ships and is asked about a picture that it can't know; "" where there is none."""
    strangers = [] if picture.is_scene else [m for m in dict.fromkeys(models) if m in MODELS and MODELS[m].path]
    return " ".join(f"{model} does not know such pictures. {MODELS[model].description}" for model in strangers)


def explain(error: BaseException) -> str:
    """One line: what was wrong, and what would do."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in said.lower() or "can't allocate memory" in said.lower():
        return f"There is not enough memory for this model ({said[:120]}). A smaller one would do: florence-2-base."
    if isinstance(error, ImageError):
        return f"{said}. Give another path or URL of a picture, or choose a sample."
    if isinstance(error, (ValueError, OSError)):
        return said
    return f"That went wrong inside: {type(error).__name__}: {said}. Another picture, task or model may do."
