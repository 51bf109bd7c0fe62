"""florence_lab: a Jupyter-centric research toolkit for Florence-2.

    import florence_lab

    predictor = florence_lab.load("florence-2-nano")
    predictor.predict("sheep.png", "<OD>")

What is public is named here and imported on first use: torch and transformers take seconds, `import florence_lab` none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attention import Trace as Trace
    from .attention import trace as trace
    from .catalog import available_models as available_models
    from .checkpoint import CheckpointError as CheckpointError
    from .explorer import explore as explore
    from .hub import HubError as HubError
    from .images import ImageError as ImageError
    from .images import load_image as load_image
    from .predictor import EncodedImage as EncodedImage
    from .predictor import Predictor as Predictor
    from .predictor import load as load
    from .results import Boxes as Boxes
    from .results import Polygons as Polygons
    from .results import Quads as Quads
    from .results import Text as Text
    from .swift import get_default_template_type as get_default_template_type
    from .swift import get_model_tokenizer as get_model_tokenizer
    from .swift import get_template as get_template
    from .swift import inference as inference
    from .swift import inference_stream as inference_stream
    from .swift import seed_everything as seed_everything
    from .tasks import available_tasks as available_tasks
    from .template import FlorenceTemplate as FlorenceTemplate
    from .training.adapters import merge_lora as merge_lora
    from .training.arguments import SftArguments as SftArguments
    from .training.sft import sft as sft

_PUBLIC = {
    "attention": ("Trace", "trace"),
    "catalog": ("available_models",),
    "checkpoint": ("CheckpointError",),
    "explorer": ("explore",),
    "hub": ("HubError",),
    "images": ("ImageError", "load_image"),
    "predictor": ("EncodedImage", "Predictor", "load"),
    "results": ("Boxes", "Polygons", "Quads", "Text"),
    "swift": (
        "get_default_template_type",
        "get_model_tokenizer",
        "get_template",
        "inference",
        "inference_stream",
        "seed_everything",
    ),
    "tasks": ("available_tasks",),
    "template": ("FlorenceTemplate",),
    "training.adapters": ("merge_lora",),
    "training.arguments": ("SftArguments",),
    "training.sft": ("sft",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}
_MODULES = ("attention", "draw", "scenes", "tasks", "vision")

__all__ = sorted([*_MODULE_OF, *_MODULES])
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
