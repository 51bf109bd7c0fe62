"""Messages of the panel: errors in one line, and notices about models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..exceptions import HubError, ImageError
from ..loading.registry import MODELS
from .access import is_public_page

if TYPE_CHECKING:
    from .images import SourceImage

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
_MAX_DETAIL_LENGTH = 120
_ERROR_NUMBER_RE = re.compile(r"\[Errno -?\d+\] ")

_HUB_ADVICE = (
    "Give the folder of a checkpoint, select florence-2-nano, which needs no network, or choose another hub by the environment "
    "variable FLORENCE_LAB_HUB (hf or modelscope) before Jupyter is started."
)


def domain_notice(model_names: tuple[str, ...], image: SourceImage) -> str:
    """Return a notice about models that were trained on cartoon scenes only, if the image is not one; else ""."""
    if image.is_scene:
        return ""
    return " ".join(
        f"{name} was trained on florence_lab's drawn scenes only, and this image is not one of them: expect wrong answers."
        for name in dict.fromkeys(model_names)
        if name in MODELS and MODELS[name].path
    )


def loading_message(model_name: str, is_compiled: bool) -> str:
    """Return what the panel says while a model is loaded."""
    is_local = Path(model_name).expanduser().is_dir() or (model_name in MODELS and MODELS[model_name].path)
    sentences = [
        f"Loading {model_name} …",
        "" if is_local else "It is downloaded the first time.",
        "Compiling takes about a minute." if is_compiled else "",
    ]
    return " ".join(filter(None, sentences))


def describe_error(error: BaseException) -> str:
    """Return one line that says what went wrong and what to do."""
    message = _ERROR_NUMBER_RE.sub("", " ".join(str(error).split())) or type(error).__name__
    if isinstance(error, MemoryError) or any(text in message.lower() for text in _OUT_OF_MEMORY):
        return (
            f"There is not enough memory for this model ({message[:_MAX_DETAIL_LENGTH]}). Select a smaller one, such as "
            "florence-2-base."
        )
    if isinstance(error, HubError):
        return _describe_hub_error(message)
    if isinstance(error, ImageError):
        return message if is_public_page() else f"{message}. Give another path or URL of an image, or select a sample."
    if isinstance(error, (ValueError, OSError)):
        return message
    return f"Unexpected error: {type(error).__name__}: {message}. Try another image, task or model."


def _describe_hub_error(message: str) -> str:
    """Return what went wrong, with what can be done in the panel in place of the arguments of `load`."""
    reason = message.partition(". Alternatives: ")[0]
    head, is_unreachable, _ = reason.partition(" is not reachable")
    if is_unreachable:
        reason = head + is_unreachable  # what follows is the wording of a library
    return f"{reason[:1].upper()}{reason[1:]}. {_HUB_ADVICE}"
