"""TODO"""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def select_device(device: str) -> torch.device:
    """The device of that name, or the best there is for `"auto"`. Raises ValueError for one that is not there."""
    if device != "auto":
        try:
            return torch.empty(0, device=device).device  # found out now, not when the weights have been read
        except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without it
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"no device {device!r}: give auto, cpu, cuda, cuda:0 or mps ({reason})") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if has_native_bf16(device) else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}: give {', '.join(DTYPES)} or auto")
    return DTYPES[dtype]


def has_native_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself; PyTorch emulates it on older ones, at a loss."""
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
