"""The device and the floating-point format that a model runs in."""

from __future__ import annotations

import torch

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, shorten, summarize_error

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_LONG_NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@validate_arguments
def select_device(device: str | torch.device) -> torch.device:
    """Return the device of a name. `"auto"` is CUDA if available, else MPS, else the CPU.

    Raises:
        ArgumentError: if the device is not available.
    """
    if device != "auto":
        try:
            selected = torch.empty(0, device=device).device  # fails here, not after the weights have been read
        except Exception as error:  # a backend that PyTorch was built without raises many types
            raise ArgumentError(
                f"no device {shorten(str(device))}: use auto, cpu, cuda, cuda:0 or mps ({summarize_error(error)})"
            ) from error
        if selected.type == "meta":
            raise ArgumentError("no device 'meta': it computes nothing; use auto, cpu, cuda, cuda:0 or mps")
        return selected
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@validate_arguments
def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype of a name.

    Args:
        dtype: a floating-point `torch.dtype`, `"fp32"`, `"fp16"`, `"bf16"`, their long names (`"float32"` …), or `"auto"`:
            bf16 if the device computes in it, else fp32.
        device: the device of the model.

    Raises:
        ArgumentError: for an unknown name, or a dtype that is not floating-point.
    """
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if has_native_bf16(device) else torch.float32
    name = _LONG_NAMES.get(str(dtype), dtype)
    if name not in DTYPES:
        raise ArgumentError(f"unknown dtype {shorten(dtype)}: use auto, {', '.join([*DTYPES, *_LONG_NAMES])}")
    return DTYPES[str(name)]


def has_native_bf16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16. PyTorch emulates it on other devices, which is slower than float32."""
    if device.type == "cpu":  # torch has no public function for this; tested with torch 2.6 to 2.14
        return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
