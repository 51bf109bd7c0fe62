"""TODO"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image

from ..predictor import Predictor
from ..scenes import HELD_OUT_SEEDS, draw_scene


class Runner(Protocol):
    """What answers in a benchmark."""

    predictor: Predictor

    def tower(self, pixels: torch.Tensor) -> torch.Tensor: ...

    def answer(self, image: Image.Image, task: str, text: str, tokens: int, beams: int = 1) -> str: ...

    def many(self, image: Image.Image) -> list[str]: ...

    def captions(self, images: Sequence[Image.Image]) -> list[str]: ...


TOKENS = 64  # of every answer

PICTURES = 32


@dataclass(frozen=True)
class Row:
    """Something that takes time.

    Attributes:
        run: does it, in one of the ways; its answers come back as text, if there are any.
        ways: in which it is measured, by the beginnings of their names.
    """

    run: Callable[[Runner, Any], Any]
    ways: tuple[str, ...] = ("transformers", "florence_lab")


class Pictures:
    """What is asked about: `images`, `PICTURES` of them, and the first one's `pixels`."""

    def __init__(self, way: Runner) -> None:
        self.images = [draw_scene(seed, 512).image for seed in HELD_OUT_SEEDS[:PICTURES]]
        processor = way.predictor.processor.image_processor
        self.pixels = processor(self.images[0], return_tensors="pt")["pixel_values"]


def _answer(tokens: int, beams: int = 1) -> Callable[[Runner, Pictures], list[str]]:
    return lambda way, pictures: [way.answer(pictures.images[0], "<CAPTION>", "", tokens, beams)]


WORKLOADS: dict[str, Row] = {
    "vision tower": Row(lambda way, pictures: way.tower(pictures.pixels)),
    "first token": Row(_answer(1)),
    "one answer": Row(_answer(TOKENS)),
    "one answer, 3 beams": Row(_answer(TOKENS, 3)),
    "15 tasks": Row(lambda way, pictures: way.many(pictures.images[0]), ways=("transformers fp32", "florence_lab")),
    f"{PICTURES} captions": Row(
        lambda way, pictures: way.captions(pictures.images), ways=("transformers bf16", "florence_lab auto")
    ),
}
"""What is measured; answers have `TOKENS` tokens, `transformers` takes 15 tasks one by one and pictures four at a time."""

RATIOS = (
    ("one answer", "transformers fp32", "florence_lab auto"),
    ("one answer", "transformers bf16", "florence_lab auto"),
    ("one answer", "transformers fp32", "florence_lab fp32"),
    ("one answer, 3 beams", "transformers fp32", "florence_lab auto"),
    ("15 tasks", "transformers fp32", "florence_lab fp32"),
    ("15 tasks", "transformers fp32", "florence_lab auto"),
    (f"{PICTURES} captions", "transformers bf16", "florence_lab auto"),
    ("vision tower", "transformers bf16", "florence_lab auto"),
)
"""Which of them are compared: what, how many times the second way is as fast as the first."""
