"""What lmms-eval loads: the entry point, and the class of the model. Importing this module needs lmms-eval."""

from __future__ import annotations

import os
from typing import Any

from accelerate import Accelerator
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from .model import LmmsModel


def get_manifest() -> ModelManifest:
    """Return what `--model florence_lab` stands for."""
    return ModelManifest("florence_lab", simple_class_path=f"{__name__}.FlorenceLab")


class FlorenceLab(LmmsModel, lmms):
    """`LmmsModel` as a model of lmms-eval, in one process or in several, each with a model of its own.

    Args:
        device: as in `load`; by default one GPU for each process of `accelerate launch`.
        arguments: see `LmmsModel`.
    """

    def __init__(self, *, device: str | None = None, **arguments: Any) -> None:
        accelerator = Accelerator() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
        if accelerator is not None and device in (None, "cuda"):
            device = str(accelerator.device)
        super().__init__(device=device, **arguments)
        if accelerator is not None:  # lmms-eval gathers results by it
            self.accelerator = accelerator
            self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
