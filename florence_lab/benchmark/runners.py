"""TODO"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from ..inference.device import has_native_bf16
from ..inference.generation import trim_at_eos
from ..predictor import Predictor
from ..tasks import TASKS
from .models import build
from .workloads import TOKENS

INPUTS = {"none": "", "phrase": "a sheep", "region": "<loc_100><loc_100><loc_600><loc_600>"}

_BATCH = {"transformers": 4, "florence_lab": 16}  # pictures decoded together


class FlorenceLabRunner:
    """florence_lab, compiled."""

    def __init__(self, model_type: str, dtype: torch.dtype, device: torch.device) -> None:
        model, processor = build(model_type)
        self.predictor = Predictor(model.to(device, dtype), processor, model_type).compile()

    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        model = self.predictor.model
        return self.predictor.image_encoder(pixels.to(model.device, model.dtype))

    def answer(self, image: Image.Image, task: str, text: str, tokens: int, beams: int = 1) -> str:
        return self.predictor.predict(image, task, text or None, num_beams=beams, max_new_tokens=tokens).raw

    def many(self, image: Image.Image) -> list[str]:
        asked = [(task.token, INPUTS[task.input] or None) for task in TASKS.values()]
        return [result.raw for result in self.predictor.predict_tasks(image, asked, num_beams=1, max_new_tokens=TOKENS)]

    def captions(self, images: Sequence[Image.Image]) -> list[str]:
        settings = {"num_beams": 1, "max_new_tokens": TOKENS, "batch_size": _BATCH["florence_lab"]}
        return [result.raw for result in self.predictor.predict_iter(images, "<CAPTION>", **settings)]


class TransformersRunner:
    """transformers as its documentation shows it: the processor, then `generate`."""

    def __init__(self, model_type: str, dtype: torch.dtype, device: torch.device) -> None:
        model, self.processor = build(model_type)
        model.set_attn_implementation("sdpa")
        self.model = model.to(device, dtype)
        self.predictor = Predictor(self.model, self.processor)  # for its words: prompts, and text from tokens

    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.get_image_features(pixels.to(self.model.device, self.model.dtype)).pooler_output

    def answer(self, image: Image.Image, task: str, text: str, tokens: int, beams: int = 1) -> str:
        return self._generate([image], TASKS[task].prompt.replace("{input}", text), tokens, beams)[0]

    def many(self, image: Image.Image) -> list[str]:
        return [self.answer(image, task.token, INPUTS[task.input], TOKENS) for task in TASKS.values()]

    def captions(self, images: Sequence[Image.Image]) -> list[str]:
        batch, prompt = _BATCH["transformers"], TASKS["<CAPTION>"].prompt
        starts = range(0, len(images), batch)
        return [text for start in starts for text in self._generate(images[start : start + batch], prompt, TOKENS, 1)]

    def _generate(self, images: Sequence[Image.Image], prompt: str, tokens: int, beams: int) -> list[str]:
        inputs = self.processor(text=[prompt] * len(images), images=list(images), return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        sequences = self.model.generate(**inputs, num_beams=beams, do_sample=False, max_new_tokens=tokens)
        return [
            self.predictor.template.decode(trim_at_eos(self.predictor.model, ids[1:]).tolist()) for ids in sequences
        ]


BACKENDS: dict[str, tuple[type[FlorenceLabRunner] | type[TransformersRunner], str]] = {
    "transformers fp32": (TransformersRunner, "fp32"),
    "transformers bf16": (TransformersRunner, "bf16"),
    "florence_lab fp32": (FlorenceLabRunner, "fp32"),
    "florence_lab auto": (FlorenceLabRunner, "auto"),
}


def make(way: str, model_type: str, device: torch.device) -> FlorenceLabRunner | TransformersRunner:
    """One of `BACKENDS`, ready to answer."""
    kind, dtype = BACKENDS[way]
    low = dtype == "bf16" or (dtype == "auto" and has_native_bf16(device))
    return kind(model_type, torch.bfloat16 if low else torch.float32, device)
