"""`Asker`: what detection and verification need of a predictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..inference.generation import EncodedImage
from ..results import Result
from ..template.locations import Region, RegionFormat
from ..template.prompts import Prompt
from ..template.template import FlorenceTemplate


class Asker(Protocol):
    """The part of `Predictor` that detection is built on, as `Predictor` itself stands in a higher layer."""

    model: Florence2ForConditionalGeneration
    processor: Florence2Processor
    template: FlorenceTemplate

    def encode_image(self, image: Any) -> EncodedImage:
        """Return the image tokens of one image, see `Predictor.encode_image`."""
        ...

    def encode_images(self, images: Sequence[Any]) -> list[EncodedImage]:
        """Return the image tokens of several images, see `Predictor.encode_images`."""
        ...

    def build_prompt(
        self,
        image_size: tuple[int, int],
        task: str,
        text: str | Region | None = None,
        region_format: RegionFormat = "xyxy",
    ) -> Prompt:
        """Return the prompt of a task about an image, see `Predictor.build_prompt`."""
        ...

    def predict_prompts(
        self,
        images: Sequence[EncodedImage],
        prompts: Sequence[Prompt],
        batch_size: int = 16,
        **generate_kwargs: Any,
    ) -> list[Result]:
        """Answer pairs of an encoded image and a prompt, see `Predictor.predict_prompts`."""
        ...
