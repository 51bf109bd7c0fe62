"""The two libraries behind one interface, `Runner`: florence_lab and, as the baseline, plain transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration
from transformers.models.clip import CLIPImageProcessor

from ..inference.device import DTYPES, has_native_bf16
from ..inference.generation import EncodedImage, text_config, trim_at_eos
from ..inference.preprocessing import preprocess
from ..predictor import Predictor
from ..results import Result
from ..tasks import Task
from ..template.prompts import Prompt
from ..template.template import FlorenceTemplate
from .models import build_model
from .workloads import ALL_TASKS, CAPTION, GPU_FORMATS, TOKENS_PER_ANSWER, Runner


class FlorenceLabRunner:
    """florence_lab; on a CPU with a compiled image encoder."""

    def __init__(self, model_type: str, dtype: torch.dtype, device: torch.device) -> None:
        model, self.processor = build_model(model_type)
        self.model = _place(model, dtype, device)
        self.predictor = Predictor(self.model, self.processor, model_type)
        if device.type == "cpu":
            self.predictor.compile()
        self._encoded: dict[Path, EncodedImage] = {}

    def preprocess(self, paths: Sequence[Path]) -> torch.Tensor:
        """Return the pixel values of image files."""
        return preprocess(self.processor.image_processor, [_read(path) for path in paths])

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the image tokens of pixel values."""
        return self.predictor.image_encoder(pixel_values.to(self.model.device, self.model.dtype))

    def generate_text(self, path: Path, task: Task, num_tokens: int, num_beams: int = 1) -> str:
        """Return the answer to a task, with its example as input."""
        result = self.predictor.predict(path, task.token, task.example, num_beams=num_beams, max_new_tokens=num_tokens)
        return result.raw

    def generate_encoded(self, path: Path, num_tokens: int) -> str:
        """Return a caption of an image file that is encoded at the first call."""
        if path not in self._encoded:
            self._encoded[path] = self.predictor.encode_image(path)
        result = self.predictor.predict(self._encoded[path], CAPTION.token, num_beams=1, max_new_tokens=num_tokens)
        return result.raw

    def predict_all_tasks(self, path: Path) -> list[str]:
        """Return the answers to all tasks, decoded together."""
        pairs = [(task.token, task.example) for task in ALL_TASKS]
        results = self.predictor.predict_tasks(path, pairs, num_beams=1, max_new_tokens=TOKENS_PER_ANSWER)
        return [result.raw for result in results]

    def caption_files(self, paths: Sequence[Path], batch_size: int) -> list[str]:
        """Return a caption for each image file."""
        return self._caption(paths, batch_size)

    def caption_pixels(self, pixel_values: torch.Tensor, batch_size: int) -> list[str]:
        """Return a caption for each row of pixel values."""
        size = (pixel_values.shape[3], pixel_values.shape[2])
        tokens = [row for batch in pixel_values.split(batch_size) for row in self.encode(batch).split(1)]
        return self._caption([EncodedImage(Image.new("RGB", size), row) for row in tokens], batch_size)

    def _caption(self, images: Sequence[Path] | Sequence[EncodedImage], batch_size: int) -> list[str]:
        results = self.predictor.predict_batch(
            images, CAPTION.token, batch_size=batch_size, num_beams=1, max_new_tokens=TOKENS_PER_ANSWER
        )
        return [result.raw for result in results if isinstance(result, Result)]


