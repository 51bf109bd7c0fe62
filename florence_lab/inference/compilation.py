"""Compilation of a model for faster inference.

The image encoder is compiled ahead of time by torch's inductor with its weights frozen into it, and cached on disk.
On a CPU, the linear layers of the language model get a second copy of their weights in the layout of oneDNN, which is faster for
several rows. For one row, as in decoding one answer, a kernel of our own reads the weights at the bandwidth of the memory.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import Florence2ForConditionalGeneration

from ..exceptions import summarize_error, warn
from ..loading.files import cache_dir
from .davit import image_encoder_fingerprint, image_encoder_modules
from .matvec import is_one_row, one_row_linear

logger = logging.getLogger(__name__)

# Number of rows that the weights are laid out for: fast for the few rows of decoding, and as fast for the many of encoding.
_NUM_ROWS = 8


class ImageEncoderModule(nn.Module):
    """The image encoder as a module: pixel values (B x 3 x H x W) -> image tokens (B x N x d_model)."""

    def __init__(self, model: Florence2ForConditionalGeneration) -> None:
        super().__init__()
        self.vision_tower, self.projector = image_encoder_modules(model)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the image tokens of pixel values."""
        tokens: torch.Tensor = self.projector(self.vision_tower(pixel_values).last_hidden_state)
        return tokens


def compile_model(
    model: Florence2ForConditionalGeneration, size: tuple[int, int], folder: Path | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Prepare a model for fast inference, in place, and return its compiled image encoder.

    If the encoder cannot be compiled (no C++ compiler, a full disk …), a warning gives the reason, and the returned encoder
    runs uncompiled in the memory format that suits it best.

    Args:
        model: used for inference only from now on.
        size: (height, width) of the pixel values.
        folder: cache of compiled encoders, by default `~/.cache/florence_lab/compiled`. Each takes the size of the encoder's
            weights.

    Returns:
        Pixel values (B x 3 x H x W) -> image tokens (B x N x d_model).
    """
    if model.device.type == "cpu" and torch.backends.mkldnn.is_available():
        reorder_weights(model)
    try:
        return _load_or_compile(model, size, folder or cache_dir("compiled"))
    except Exception as error:  # inductor, the compiler and the disk raise many types
        warn(f"the image encoder could not be compiled and runs uncompiled: {summarize_error(error)}")
        # changes the layout in memory only
        return ImageEncoderModule(model).to(memory_format=torch.channels_last)


def reorder_weights(model: Florence2ForConditionalGeneration) -> None:
    """Let the linear layers of the language model compute with a copy of their weights in the layout of oneDNN.

    The original weights stay and are what is saved. These layers have no gradient any more.
    """
    for layer in [*model.model.language_model.modules(), model.lm_head]:
        if isinstance(layer, nn.Linear):
            setattr(layer, "forward", _reordered_linear(layer.weight.detach(), layer.bias))  # noqa: B010


def _reordered_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor]:
    # the functions that inductor itself uses; tested with torch 2.6 to 2.14
    reordered = torch.ops.mkldnn._reorder_linear_weight(weight, _NUM_ROWS)
    bias = None if bias is None else bias.detach()
    one_row = one_row_linear(weight, bias)

    def run(x: torch.Tensor) -> torch.Tensor:
        if one_row is not None and is_one_row(x, weight.dtype):
            return one_row(x)
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, reordered, bias, "none", [], "")
        return output

    return run


def _load_or_compile(
    model: Florence2ForConditionalGeneration, size: tuple[int, int], folder: Path
) -> Callable[[torch.Tensor], torch.Tensor]:
    path = folder / f"{_cache_key(model, size)}.pt2"
    if not path.exists():
        example = torch.zeros(1, 3, *size, dtype=model.dtype, device=model.device)
        _compile(ImageEncoderModule(model), example, path)
    run: Any = torch._inductor.aoti_load_package(str(path))
    # compiled for one image: it occupies a CPU, and a batch takes as long as its images one by one
    return lambda pixel_values: torch.cat([run(image) for image in pixel_values.split(1)])


def _cache_key(model: Florence2ForConditionalGeneration, size: tuple[int, int]) -> str:
    """Everything the compiled code depends on: weights, sizes, releases, the processor, and the number of threads."""
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type
    machine = (platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), device)
    return image_encoder_fingerprint(model, size, torch.__version__, transformers.__version__, *machine)


@torch.no_grad()
def _compile(encoder: ImageEncoderModule, example: torch.Tensor, path: Path) -> None:
    import torch._inductor

    path.parent.mkdir(parents=True, exist_ok=True)
    logger.warning("compiling the image encoder for this machine, which takes about a minute the first time")
    start = time.perf_counter()
    program = torch.export.export(encoder, (example,), strict=False)
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.pt2")  # other processes see a complete file or none
    try:
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(temporary), inductor_configs={"freezing": True}
        )
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    logger.info("compiled in %.0f s, cached in %s", time.perf_counter() - start, path)
