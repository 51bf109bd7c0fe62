"""Weights of the language model in 8 or 4 bits, by torchao on CUDA. They save memory; see `load` for what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Florence2ForConditionalGeneration

from ..exceptions import ArgumentError, CheckpointError, shorten, summarize_error

_GROUP_SIZE = 128  # weights with a common scale, in 4 bits
_INT4_CAPABILITY = (8, 0)  # of the GPU, for the kernel of 4 bits


def _int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig(set_inductor_config=False)


def _int4() -> Any:
    from torchao.quantization import Int4WeightOnlyConfig

    # this format is the one whose kernel is part of torch
    return Int4WeightOnlyConfig(
        group_size=_GROUP_SIZE, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
    )


_CONFIGS: dict[str, Callable[[], Any]] = {"int8": _int8, "int4": _int4}

QUANTIZATIONS = tuple(_CONFIGS)
"""The values of `load`'s `quantize`."""


def check_quantization(quantize: str, device: torch.device, dtype: torch.dtype) -> None:
    """Verify that weights can be quantized on a device, before a model is loaded.

    Raises:
        ArgumentError: for an unknown value, a device or number format that does not support it, and without torchao.
    """
    given = f"quantize={quantize!r}"
    if quantize not in QUANTIZATIONS:
        raise ArgumentError(f"unknown quantize {shorten(quantize)}: use {', '.join(QUANTIZATIONS)} or None")
    if device.type != "cuda":
        raise ArgumentError(
            f"{given} needs CUDA, but the device is {device}; there, dtype='bf16' takes half of the memory of fp32"
        )
    if quantize == "int4" and dtype != torch.bfloat16:
        name = str(dtype).removeprefix("torch.")
        raise ArgumentError(f"{given} computes in bf16, but the dtype is {name}; use dtype='bf16', or quantize='int8'")
    if quantize == "int4" and torch.cuda.get_device_capability(device) < _INT4_CAPABILITY:
        raise ArgumentError(
            f"{given} needs a GPU of compute capability 8.0 (Ampere) or later, which {torch.cuda.get_device_name(device)} does "
            "not have; use quantize='int8'"
        )
    try:
        _CONFIGS[quantize]()
    except ImportError as error:
        raise ArgumentError(
            f"{given} needs torchao: pip install 'florence_lab[quantize]' ({summarize_error(error)})"
        ) from error


def quantize_model(model: Florence2ForConditionalGeneration, quantize: str) -> None:
    """Quantize the linear layers of the language model and the output layer, in place.

    The image encoder, the embeddings and the norms keep their number format. The output layer gets weights of its own, as the
    embeddings are the same table. The model cannot be trained or saved any more.

    Args:
        model: on the device where it will run.
        quantize: one of `QUANTIZATIONS`, see `check_quantization`.

    Raises:
        ArgumentError: for a model with the layers of an adapter.
        CheckpointError: if torchao cannot quantize the model.
    """
    from torchao.quantization import quantize_

    adapted = [name for name, module in model.named_modules() if hasattr(module, "base_layer")]
    if adapted:
        raise ArgumentError(
            f"quantize={quantize!r} does not support adapters ({adapted[0]} has one); merge it first: "
            "florence-lab export --ckpt_dir ADAPTER"
        )
    model.requires_grad_(False)
    # a module of its own, so that the table of the embeddings stays as it is
    head = nn.Linear(*reversed(model.lm_head.weight.shape), bias=False, device="meta")
    head.weight = nn.Parameter(model.lm_head.weight.data, requires_grad=False)
    model.lm_head = head
    try:
        for part in (model.model.language_model, nn.ModuleList([head])):
            quantize_(part, _CONFIGS[quantize](), _is_quantized)
    except Exception as error:  # torchao and its kernels raise many types
        raise CheckpointError(f"the model cannot be quantized to {quantize}: {summarize_error(error)}") from error
    setattr(model, "save_pretrained", _refuse_to_save)  # noqa: B010  (mypy refuses to assign to a method)


def _is_quantized(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and module.in_features % _GROUP_SIZE == 0


def _refuse_to_save(*_: Any, **__: Any) -> None:
    raise CheckpointError("a model with quantized weights cannot be saved; load it without quantize and save that")