class TransformersRunner:
    """Baseline: transformers' documented usage (the processor, then `generate`) with its own attention functions.

    Images are resized by torchvision, which is transformers' default and faster than Pillow. The pixels differ by one or two
    levels from the published ones, so that the texts of both libraries are compared on the same pixel values.
    """

    def __init__(self, model_type: str, dtype: torch.dtype, device: torch.device) -> None:
        model, self.processor = build_model(model_type)
        model.set_attn_implementation("sdpa")
        self.model = _place(model, dtype, device)
        settings = self.processor.image_processor.to_dict()
        settings.pop("image_processor_type", None)
        self.processor.image_processor = CLIPImageProcessor(**settings)
        # transformers puts image tokens into the prompt, and its tokenizer warns of more tokens than BART's 512
        self.processor.tokenizer.model_max_length = text_config(model).max_position_embeddings
        self._template = FlorenceTemplate(self.processor.tokenizer)

    def preprocess(self, paths: Sequence[Path]) -> torch.Tensor:
        """Return the pixel values of image files."""
        pixel_values: torch.Tensor = self._process(paths, CAPTION)["pixel_values"]
        return pixel_values

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the image tokens of pixel values."""
        output = self.model.get_image_features(pixel_values.to(self.model.device, self.model.dtype))
        image_tokens: torch.Tensor = output.pooler_output
        return image_tokens

    def generate_text(self, path: Path, task: Task, num_tokens: int, num_beams: int = 1) -> str:
        """Return the answer to a task, with its example as input."""
        return self._generate(self._process([path], task), num_tokens, num_beams)[0]

    def predict_all_tasks(self, path: Path) -> list[str]:
        """Return the answers to all tasks, one after the other."""
        return [self.generate_text(path, task, TOKENS_PER_ANSWER) for task in ALL_TASKS]

    def caption_files(self, paths: Sequence[Path], batch_size: int) -> list[str]:
        """Return a caption for each image file."""
        batches = [self._process(paths[i : i + batch_size], CAPTION) for i in range(0, len(paths), batch_size)]
        return [text for batch in batches for text in self._generate(batch, TOKENS_PER_ANSWER)]

    def caption_pixels(self, pixel_values: torch.Tensor, batch_size: int) -> list[str]:
        """Return a caption for each row of pixel values."""
        size = (pixel_values.shape[3], pixel_values.shape[2])
        ids = self.processor(text=CAPTION.prompt, images=Image.new("RGB", size), return_tensors="pt")["input_ids"]
        return [
            text
            for batch in pixel_values.split(batch_size)
            for text in self._generate(
                {"input_ids": ids.expand(len(batch), -1), "pixel_values": batch}, TOKENS_PER_ANSWER
            )
        ]

    def _process(self, paths: Sequence[Path], task: Task) -> dict[str, torch.Tensor]:
        """The inputs of `generate` for image files."""
        prompt = Prompt.from_task(task, task.example or "").prompt
        images = [_read(path) for path in paths]
        return dict(self.processor(text=[prompt] * len(images), images=images, return_tensors="pt"))

    def _generate(self, inputs: dict[str, torch.Tensor], num_tokens: int, num_beams: int = 1) -> list[str]:
        device, dtype = self.model.device, self.model.dtype
        moved = {name: x.to(device, dtype if x.is_floating_point() else None) for name, x in inputs.items()}
        sequences = self.model.generate(**moved, num_beams=num_beams, do_sample=False, max_new_tokens=num_tokens)
        return [self._template.decode(trim_at_eos(self.model, ids[1:]).tolist()) for ids in sequences]


class Backend(NamedTuple):
    """A library with the format of its computation."""

    runner: type[FlorenceLabRunner] | type[TransformersRunner]
    format: str


BACKENDS: dict[str, Backend] = {
    f"{library} {name}": Backend(runner, name)
    for library, runner, formats in (
        ("transformers", TransformersRunner, ("fp32", "bf16")),
        ("florence_lab", FlorenceLabRunner, ("fp32", "bf16", *GPU_FORMATS)),
    )
    for name in formats
}
"""Name in tables and files -> backend."""


def available_backends(device: torch.device) -> list[str]:
    """Return the backends whose format a device computes in: fp32 everywhere, bf16 where it is native, all on CUDA."""
    formats = {"fp32"} | ({"bf16"} if has_native_bf16(device) else set())
    if device.type == "cuda":
        formats |= set(GPU_FORMATS)
    return [name for name, backend in BACKENDS.items() if backend.format in formats]


def build_runner(backend: str, model_type: str, device: torch.device) -> Runner:
    """Load a model into one of `BACKENDS`."""
    runner, name = BACKENDS[backend]
    return runner(model_type, DTYPES.get(name, torch.float32), device)


def _place(
    model: Florence2ForConditionalGeneration, dtype: torch.dtype, device: torch.device
) -> Florence2ForConditionalGeneration:
    model.to(device=device, dtype=dtype)  # type: ignore[call-arg]  # transformers' decorator hides `self`
    return model


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
