"""`PredictorCore`: the model, the image encoder and the prompts, which all methods of `Predictor` share."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..argument_validation import validate_arguments, validate_value
from ..exceptions import ArgumentError, warn
from ..images import GENERATOR_TAG
from ..inference import generation
from ..inference.compilation import compile_model
from ..inference.constraints import ConstraintFactory
from ..inference.generation import EncodedImage, ImageEncoder
from ..inference.graphed_encoders import DefaultImageEncoder
from ..inference.graphs import GraphCache
from ..inference.interruption import remove_capturing_hooks
from ..inference.preprocessing import PreprocessedImage, group_by_input_size, preprocess_source, to_pixel_values
from ..loading.quantization import is_quantized
from ..template.locations import Region, RegionFormat
from ..template.prompts import Prompt, build_prompt
from ..template.template import FlorenceTemplate
from .checks import check_image_tokens, check_prompt_length

if TYPE_CHECKING:
    from typing_extensions import Self


logger = logging.getLogger(__name__)

_IMAGES_TOGETHER = 8
"""Images that a GPU encodes together. A CPU is busy with one, and a batch takes as long as its images one by one."""


class PredictorCore:
    """A Florence-2 model with its processor: encodes images and builds prompts.

    Attributes:
        model: transformers' `Florence2ForConditionalGeneration`.
        processor: transformers' `Florence2Processor`.
        template: builds prompts and parses answers.
        name: the name that the model was loaded by.
        graphs: the captured graphs of the model, on CUDA; None if it runs without them.
        image_encoder: pixel values (B x 3 x H x W, on the model's device and in its dtype) -> image tokens (B x N x d_model).
    """

    @validate_arguments
    def __init__(
        self,
        model: Florence2ForConditionalGeneration,
        processor: Florence2Processor,
        name: str = "florence-2",
        graphs: bool = True,
    ) -> None:
        """Select florence_lab's attention functions in `model`, which is used as it is otherwise.

        Args:
            model, processor, name: see the attributes.
            graphs: run the model as CUDA graphs if it is on CUDA, see `load`.
        """
        self.model = generation.prepare_model(model)
        self.processor = processor
        self.template = FlorenceTemplate(processor.tokenizer)
        self.name = name
        self.graphs = GraphCache() if graphs else None
        self.image_encoder: ImageEncoder = DefaultImageEncoder(model, self.graphs)
        # set in the config.json of florence-2-nano, see `pretraining`
        self._is_domain_warning_pending = getattr(model.config, "trained_on", None) == GENERATOR_TAG

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle has: all but the tables of constraints, which are made when they are needed."""
        remove_capturing_hooks(self.model)
        return {name: value for name, value in vars(self).items() if name != "constraints"}

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        return f"{type(self).__name__}({self.name!r}, {millions:.1f} M parameters, {self.model.dtype}, {self.model.device})"

    @validate_arguments
    def compile(self, cache_dir: str | Path | None = None) -> Self:
        """Compile the image encoder ahead of time for faster inference, and return the predictor itself.

        Takes about one minute at the first call, and the size of the image encoder's weights on disk, where the result is
        cached. Needs a C++ compiler; without one, a warning says so and the encoder runs uncompiled. On a CPU, a
        second copy of the language model's weights is held in memory, in the layout that oneDNN prefers. On CUDA nothing is
        compiled: graphs, which `load` uses by default, take a fraction of a second.

        Args:
            cache_dir: for compiled encoders; by default `$XDG_CACHE_HOME/florence_lab/compiled`.

        Raises:
            ArgumentError: for a quantized model.
        """
        if is_quantized(self.model):
            raise ArgumentError("a quantized model cannot be compiled; load it without quantize for that")
        if self.model.device.type == "cuda":
            logger.info("nothing is compiled on CUDA, where graphs do the same; see `load(graphs=True)`")
            return self
        size = self.processor.image_processor.size
        folder = None if cache_dir is None else Path(cache_dir)
        self.image_encoder = compile_model(self.model, (size["height"], size["width"]), folder)
        return self

    def encode_image(self, image: Any) -> EncodedImage:
        """Compute the image tokens of one image, so that several prompts can be answered without encoding it again.

        Args:
            image: a path, URL, PIL image, array …, see `load_image`, or a `PreprocessedImage`; an `EncodedImage` is
                returned as it is.

        Returns:
            An `EncodedImage` whose `tokens` have shape 1 x N x d_model (N = 577 for the published models).

        Raises:
            ImageError: if the image cannot be read.
            ArgumentError: for an `EncodedImage` of another model.
        """
        return self.encode_images([image])[0]

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Any]) -> list[EncodedImage]:
        """Compute the image tokens of several images.

        Args:
            images: a list whose elements are as in `encode_image`.

        Raises:
            ImageError: if one of the images cannot be read.
            ArgumentError: for an `EncodedImage` of another model.
        """
        images = validate_value("images", images, Sequence[Any])
        encoded = [image for image in images if isinstance(image, EncodedImage)]
        for image in encoded:
            check_image_tokens(image, self.model, self.processor, self.name)
        num_together = _IMAGES_TOGETHER if self.model.device.type == "cuda" else 1
        new = iter(self._encode([image for image in images if not isinstance(image, EncodedImage)], num_together))
        return [image if isinstance(image, EncodedImage) else next(new) for image in images]

    def build_prompt(
        self,
        image_size: tuple[int, int],
        task: str,
        text: str | Region | None = None,
        region_format: RegionFormat = "xyxy",
    ) -> Prompt:
        """Return the prompt of a task about an image.

        Args:
            image_size: (width, height) of the image in pixels.
            task, text, region_format: as in `predict`.

        Raises:
            PromptError: as `predict`, and for a prompt that is too long for the model.
        """
        size = validate_value("image_size", image_size, tuple[int, int])
        prompt = build_prompt(task, text, size, region_format=region_format)
        return check_prompt_length(prompt, self.model, self.processor)

    @cached_property
    def constraints(self) -> ConstraintFactory:
        """Makes the processors of `constrain`, `allowed_labels` and `allowed_characters`."""
        return ConstraintFactory(self.model, self.template.vocabulary)

    def _encode(self, images: Sequence[Any], num_together: int) -> Iterator[EncodedImage]:
        for start in range(0, len(images), num_together):
            batch = [self._preprocess(image) for image in images[start : start + num_together]]
            for group in group_by_input_size(batch):
                tokens = self.image_encoder(to_pixel_values(group, self.model.device, self.model.dtype))
                for image, row in zip(group, tokens.split(1), strict=True):
                    yield EncodedImage(image.image, row)

    def _preprocess(self, image: Any) -> PreprocessedImage:
        if not isinstance(image, PreprocessedImage):
            image = preprocess_source(self.processor.image_processor, image)
        self._warn_if_out_of_domain(image.image)
        return image

    def _warn_if_out_of_domain(self, image: Image.Image) -> None:
        """Warn once if a model that was trained on cartoon scenes only sees another image."""
        if self._is_domain_warning_pending and not str(image.info.get("Source")).startswith(GENERATOR_TAG):
            self._is_domain_warning_pending = False
            warn(
                f"{self.name} was trained on florence_lab's cartoon scenes only; its answers about other images are "
                "meaningless"
            )
