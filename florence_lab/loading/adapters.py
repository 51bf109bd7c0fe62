"""LoRA adapters, and `load_model`, which loads a checkpoint or an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..exceptions import CheckpointError, summarize_error
from .checkpoint import load_checkpoint
from .files import read_json
from .hub import resolve
from .library import suppress_library_output

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def load_model(
    folder: str | Path, dtype: torch.dtype = torch.float32, hub: str | None = None
) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """Load the model and processor of a checkpoint folder, or of an adapter together with its base model.

    Args:
        folder: a checkpoint in either layout, or an adapter of PEFT.
        dtype: of the weights.
        hub: from which the base model of an adapter is downloaded, see `resolve`.

    Returns:
        The model (in eval mode, on the CPU) and its processor.

    Raises:
        CheckpointError: if the folder is not a complete Florence-2 checkpoint or adapter.
        HubError: if the base model of an adapter cannot be downloaded.
    """
    folder = Path(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        adapted, processor = load_adapter(folder, dtype, hub)
        model: Any = adapted.get_base_model()  # with the layers of the adapter
        model.config.trained_on = None  # the domain of the base model is not that of the adapter
        return model, processor
    return load_checkpoint(folder, dtype)


def load_adapter(
    folder: Path, dtype: torch.dtype = torch.float32, hub: str | None = None
) -> tuple[PeftModel, Florence2Processor]:
    """Load an adapter with its base model, in eval mode, and the processor. Arguments and errors as `load_model`."""
    from peft import PeftModel

    base = read_adapter_config(folder)["base_model_name_or_path"]
    model, processor = load_checkpoint(resolve(base, hub), dtype)
    try:
        with suppress_library_output():
            adapted = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)
    except Exception as error:  # a broken file, or layers that the model does not have
        raise CheckpointError(f"cannot read {folder} as an adapter of {base}: {summarize_error(error)}") from error
    return adapted.to(dtype).eval(), processor


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Return the `adapter_config.json` of a folder, which names the base model.

    Raises:
        CheckpointError: if there is none, if it names no base model, or if the folder has no weights.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"{folder} is not an adapter: it has no {ADAPTER_CONFIG}")
    config = read_json(folder / ADAPTER_CONFIG)
    if not config.get("base_model_name_or_path"):
        raise CheckpointError(f"{folder}/{ADAPTER_CONFIG} has no base_model_name_or_path")
    if not (folder / ADAPTER_WEIGHTS).is_file():  # PEFT once wrote pickles, which are not read
        raise CheckpointError(f"{folder} has no {ADAPTER_WEIGHTS}")
    return config
