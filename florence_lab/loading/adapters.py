"""TODO"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..exceptions import CheckpointError, summarize_error
from .checkpoint import load_checkpoint, suppress_library_output
from .files import _read_json
from .hub import resolve

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER_CONFIG = "adapter_config.json"

ADAPTER_WEIGHTS = "adapter_model.safetensors"


def load_model(
    folder: str | Path, dtype: torch.dtype = torch.float32, hub: str | None = None
) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """Load a checkpoint folder, or an adapter with the checkpoint that it belongs to. Raises as `load_checkpoint`."""
    folder = Path(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        adapted, processor = load_adapter(folder, dtype, hub)
        model = adapted.get_base_model()  # with the adapter's layers in it
        model.config.trained_on = None  # the base model's domain is not the adapter's
        return model, processor
    return load_checkpoint(folder, dtype)


def load_adapter(
    folder: Path, dtype: torch.dtype = torch.float32, hub: str | None = None
) -> tuple[PeftModel, Florence2Processor]:
    """An adapter beside the weights that it belongs to, in eval mode, and their processor. Raises as `load_checkpoint`."""
    from peft import PeftModel

    base = read_adapter_config(folder)["base_model_name_or_path"]
    model, processor = load_checkpoint(resolve(base, hub), dtype)
    try:
        with suppress_library_output():
            adapted = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)
    except Exception as error:  # a broken file, or layers that the model has not
        raise CheckpointError(f"{folder} can't be read as an adapter of {base}: {summarize_error(error)}") from error
    return adapted.to(dtype).eval(), processor


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The folder's `adapter_config.json`, which names the model that the adapter belongs to.

    Raises:
        CheckpointError: if there is none, or no weights beside it.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"{folder} holds no adapter: it has no {ADAPTER_CONFIG}")
    config = _read_json(folder / ADAPTER_CONFIG)
    if not config.get("base_model_name_or_path"):
        raise CheckpointError(f"{folder}/{ADAPTER_CONFIG} names no base_model_name_or_path")
    if not (folder / ADAPTER_WEIGHTS).is_file():  # a pickle of weights, as PEFT once wrote, is not read
        raise CheckpointError(f"{folder} has no {ADAPTER_WEIGHTS}")
    return config
