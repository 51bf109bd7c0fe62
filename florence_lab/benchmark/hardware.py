"""What a device can do, measured, and the lower bounds of the workloads that follow from it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Florence2ForConditionalGeneration

from ..inference.device import DTYPES
from .workloads import (
    ALL_TASKS,
    BEAMS,
    CAPTIONS,
    CAPTIONS_OF_PIXELS,
    ENCODED_ANSWER,
    FIRST_TOKEN,
    NEXT_TOKEN,
    ONE_ANSWER,
    TASKS_ROW,
    TOKENS_PER_ANSWER,
    VISION,
    scale_of,
)

_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
"""Format -> bytes of a weight."""


@dataclass(frozen=True)
class Work:
    """What a model has to do.

    Attributes:
        image_gflop: of the image encoder for one image.
        text_gflop: of the text encoder for one image with a prompt of no length.
        num_decoder_weights: weights that are read for each token. Keys and values of the image are computed once for an answer.
    """

    image_gflop: float
    text_gflop: float
    num_decoder_weights: int

    @classmethod
    def of(cls, model: Florence2ForConditionalGeneration, pixel_values: torch.Tensor) -> Work:
        """Count the work of a model for pixel values (B x 3 x H x W, of which one image counts), without computing anything."""
        with torch.device("meta"):
            meta = Florence2ForConditionalGeneration(model.config).eval()
        with FlopCounterMode(display=False) as image_counter:
            image_tokens = meta.get_image_features(pixel_values[:1].to("meta")).pooler_output
        with FlopCounterMode(display=False) as text_counter:
            meta.get_encoder()(inputs_embeds=image_tokens)
        once = "encoder_attn.k", "encoder_attn.v"
        layers = meta.model.language_model.decoder.layers
        weights = [p for name, p in layers.named_parameters() if not any(part in name for part in once)]
        num_weights = sum(p.numel() for p in [*weights, meta.lm_head.weight])
        return cls(image_counter.get_total_flops() / 1e9, text_counter.get_total_flops() / 1e9, num_weights)


def measure_hardware(device: torch.device, formats: Sequence[str] = ("fp32", "bf16")) -> dict[str, float]:
    """Return peak GFLOP/s of matrix products of the image encoder's size, and GB/s of reading more than caches hold.

    Args:
        device: the device.
        formats: of the products: `"fp32"`, `"tf32"`, `"bf16"`, `"fp16"`.
    """
    hardware = {}
    for name in formats:
        dtype = DTYPES.get(name, torch.float32)
        a = torch.ones((2304, 768), dtype=dtype, device=device)
        b = torch.ones((768, 3072), dtype=dtype, device=device)
        with matmul_precision(name):
            seconds = _fastest_of(_repeated_product(a, b, 20))
        hardware[f"{name} GFLOP/s"] = 20 * 2 * 2304 * 768 * 3072 / seconds / 1e9
    memory = torch.ones(2**27, device=device)
    hardware["memory GB/s"] = memory.nbytes / _fastest_of(memory.sum) / 1e9
    return hardware


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Compute products of float32 matrices in TF32 within the block if that is the format, else in full precision.

    torch has one setting for the process, which is restored.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _repeated_product(a: torch.Tensor, b: torch.Tensor, times: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            torch.matmul(a, b)

    return run


def _fastest_of(run: Callable[[], Any], tries: int = 7) -> float:
    """Seconds of the fastest of several calls."""
    return min(time_once(run)[0] for _ in range(tries))


def time_once(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, with all that it leaves to a GPU, and what it returns."""
    _synchronize()  # work of earlier calls does not count
    start = time.perf_counter()
    output = run()
    _synchronize()
    return time.perf_counter() - start, output


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def roofline(
    work: Work, hardware: Mapping[str, float], device: torch.device, formats: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return workload -> format -> lower bound in seconds.

    Encoders are bound by arithmetic. A step of the decoder is bound by reading its weights once, for any number of sequences, or
    by arithmetic if they are many. Preprocessing counts nothing.

    Args:
        work: of the model.
        hardware: see `measure_hardware`.
        device: the device, whose scale gives the number of captions decoded together.
        formats: of the weights.
    """
    bounds: dict[str, dict[str, float]] = defaultdict(dict)
    for name in formats:
        gflops = hardware[f"{name} GFLOP/s"]
        image_s, text_s = work.image_gflop / gflops, work.text_gflop / gflops

        def decode(num_tokens: int, rows: int = 1, name: str = name, gflops: float = gflops) -> float:
            reading_s = _BYTES[name] * work.num_decoder_weights / 1e9 / hardware["memory GB/s"]
            return num_tokens * max(reading_s, rows * 2 * work.num_decoder_weights / 1e9 / gflops)

        rows = max(scale_of(device).batch_sizes)
        caption_s = image_s + text_s + decode(TOKENS_PER_ANSWER, rows) / rows
        for workload, seconds in {
            VISION: image_s,
            NEXT_TOKEN: decode(1),
            FIRST_TOKEN: image_s + text_s + decode(1),
            ONE_ANSWER: image_s + text_s + decode(TOKENS_PER_ANSWER),
            ENCODED_ANSWER: text_s + decode(TOKENS_PER_ANSWER),
            BEAMS: image_s + text_s + decode(TOKENS_PER_ANSWER, 3),
            TASKS_ROW: image_s + len(ALL_TASKS) * text_s + decode(TOKENS_PER_ANSWER, len(ALL_TASKS)),
            CAPTIONS: caption_s,
            CAPTIONS_OF_PIXELS: caption_s,
        }.items():
            bounds[workload][name] = seconds
    return dict(bounds)
