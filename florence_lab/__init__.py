"""florence_lab: a Jupyter-centric research toolkit for Florence-2.

    import florence_lab

    predictor = florence_lab.load("florence-2-nano")
    result = predictor.predict("sheep.png", "<OD>")
    result.boxes, result.labels, result.scores

Start with `load` and `Predictor`. The submodules listed here hold more: `tasks` the table of tasks, `visualization` overlays and
galleries, `interpret` attention and token probabilities, `scenes` drawn scenes with ground truth.

The public names are imported on first use, so that `import florence_lab` is fast: torch and transformers take seconds.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .detection.calibration import Calibration as Calibration
    from .evaluation.calibration import CalibrationReport as CalibrationReport
    from .evaluation.calibration import calibrate as calibrate
    from .evaluation.evaluator import Evaluation as Evaluation
    from .evaluation.evaluator import evaluate as evaluate
    from .exceptions import ArgumentError as ArgumentError
    from .exceptions import ArgumentTypeError as ArgumentTypeError
    from .exceptions import CheckpointError as CheckpointError
    from .exceptions import DatasetError as DatasetError
    from .exceptions import FlorenceLabError as FlorenceLabError
    from .exceptions import FlorenceLabWarning as FlorenceLabWarning
    from .exceptions import HubError as HubError
    from .exceptions import ImageError as ImageError
    from .exceptions import PromptError as PromptError
    from .exceptions import TrainingError as TrainingError
    from .explorer import explore as explore
    from .finetuning.arguments import SftArguments as SftArguments
    from .finetuning.lora import merge_lora as merge_lora
    from .finetuning.run import sft as sft
    from .images import load_image as load_image
    from .inference.generation import EncodedImage as EncodedImage
    from .inference.ranking import RankedCandidates as RankedCandidates
    from .inference.ranking import ScoredCandidate as ScoredCandidate
    from .interpret.tracing import Trace as Trace
    from .interpret.tracing import trace as trace
    from .labeling.labelling import LabelReport as LabelReport
    from .labeling.labelling import label as label
    from .labeling.masks import refine_masks as refine_masks
    from .labeling.review.widget import review as review
    from .loading.registry import available_models as available_models
    from .predictor import Predictor as Predictor
    from .predictor import load as load
    from .results import Boxes as Boxes
    from .results import Instances as Instances
    from .results import Polygons as Polygons
    from .results import Quads as Quads
    from .results import Result as Result
    from .results import Text as Text
    from .results import to_coco as to_coco
    from .swift import InferRequest as InferRequest
    from .swift import PtEngine as PtEngine
    from .swift import RequestConfig as RequestConfig
    from .swift import TransformersEngine as TransformersEngine
    from .swift import get_default_template_type as get_default_template_type
    from .swift import get_model_tokenizer as get_model_tokenizer
    from .swift import get_template as get_template
    from .swift import inference as inference
    from .swift import inference_stream as inference_stream
    from .swift import seed_everything as seed_everything
    from .tasks import Task as Task
    from .tasks import available_tasks as available_tasks
    from .tasks import get_task as get_task
    from .tasks import register_task as register_task
    from .template.prompts import Prompt as Prompt
    from .template.template import FlorenceTemplate as FlorenceTemplate
    from .viewer import view as view

_PUBLIC = {
    "detection.calibration": ("Calibration",),
    "evaluation.calibration": ("CalibrationReport", "calibrate"),
    "evaluation.evaluator": ("Evaluation", "evaluate"),
    "exceptions": (
        "ArgumentError",
        "ArgumentTypeError",
        "CheckpointError",
        "DatasetError",
        "FlorenceLabError",
        "FlorenceLabWarning",
        "HubError",
        "ImageError",
        "PromptError",
        "TrainingError",
    ),
    "explorer": ("explore",),
    "finetuning.arguments": ("SftArguments",),
    "finetuning.lora": ("merge_lora",),
    "finetuning.run": ("sft",),
    "images": ("load_image",),
    "inference.generation": ("EncodedImage",),
    "inference.ranking": ("RankedCandidates", "ScoredCandidate"),
    "interpret.tracing": ("Trace", "trace"),
    "labeling.labelling": ("LabelReport", "label"),
    "labeling.masks": ("refine_masks",),
    "labeling.review.widget": ("review",),
    "loading.registry": ("available_models",),
    "predictor": ("Predictor", "load"),
    "results": ("Boxes", "Instances", "Polygons", "Quads", "Result", "Text", "to_coco"),
    "swift": (
        "InferRequest",
        "PtEngine",
        "RequestConfig",
        "TransformersEngine",
        "get_default_template_type",
        "get_model_tokenizer",
        "get_template",
        "inference",
        "inference_stream",
        "seed_everything",
    ),
    "tasks": ("Task", "available_tasks", "get_task", "register_task"),
    "template.prompts": ("Prompt",),
    "template.template": ("FlorenceTemplate",),
    "viewer": ("view",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}
_MODULES = ("interpret", "scenes", "tasks", "visualization")

__all__ = sorted([*_MODULE_OF, *_MODULES])
__version__ = "0.2.0"


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


class _Package(ModuleType):
    """This package. `florence_lab.inference` is the function of ms-swift's interface, not the subpackage of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, except where importing a subpackage would replace a public function."""
        if not (isinstance(value, ModuleType) and name in _MODULE_OF):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
