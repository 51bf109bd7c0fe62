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
    from .exceptions import CheckpointError as CheckpointError
    from .exceptions import HubError as HubError
    from .exceptions import ImageError as ImageError
    from .explorer import explore as explore
    from .finetuning.arguments import SftArguments as SftArguments
    from .finetuning.lora import merge_lora as merge_lora
    from .finetuning.run import sft as sft
    from .images import load_image as load_image
    from .inference.generation import EncodedImage as EncodedImage
    from .interpret.trace import Trace as Trace
    from .interpret.trace import trace as trace
    from .loading.registry import available_models as available_models
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
    from .template.template import FlorenceTemplate as FlorenceTemplate

_PUBLIC = {
    "exceptions": ("CheckpointError", "HubError", "ImageError"),
    "explorer": ("explore",),
    "finetuning.arguments": ("SftArguments",),
    "finetuning.lora": ("merge_lora",),
    "finetuning.run": ("sft",),
    "images": ("load_image",),
    "inference.generation": ("EncodedImage",),
    "interpret.trace": ("Trace", "trace"),
    "loading.registry": ("available_models",),
    "predictor": ("Predictor", "load"),
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
    "template.template": ("FlorenceTemplate",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}
_MODULES = ("interpret", "scenes", "tasks", "visualization")

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
