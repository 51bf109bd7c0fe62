"""The two libraries behind one interface, `Runner`: florence_lab and, as the baseline, plain transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration

from ..inference.device import has_native_bf16
from ..inference.generation import trim_at_eos
from ..predictor import Predictor
from ..results import Result
from ..tasks import TASKS, Task
from ..template.prompts import Prompt
from ..template.template import FlorenceTemplate
from .models import build_model
from .workloads import ALL_TASKS, TOKENS_PER_ANSWER, Runner

_CAPTION = TASKS["<CAPTION>"]
# images decoded together
_LAB_BATCH_SIZE = 16
_TRANSFORMERS_BATCH_SIZE = 4


class FlorenceLabRunner:
    """florence_lab with a compiled image encoder."""

    def __init__(self, model_type: str, dtype: torch.dtype, device: torch.device) -> None:
        model, self.processor = build_model(model_type)
        self.model = _place(model, dtype, device)
        self.predictor = Predictor(self.model, self.processor, model_type).compile()

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the image tokens of pixel values."""
        return self.predictor.image_encoder(pixel_values.to(self.model.device, self.model.dtype))

    def generate_text(self, image: Image.Image, task: Task, num_tokens: int, num_beams: int = 1) -> str:
        """Return the answer to a task, with its example as input."""
        result = self.predictor.predict(image, task.token, task.example, num_beams=num_beams, max_new_tokens=num_tokens)
        return result.raw

    def predict_all_tasks(self, image: Image.Image) -> list[str]:
        """Return the answers to all tasks, decoded together."""
        pairs = [(task.token, task.example) for task in ALL_TASKS]
        results = self.predictor.predict_tasks(image, pairs, num_beams=1, max_new_tokens=TOKENS_PER_ANSWER)
        return [result.raw for result in results]

    def caption_images(self, images: Sequence[Image.Image]) -> list[str]:
        """Return a caption for each image, in batches of 16."""
        results = self.predictor.predict_iter(
            images, _CAPTION.token, batch_size=_LAB_BATCH_SIZE, num_beams=1, max_new_tokens=TOKENS_PER_ANSWER
        )
        return [result.raw for result in results if isinstance(result, Result)]


class TransformersRunner:
    """Baseline: transformers' documented usage (the processor, then `generate`) with its own attention functions."""

    def __init__(self, model_type: str, dtype: torch.dtype, device: torch.device) -> None:
        model, self.processor = build_model(model_type)
        model.set_attn_implementation("sdpa")
        self.model = _place(model, dtype, device)
        self._template = FlorenceTemplate(self.processor.tokenizer)

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the image tokens of pixel values."""
        output = self.model.get_image_features(pixel_values.to(self.model.device, self.model.dtype))
        image_tokens: torch.Tensor = output.pooler_output
        return image_tokens

    def generate_text(self, image: Image.Image, task: Task, num_tokens: int, num_beams: int = 1) -> str:
        """Return the answer to a task, with its example as input."""
        return self._generate([image], task, num_tokens, num_beams)[0]

    def predict_all_tasks(self, image: Image.Image) -> list[str]:
        """Return the answers to all tasks, one after the other."""
        return [self.generate_text(image, task, TOKENS_PER_ANSWER) for task in ALL_TASKS]

    def caption_images(self, images: Sequence[Image.Image]) -> list[str]:
        """Return a caption for each image, in batches of 4."""
        starts = range(0, len(images), _TRANSFORMERS_BATCH_SIZE)
        batches = [images[start : start + _TRANSFORMERS_BATCH_SIZE] for start in starts]
        return [text for batch in batches for text in self._generate(batch, _CAPTION, TOKENS_PER_ANSWER, 1)]

    def _generate(self, images: Sequence[Image.Image], task: Task, num_tokens: int, num_beams: int) -> list[str]:
        prompt = Prompt.from_task(task, task.example or "").prompt
        inputs = self.processor(text=[prompt] * len(images), images=list(images), return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        sequences = self.model.generate(**inputs, num_beams=num_beams, do_sample=False, max_new_tokens=num_tokens)
        return [self._template.decode(trim_at_eos(self.model, ids[1:]).tolist()) for ids in sequences]


class Backend(NamedTuple):
    """A library with the format of its weights; `auto` is bf16 if the device computes in it, else fp32."""

    runner: type[FlorenceLabRunner] | type[TransformersRunner]
    dtype: Literal["fp32", "bf16", "auto"]


BACKENDS: dict[str, Backend] = {
    "transformers fp32": Backend(TransformersRunner, "fp32"),
    "transformers bf16": Backend(TransformersRunner, "bf16"),
    "florence_lab fp32": Backend(FlorenceLabRunner, "fp32"),
    "florence_lab auto": Backend(FlorenceLabRunner, "auto"),
}
"""Name in tables and files -> backend."""


def build_runner(backend: str, model_type: str, device: torch.device) -> Runner:
    """Load a model into one of `BACKENDS`."""
    runner, dtype = BACKENDS[backend]
    is_bf16 = dtype == "bf16" or (dtype == "auto" and has_native_bf16(device))
    return runner(model_type, torch.bfloat16 if is_bf16 else torch.float32, device)


def _place(
    model: Florence2ForConditionalGeneration, dtype: torch.dtype, device: torch.device
) -> Florence2ForConditionalGeneration:
    model.to(device=device, dtype=dtype)  # type: ignore[call-arg]  # transformers' decorator hides `self`
    return model
