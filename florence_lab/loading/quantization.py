"""Weights of the language model in 8 or 4 bits.

On a CPU, the decoder and the output layer compute with 8-bit integers (dynamic quantization: torch's own kernels). A decoder reads
all of its weights for each token, so fewer bytes are less time: 8 ms for the layers of one token of florence-2-base on one core of
Zen 4, against 16 ms in bf16 and 29 ms in fp32. On CUDA, torchao stores the language model in fewer bits, which saves memory.

What 8 bits do to answers was measured with florence-2-nano on a CPU (`evaluate_scenes(load(name, quantize="int8"),
HELD_OUT_SEEDS[:100], num_beams=1)`: 1,436 answers to all tasks, each scored from 0 to 1): 48% equal those in fp32, and their mean score is
0.9331 against 0.9307 (difference 0.0024, standard error 0.0021).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Florence2ForConditionalGeneration

from ..exceptions import ArgumentError, CheckpointError, shorten, summarize_error

_GROUP_SIZE = 128  # weights with a common scale, in 4 bits
_INT4_CAPABILITY = (8, 0)  # of the GPU, for the kernel of 4 bits
_ENGINES = ("x86", "fbgemm", "onednn")  # of torch, with a scale for each output


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights, a scale for each output, and inputs that are rounded to 8 bits when it is called."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach().float()
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny).double()
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces the removal of this function, see `check_quantization`
            quantized = torch.quantize_per_channel(weight, scales, zeros, axis=0, dtype=torch.qint8)
        stored: torch.Tensor | None = layer.bias  # typed as a tensor in torch
        bias = None if stored is None else stored.detach().float()
        self.packed = torch.ops.quantized.linear_prepack(quantized, bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs, in the number format of the inputs."""
        # inputs of 7 bits: the sums of two products of 8 bits overflow on processors without VNNI
        outputs: torch.Tensor = torch.ops.quantized.linear_dynamic(inputs.float(), self.packed, reduce_range=True)
        return outputs.to(inputs.dtype)


def _int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig(set_inductor_config=False)


def _int4() -> Any:
    from torchao.quantization import Int4WeightOnlyConfig

    # this format is the one whose kernel is part of torch
    return Int4WeightOnlyConfig(
        group_size=_GROUP_SIZE, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
    )


_CONFIGS: dict[str, Callable[[], Any]] = {"int8": _int8, "int4": _int4}  # of torchao

QUANTIZATIONS = {"int8": ("cpu", "cuda"), "int4": ("cuda",)}
"""The values of `load`'s `quantize`, and the devices that support them."""


def check_quantization(quantize: str, device: torch.device, dtype: torch.dtype) -> None:
    """Verify that weights can be quantized on a device, before a model is loaded.

    Raises:
        ArgumentError: for an unknown value, a device or number format that does not support it, and without torchao.
    """
    given = f"quantize={quantize!r}"
    if quantize not in QUANTIZATIONS:
        raise ArgumentError(f"unknown quantize {shorten(quantize)}: use {', '.join(QUANTIZATIONS)} or None")
    if device.type not in QUANTIZATIONS[quantize]:
        others = [name for name, devices in QUANTIZATIONS.items() if device.type in devices]
        raise ArgumentError(
            f"{given} is not available on {device}, only on {' and '.join(QUANTIZATIONS[quantize])}; use "
            + " or ".join([*(f"quantize={name!r}" for name in others), "dtype='bf16'"])
        )
    if device.type == "cpu":
        if torch.backends.quantized.engine not in _ENGINES or not hasattr(torch, "quantize_per_channel"):
            raise ArgumentError(
                f"{given} needs torch's 8-bit kernels for x86, which torch {torch.__version__} does not have on this processor; "
                "use dtype='bf16'"
            )
        return
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
    """Quantize linear layers of the language model and the output layer, in place: on a CPU those of the decoder only.

    The image encoder, the embeddings and the norms keep their number format. The output layer gets weights of its own, as the
    embeddings are the same table. The model cannot be trained or saved any more.

    Args:
        model: on the device where it will run.
        quantize: one of `QUANTIZATIONS`, see `check_quantization`.

    Raises:
        ArgumentError: for a model with the layers of an adapter.
        CheckpointError: if torchao cannot quantize the model.
    """
    adapted = [name for name, module in model.named_modules() if hasattr(module, "base_layer")]
    if adapted:
        raise ArgumentError(
            f"quantize={quantize!r} does not support adapters ({adapted[0]} has one); merge it first: "
            "florence-lab export --ckpt_dir ADAPTER"
        )
    model.requires_grad_(False)
    setattr(model, "save_pretrained", _refuse_to_save)  # noqa: B010  (mypy refuses to assign to a method)
    if model.device.type == "cpu":
        _replace_layers(model.model.language_model.decoder)
        setattr(model, "lm_head", Int8Linear(model.lm_head))  # noqa: B010  (of another type)
        return
    # a module of its own, so that the table of the embeddings stays as it is
    num_outputs, num_inputs = model.lm_head.weight.shape
    head = nn.Linear(num_inputs, num_outputs, bias=False, device="meta")
    head.weight = nn.Parameter(model.lm_head.weight.data, requires_grad=False)
    model.lm_head = head
    try:
        from torchao.quantization import quantize_

        for part in (model.model.language_model, nn.ModuleList([head])):
            quantize_(part, _CONFIGS[quantize](), _is_quantized)
    except Exception as error:  # torchao and its kernels raise many types
        raise CheckpointError(f"the model cannot be quantized to {quantize}: {summarize_error(error)}") from error


def is_quantized(model: Florence2ForConditionalGeneration) -> bool:
    """Return whether a model on a CPU has weights in 8 bits."""
    return isinstance(model.lm_head, Int8Linear)


def _replace_layers(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            _replace_layers(child)


def _is_quantized(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and module.in_features % _GROUP_SIZE == 0


def _refuse_to_save(*_: Any, **__: Any) -> None:
    raise CheckpointError("a model with quantized weights cannot be saved; load it without quantize and save that")
