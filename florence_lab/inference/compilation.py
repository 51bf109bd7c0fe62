"""A model that answers faster on this machine, for a wait when it is loaded and some more memory.

Two things are done to it. The vision tower is compiled ahead of time by torch's inductor, its weights frozen into it, and kept
on disk for the next process. And the language model's linear layers get a second copy of their weights, in the order in which
oneDNN reads them: a decoder asks for each of them once per token, and plain matrix products reach half the memory's speed.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import Florence2ForConditionalGeneration

from ..exceptions import summarize_error
from .davit import image_encoder_fingerprint

_ROWS = 8  # for which weights are ordered: good for the few rows of decoding, and as good for the many of reading


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/florence_lab/compiled`, or the same in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "florence_lab", "compiled")


class Tower(nn.Module):
    """Pixels to image tokens: B x 3 x H x W -> B x n x d_model."""

    def __init__(self, model: Florence2ForConditionalGeneration) -> None:
        super().__init__()
        self.vision = model.model.vision_tower
        self.projector = model.model.multi_modal_projector

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.projector(self.vision(pixels).last_hidden_state)


def compile_model(
    model: Florence2ForConditionalGeneration, size: tuple[int, int], folder: Path | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Makes a model fast in place, and gives its tower: B x 3 x H x W pixels -> B x n x d_model image tokens.

    Where the tower can't be compiled (no C++ compiler, no room on the disk …) one warning says why, and the tower that is
    given works as it is, in the memory format that suits it best.

    Args:
        model: to be used for inference alone from now on.
        size: (height, width) of the pixels.
        folder: for compiled towers; by default `default_folder()`. Each takes as much as the tower's weights.
    """
    if model.device.type == "cpu" and torch.backends.mkldnn.is_available():
        order_weights(model)
    try:
        return _compiled_tower(model, size, Path(folder or default_folder()))
    except Exception as error:  # inductor, the compiler and the disk raise whatever they like
        warnings.warn(
            f"the vision tower could not be compiled and works uncompiled: {_reason(error)}",
            UserWarning,
            stacklevel=3,
        )
        # the weights' order in memory alone: shapes, names and values stay
        return Tower(model).to(memory_format=torch.channels_last)


def order_weights(model: Florence2ForConditionalGeneration) -> None:
    """Has the linear layers of the language model compute with a copy of their weights that is ordered for oneDNN.

    The weights stay what they were, and are what is saved; there is no gradient through these layers any more.
    """
    for layer in [*model.model.language_model.modules(), model.lm_head]:
        if isinstance(layer, nn.Linear):
            layer.forward = _ordered(layer.weight.detach(), layer.bias)


def _ordered(weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor]:
    ordered = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
    bias = None if bias is None else bias.detach()
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, ordered, bias, "none", [], "")


def _compiled_tower(
    model: Florence2ForConditionalGeneration, size: tuple[int, int], folder: Path
) -> Callable[[torch.Tensor], torch.Tensor]:
    path = folder / f"{_key(model, size)}.pt2"
    if not path.exists():
        _compile(Tower(model), torch.zeros(1, 3, *size, dtype=model.dtype, device=model.device), path)
    run = torch._inductor.aoti_load_package(str(path))
    # compiled for one picture: a CPU is busy with one, and several take as long as one after the other
    return lambda pixels: torch.cat([run(one) for one in pixels.split(1)])


def _key(model: Florence2ForConditionalGeneration, size: tuple[int, int]) -> str:
    """Whatever the compiled code depends on: weights, sizes, releases, the processor, and how many threads it starts."""
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type
    machine = (platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), device)
    return image_encoder_fingerprint(model, size, torch.__version__, transformers.__version__, *machine)


@torch.no_grad()
def _compile(tower: Tower, pixels: torch.Tensor, path: Path) -> None:
    import torch._inductor

    path.parent.mkdir(parents=True, exist_ok=True)
    print("compiling the vision tower for this machine, once: about a minute …", file=sys.stderr, flush=True)
    start = time.perf_counter()
    program = torch.export.export(tower, (pixels,), strict=False)
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.pt2")  # whoever reads finds a whole file or none
    try:
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(temporary), inductor_configs={"freezing": True}
        )
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    print(f"compiled in {time.perf_counter() - start:.0f} s, kept as {path}", file=sys.stderr, flush=True)


def _reason(error: BaseException) -> str:
    lines = (summarize_error(error) or type(error).__name__).strip().splitlines()
    return next((line for line in lines if line.strip()), type(error).__name__)[:300]
