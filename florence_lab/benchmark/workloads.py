"""What the benchmark measures: workloads, their inputs, and which backends are compared on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..inference.preprocessing import preprocess
from ..scenes import HELD_OUT_SEEDS, draw_scene
from ..tasks import TASKS, Task

TOKENS_PER_ANSWER = 64
NUM_IMAGES = 32
IMAGE_SIZE = 512

ALL_TASKS: tuple[Task, ...] = tuple(TASKS.values())
"""The published tasks."""


class Runner(Protocol):
    """A model behind one of the two libraries. All answers are greedy unless `num_beams` says otherwise."""

    model: Florence2ForConditionalGeneration
    processor: Florence2Processor

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the image tokens (B x N x d) of pixel values (B x 3 x H x W float32)."""
        ...

    def generate_text(self, image: Image.Image, task: Task, num_tokens: int, num_beams: int = 1) -> str:
        """Return the answer to a task, with its example as input."""
        ...

    def predict_all_tasks(self, image: Image.Image) -> list[str]:
        """Return the answers of `TOKENS_PER_ANSWER` tokens to `ALL_TASKS` about one image."""
        ...

    def caption_images(self, images: Sequence[Image.Image]) -> list[str]:
        """Return a caption of `TOKENS_PER_ANSWER` tokens for each image."""
        ...


class BenchmarkInputs(NamedTuple):
    """What the workloads run on.

    Attributes:
        images: `NUM_IMAGES` scenes of `IMAGE_SIZE` x `IMAGE_SIZE` pixels.
        pixel_values: of the first image, 1 x 3 x H x W float32 on the CPU.
    """

    images: list[Image.Image]
    pixel_values: torch.Tensor

    @classmethod
    def create(cls, processor: Florence2Processor) -> BenchmarkInputs:
        """Draw the images and preprocess the first one."""
        images = [draw_scene(seed, IMAGE_SIZE).image for seed in HELD_OUT_SEEDS[:NUM_IMAGES]]
        return cls(images, preprocess(processor.image_processor, images[:1]))


@dataclass(frozen=True)
class Workload:
    """Something to measure.

    Attributes:
        run: (runner, inputs) -> the outputs, which are compared between backends if they are texts.
        backends: the backends on which it is measured, by the prefixes of their names.
        has_text: whether the outputs are texts.
    """

    run: Callable[[Runner, BenchmarkInputs], Any]
    backends: tuple[str, ...] = ("transformers", "florence_lab")
    has_text: bool = True


def _caption(num_tokens: int, num_beams: int = 1) -> Callable[[Runner, BenchmarkInputs], list[str]]:
    task = TASKS["<CAPTION>"]
    return lambda runner, inputs: [runner.generate_text(inputs.images[0], task, num_tokens, num_beams)]


CAPTIONS = f"{NUM_IMAGES} captions"

WORKLOADS: dict[str, Workload] = {
    "vision tower": Workload(lambda runner, inputs: runner.encode(inputs.pixel_values), has_text=False),
    "first token": Workload(_caption(1)),
    "one answer": Workload(_caption(TOKENS_PER_ANSWER)),
    "one answer, 3 beams": Workload(_caption(TOKENS_PER_ANSWER, num_beams=3)),
    "15 tasks": Workload(
        lambda runner, inputs: runner.predict_all_tasks(inputs.images[0]), ("transformers fp32", "florence_lab")
    ),
    CAPTIONS: Workload(
        lambda runner, inputs: runner.caption_images(inputs.images), ("transformers bf16", "florence_lab auto")
    ),
}
"""Name in tables and files -> workload. Answers have `TOKENS_PER_ANSWER` tokens unless the name says otherwise."""


class Speedup(NamedTuple):
    """A comparison of two backends: the time of the baseline divided by the time of the candidate."""

    workload: str
    baseline: str
    candidate: str


SPEEDUPS = (
    Speedup("one answer", "transformers fp32", "florence_lab auto"),
    Speedup("one answer", "transformers bf16", "florence_lab auto"),
    Speedup("one answer", "transformers fp32", "florence_lab fp32"),
    Speedup("one answer, 3 beams", "transformers fp32", "florence_lab auto"),
    Speedup("15 tasks", "transformers fp32", "florence_lab fp32"),
    Speedup("15 tasks", "transformers fp32", "florence_lab auto"),
    Speedup(CAPTIONS, "transformers bf16", "florence_lab auto"),
    Speedup("vision tower", "transformers bf16", "florence_lab auto"),
)
"""The comparisons of the report."""
