"""Loading a checkpoint in transformers' layout, tensor by tensor, without a second copy of the weights in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration

from .weights import (
    INVALID_VALUES,
    MISMATCHED_SHAPES,
    MISSING_KEYS,
    UNEXPECTED_KEYS,
    TensorInfo,
    check_finite,
    check_names,
    is_finite,
    iter_weights,
)


def load_transformers(
    folder: Path, config: Florence2Config, weights: list[Path], stored: Mapping[str, TensorInfo], dtype: torch.dtype
) -> Florence2ForConditionalGeneration:
    """Load the weights of a checkpoint in transformers' layout, each in the wanted number format as it is read.

    Transformers' own `from_pretrained` keeps all pages of a file in memory beside the converted weights. It is used for what it
    alone can read, such as weights under older names.

    Args:
        folder: the checkpoint.
        config: its config.
        weights: its weight files.
        stored: the names, shapes and dtypes of their tensors.
        dtype: of the loaded weights.

    Raises:
        CheckpointError: for missing, unexpected or mismatched weights, and for NaN and infinity.
    """
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(config)
    tied: dict[str, str] = model.all_tied_weights_keys
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    is_complete = shapes.keys() - tied.keys() <= stored.keys() <= shapes.keys()
    if is_complete and all(info.shape == shapes[name] for name, info in stored.items()):
        state = _read(folder, weights, tied, dtype)
        if state is not None:
            model.load_state_dict(state | {name: state[source] for name, source in tied.items()}, assign=True)
            model.tie_weights()
            return model
    return _load_with_transformers(folder, config, dtype)


def _read(
    folder: Path, weights: list[Path], tied: Mapping[str, str], dtype: torch.dtype
) -> dict[str, torch.Tensor] | None:
    """The weights without those that are tied to others; None if a stored copy of one differs from it."""
    state: dict[str, torch.Tensor] = {}
    copies: dict[str, torch.Tensor] = {}
    invalid = []
    for name, tensor in iter_weights(weights):
        if name in tied and tied[name] in state and torch.equal(state[tied[name]], tensor.to(dtype)):
            continue
        copied = tensor.to(dtype, copy=True)
        if name in tied:
            copies[name] = copied
            continue
        state[name] = copied
        if not is_finite(copied):  # checked now, while it is in the processor's cache
            invalid.append(name)
    check_names(folder, INVALID_VALUES, invalid)
    is_tied = all(torch.equal(state[tied[name]], tensor) for name, tensor in copies.items())
    return state if is_tied else None


def _load_with_transformers(
    folder: Path, config: Florence2Config, dtype: torch.dtype
) -> Florence2ForConditionalGeneration:
    loaded: Any = Florence2ForConditionalGeneration.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        local_files_only=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    model, report = loaded
    check_names(folder, MISSING_KEYS, report["missing_keys"])
    check_names(folder, UNEXPECTED_KEYS, report["unexpected_keys"])
    check_names(folder, MISMATCHED_SHAPES, [row[0] for row in report["mismatched_keys"]])
    check_finite(folder, model.named_parameters())
    return cast(Florence2ForConditionalGeneration, model)
