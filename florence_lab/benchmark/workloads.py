"""What the benchmark measures: workloads, their inputs, and the formats in which they are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol, cast

import torch
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..scenes import HELD_OUT_SEEDS, write_dataset
from ..tasks import TASKS, Task

TOKENS_PER_ANSWER = 64
IMAGE_SIZE = 512
CAPTION = TASKS["<CAPTION>"]

GPU_FORMATS = ("tf32", "fp16")
"""Formats that are measured on a GPU besides fp32 and bf16."""

ALL_TASKS: tuple[Task, ...] = tuple(TASKS.values())
"""The published tasks."""


class Scale(NamedTuple):
    """How much is measured on a kind of device.

    Attributes:
        num_images: images that are captioned.
        batch_sizes: the sizes that are tried for captions; each backend is measured at its own best one.
        num_train_images: batch size of a training step.
    """

    num_images: int
    batch_sizes: tuple[int, ...]
    num_train_images: int


SCALES = {"cpu": Scale(16, (1, 4, 16), 2), "cuda": Scale(128, (16, 64, 128), 8)}
"""Type of device -> scale; other devices are measured as a CPU is."""


def scale_of(device: torch.device) -> Scale:
    """Return how much is measured on a device."""
    return SCALES.get(device.type, SCALES["cpu"])


class Runner(Protocol):
    """A model behind one of the two libraries. All answers are greedy unless `num_beams` says otherwise."""

    model: Florence2ForConditionalGeneration
    processor: Florence2Processor

    def preprocess(self, paths: Sequence[Path]) -> torch.Tensor:
        """Return the pixel values of image files (B x 3 x H x W float32)."""
        ...

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the image tokens (B x N x d) of pixel values."""
        ...

    def generate_text(self, path: Path, task: Task, num_tokens: int, num_beams: int = 1) -> str:
        """Return the answer to a task about an image file, with the example of the task as input."""
        ...

    def predict_all_tasks(self, path: Path) -> list[str]:
        """Return the answers of `TOKENS_PER_ANSWER` tokens to `ALL_TASKS` about one image file."""
        ...

    def caption_files(self, paths: Sequence[Path], batch_size: int) -> list[str]:
        """Return a caption of `TOKENS_PER_ANSWER` tokens for each image file."""
        ...

    def caption_pixels(self, pixel_values: torch.Tensor, batch_size: int) -> list[str]:
        """Return a caption of `TOKENS_PER_ANSWER` tokens for each row of pixel values."""
        ...


class EncodingRunner(Runner, Protocol):
    """A library that encodes an image once for several answers."""

    def generate_encoded(self, path: Path, num_tokens: int) -> str:
        """Return a caption of an image file that is encoded at the first call."""
        ...


class BenchmarkInputs(NamedTuple):
    """What the workloads run on.

    Attributes:
        paths: image files, scenes of `IMAGE_SIZE` x `IMAGE_SIZE` pixels.
        pixel_values: of all images, N x 3 x H x W float32 on the CPU.
    """

    paths: list[Path]
    pixel_values: torch.Tensor


@contextmanager
def benchmark_images(num_images: int) -> Iterator[list[Path]]:
    """Draw images into a temporary folder, which is removed when the block ends."""
    with TemporaryDirectory(prefix="florence_lab-benchmark-") as folder:
        write_dataset(folder, HELD_OUT_SEEDS[:num_images], IMAGE_SIZE, [CAPTION.token])
        yield sorted((Path(folder) / "images").iterdir())


@dataclass(frozen=True)
class Workload:
    """Something to measure.

    Attributes:
        run: (runner, inputs, batch size) -> the outputs, which are compared between backends if they are texts.
        cpu_backends: the backends on which it is measured on a CPU, by the prefixes of their names.
        gpu_backends: the same on a GPU.
        has_text: whether the outputs are texts.
        is_batched: whether the best batch size is looked for. The time is then that of one image.
        in_all_formats: whether it is also measured in the formats that a GPU has besides fp32 and bf16.
    """

    run: Callable[[Runner, BenchmarkInputs, int], Any]
    cpu_backends: tuple[str, ...] = ("transformers", "florence_lab")
    gpu_backends: tuple[str, ...] = ("transformers", "florence_lab")
    has_text: bool = True
    is_batched: bool = False
    in_all_formats: bool = False

    def select(self, backends: Sequence[str], device: torch.device) -> list[str]:
        """Return the backends on which the workload is measured on a device."""
        prefixes = self.gpu_backends if device.type == "cuda" else self.cpu_backends
        selected = [name for name in backends if name.startswith(prefixes)]
        return [name for name in selected if self.in_all_formats or not name.endswith(GPU_FORMATS)]


def _answer(num_tokens: int, num_beams: int = 1) -> Callable[[Runner, BenchmarkInputs, int], list[str]]:
    return lambda runner, inputs, _: [runner.generate_text(inputs.paths[0], CAPTION, num_tokens, num_beams)]


NEXT_TOKEN = "each further token"
"""The time per token, which follows from the rows "one answer" and "first token"."""

VISION = "vision tower"
FIRST_TOKEN = "first token"
ONE_ANSWER = "one answer"
ENCODED_ANSWER = "one answer, image encoded"
BEAMS = "one answer, 3 beams"
TASKS_ROW = "15 tasks"
CAPTIONS = "captions"
CAPTIONS_OF_PIXELS = "captions, preprocessed"

# those that take minutes on a CPU are measured there in the formats that matter
_BF16 = ("transformers bf16", "florence_lab bf16")

WORKLOADS: dict[str, Workload] = {
    "preprocessing": Workload(
        lambda runner, inputs, _: runner.preprocess(inputs.paths[:1]),
        ("transformers fp32", "florence_lab fp32"),
        ("transformers fp32", "florence_lab fp32"),
        has_text=False,
    ),
    VISION: Workload(
        lambda runner, inputs, _: runner.encode(inputs.pixel_values[:1]), has_text=False, in_all_formats=True
    ),
    FIRST_TOKEN: Workload(_answer(1)),
    ONE_ANSWER: Workload(_answer(TOKENS_PER_ANSWER), in_all_formats=True),
    ENCODED_ANSWER: Workload(
        lambda runner, inputs, _: [cast(EncodingRunner, runner).generate_encoded(inputs.paths[0], TOKENS_PER_ANSWER)],
        ("florence_lab",),
        ("florence_lab",),
    ),
    BEAMS: Workload(_answer(TOKENS_PER_ANSWER, num_beams=3)),
    TASKS_ROW: Workload(
        lambda runner, inputs, _: runner.predict_all_tasks(inputs.paths[0]), ("transformers fp32", "florence_lab")
    ),
    CAPTIONS: Workload(
        lambda runner, inputs, batch_size: runner.caption_files(inputs.paths, batch_size),
        _BF16,
        is_batched=True,
        in_all_formats=True,
    ),
    CAPTIONS_OF_PIXELS: Workload(
        lambda runner, inputs, batch_size: runner.caption_pixels(inputs.pixel_values, batch_size),
        _BF16,
        is_batched=True,
    ),
}
"""Name in tables and files -> workload. Answers have `TOKENS_PER_ANSWER` tokens and start from an image file unless the name
says otherwise; the time of captions is that of one image."""
