"""From a checkpoint folder to a model and its processor."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor

from ..exceptions import CheckpointError, summarize_error
from .checkpoint_tasks import add_model_tasks, register_tasks
from .checks import IGNORED_CONFIG_FIELDS, check_config, check_image_tokens, check_tokenizer_settings
from .conversion import (
    build_generation_config,
    check_heads,
    convert_config,
    is_published_layout,
    load_published,
)
from .files import find_weight_files, read_json, read_settings
from .hub import resolve
from .library import suppress_library_output
from .processor import check_tokenizer, load_processor
from .transformers_layout import load_transformers
from .weights import check_stored_shapes, check_stored_types, describe_weights


def load_checkpoint(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    processor: str | Path | None = None,
    hub: str | None = None,
) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """Load a checkpoint folder in the published or in transformers' layout.

    The published layout gives what the published code gives: the same pixel values, logits and tokens. Weights are read from
    `model.safetensors`, or from `pytorch_model.bin` with `torch.load(weights_only=True)`, sharded or not. Safe in threads.

    The tasks in `florence_lab_tasks.json` are registered, see `register_tasks`.

    Args:
        folder: the checkpoint. See `load_model` for adapters.
        dtype: of the weights.
        processor: the model whose tokenizer and image settings are used: a name or folder, see `resolve`. By default those of the
            folder; what it lacks comes from the published model of the same sizes, if that is in a cache.
        hub: from which the model named by `processor` is downloaded, see `resolve`.

    Returns:
        The model (in eval mode, on the CPU) and its processor.

    Raises:
        CheckpointError: if a file is missing, incomplete, invalid, of another model, quantized, or a pickle that contains code.
            The message names the file and, if one is to blame, the field and its value.
        HubError: if the model named by `processor` is not available.
    """
    folder = Path(folder)
    source = None if processor is None else resolve(processor, hub)
    with suppress_library_output():  # holds the lock
        try:
            model, loaded_processor = _load(folder, dtype, source)
        except (CheckpointError, MemoryError):
            raise
        except Exception as error:  # invalid files make the libraries raise nearly anything
            raise CheckpointError(f"cannot read {folder} as Florence-2: {summarize_error(error)}") from error
    add_model_tasks(model, register_tasks(folder))
    return model, loaded_processor


def read_config(folder: Path) -> dict[str, Any]:
    """Return the `config.json` of a Florence-2 checkpoint.

    Raises:
        CheckpointError: if there is none, or if it belongs to another model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint folder: it has no config.json")
    config = read_json(path)
    if config.get("model_type") != "florence2":
        raise CheckpointError(
            f"{folder} contains a model of type {config.get('model_type')!r}; only 'florence2' is supported"
        )
    for part in ("vision_config", "text_config"):
        if not isinstance(config.get(part), dict):
            raise CheckpointError(f"{path} has no {part}")
    return config


def _load(
    folder: Path, dtype: torch.dtype, source: Path | None
) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """Load a folder. What takes long, the weights, comes last: everything else is checked before."""
    stored = read_config(folder)
    weights = find_weight_files(folder)
    settings = read_settings(folder)
    check_config(folder / "config.json", stored)
    check_tokenizer_settings(folder, settings)
    tensors = describe_weights(weights)
    check_stored_types(folder, tensors)

    processor, image_settings, image_path, tokenizer_folder = load_processor(folder, stored, source)
    is_published = is_published_layout(stored)
    if is_published:
        config = convert_config(folder, stored, processor.image_token_id)
    else:
        config = _read_transformers_config(folder, stored)
    text: Any = config.text_config
    vocab_size = stored["text_config"]["vocab_size"] if is_published else text.vocab_size
    check_stored_shapes(folder, tensors, config, vocab_size)
    check_heads(folder, config)
    generation_config = build_generation_config(folder, stored, config, settings.get("generation_config.json"))
    check_tokenizer(tokenizer_folder, processor.tokenizer, vocab_size, generation_config.eos_token_id)
    check_image_tokens(image_path, image_settings, config)
    if config.image_token_id != processor.image_token_id:
        raise CheckpointError(
            f"{folder}/config.json is invalid: image_token_id is {config.image_token_id}, but the tokenizer gives <image> the id "
            f"{processor.image_token_id}"
        )

    model = (
        load_published(folder, config, weights, vocab_size, dtype)
        if is_published
        else load_transformers(folder, config, weights, tensors, dtype)
    )
    model.generation_config = generation_config
    return model.eval(), processor


def _read_transformers_config(folder: Path, stored: dict[str, Any]) -> Florence2Config:
    stored = copy.deepcopy(stored)
    for values in (stored, stored["text_config"], stored["vision_config"]):
        for name in IGNORED_CONFIG_FIELDS:
            values.pop(name, None)
    config: Florence2Config = Florence2Config.from_dict(stored)
    return config
