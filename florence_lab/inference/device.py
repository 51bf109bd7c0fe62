"""The device and the floating-point format that a model runs in.

What bf16 does to answers, measured with florence-2-nano on a CPU (`evaluate_scenes(load(name, dtype=…), range(100), num_beams=1)`:
1,436 answers to all tasks, each scored from 0 to 1):

| | equal to the answer in fp32 | mean score, fp32 | mean score, bf16 |
| --- | --- | --- | --- |
| all tasks | 43% | 0.9371 | 0.9369 (difference -0.0002, standard error 0.0018) |
| texts | 74% | 0.9466 | 0.9482 |
| boxes | 16% | 0.9786 | 0.9774 |
| polygons | 0% | 0.7843 | 0.7809 |

So the answers differ, by one thousandth of the image's side or less in 91% of the coordinates of boxes, and are as good. bf16 has
the range of fp32: activations cannot overflow, as they can in fp16, whose largest number is 65,504. `"auto"` therefore is bf16.
fp16 has three bits more and is nearer to fp32: of the 114 answers to `range(8)`, 75% are equal to those in fp32 (bf16: 46%), and 68%
of those with boxes (bf16: 20%). It suits a GPU and a model whose activations are known to be small.

TF32 is no dtype of a model: weights stay in fp32, and torch has one setting for all products of the process.
`torch.set_float32_matmul_precision("high")` switches it on, for models that were loaded in fp32 before and after. It rounds
factors to 10 bits after the point, as fp16 has. Convolutions use TF32 on CUDA by default, see
`torch.backends.cudnn.allow_tf32`. `florence-lab benchmark` measures the speed of all four formats.
"""

from __future__ import annotations

import platform

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
            bf16 if the device computes in it, else fp32; the reason is in the description of this module.
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
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    # torch has no public function for this; tested with torch 2.6 to 2.14
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    # oneDNN also supports bf16 on processors that have AVX-512 without its instructions for bf16, and emulates them there
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not is_x86 or bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
