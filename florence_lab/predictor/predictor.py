"""`Predictor`: encode an image once, then answer any number of prompts about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..argument_validation import validate_arguments
from ..detection.detection_mixin import DetectionMixin
from ..detection.scoring_mixin import ScoringMixin
from ..exceptions import ArgumentError
from ..images import load_image
from ..inference import generation, streaming
from ..inference.constraints import check_constraint
from ..inference.generation import EncodedImage
from ..loading.saving import save_model
from ..results import Result
from ..template.locations import Region, RegionFormat
from ..template.prompts import Prompt
from .answering import answer_prompts, encode_prompts
from .batches import BatchMixin
from .checks import warn_if_truncated


class Predictor(BatchMixin, DetectionMixin, ScoringMixin):
    """A Florence-2 model with its processor.

    Attributes:
        model: transformers' `Florence2ForConditionalGeneration`.
        processor: transformers' `Florence2Processor`.
        template: builds prompts and parses answers.
        name: the name that the model was loaded by.
        image_encoder: pixel values (B x 3 x H x W, on the model's device and in its dtype) -> image tokens (B x N x d_model).
    """

    def predict(
        self,
        image: Any,
        task: str,
        text: str | Region | None = None,
        region_format: RegionFormat = "xyxy",
        **generate_kwargs: Any,
    ) -> Result:
        """Answer one prompt about one image.

        Args:
            image: a path, URL, PIL image, array …, see `load_image`, or an `EncodedImage`.
            task: a task token (`"<OD>"`), one followed by its phrase, or a free-form question.
            text: the phrase, or the region as four numbers or as location tokens, of a task that takes one.
            region_format: the units of a region of four numbers: `"xyxy"` is (x0, y0, x1, y1) in pixels, `"xywh"` (x0, y0,
                width, height) in pixels, `"norm_1"` (x0, y0, x1, y1) as fractions of the sides of the image, `"norm_1000"`
                the same in thousandths. A region may exceed the image by one pixel; it is clipped.
            generate_kwargs: arguments of transformers' `generate` (`num_beams`, `max_new_tokens`, `do_sample` …), which
                override those of the checkpoint, see `generation_settings.GENERATION_SETTINGS`; and `constrain=True`,
                `allowed_labels=["cat", "dog"]` or `allowed_characters="0123456789"`, which restrict the answer, see
                `CONSTRAINT_SETTINGS` there.

        Returns:
            `Text`, `Boxes`, `Quads` or `Polygons`, depending on the task. Its field `truncated` is true, and a warning is
            issued, if `max_new_tokens` ended the answer.

        Raises:
            PromptError: for a misspelled task token, or an input that the task does not accept; before the model runs.
            ImageError: if the image cannot be read.
            ArgumentError: for an unknown or invalid argument in `generate_kwargs`, or an `EncodedImage` of another model.
        """
        kwargs = generation.resolve_generation_kwargs(self.model, generate_kwargs)
        source = image if isinstance(image, EncodedImage) else load_image(image)
        prompt = self.build_prompt(source.size, task, text, region_format)
        check_constraint(kwargs, [prompt])
        results = answer_prompts(self, [self.encode_image(source)], [prompt], kwargs)
        warn_if_truncated(results, kwargs)
        return results[0]

    def stream(
        self,
        image: Any,
        task: str,
        text: str | Region | None = None,
        region_format: RegionFormat = "xyxy",
        **generate_kwargs: Any,
    ) -> Iterator[Result]:
        """Answer one prompt and yield growing results: each word of a text, each instance after its last coordinate.

        The last result is the complete answer, equal to `predict(…, num_beams=1)`. Beam search cannot be streamed, as the
        best beam is known only at the end; `num_beams` of the checkpoint is ignored. Leave the loop to stop generation. Like
        any generator, the returned one must not be advanced by two threads at the same time.

        Args, Raises: as `predict`; also an ArgumentError for `num_beams` above 1.
        """
        if generate_kwargs.get("num_beams") is None:
            generate_kwargs["num_beams"] = 1
        kwargs = generation.resolve_generation_kwargs(self.model, generate_kwargs)
        if kwargs["num_beams"] != 1:
            raise ArgumentError(f"streaming supports num_beams=1 only, got {kwargs['num_beams']}")
        source = image if isinstance(image, EncodedImage) else load_image(image)
        prompt = self.build_prompt(source.size, task, text, region_format)
        check_constraint(kwargs, [prompt])
        return self._stream(source, prompt, kwargs)

    @validate_arguments
    def save_pretrained(self, folder: str | Path) -> None:
        """Save model and processor in transformers' layout, for `load` and for transformers' `from_pretrained`.

        Load the processor with `AutoProcessor.from_pretrained(folder, backend="pil")` to obtain the same pixel values. By
        default transformers resizes with torchvision, whose pixels differ by one or two levels, which changes some answers.

        Raises:
            CheckpointError: if the folder cannot be written; it is then as it was before.
        """
        save_model(self.model, self.processor, folder)

    def _stream(self, image: Any, prompt: Prompt, kwargs: dict[str, Any]) -> Iterator[Result]:
        encoded = self.encode_image(image)
        states = encode_prompts(self, [encoded], [prompt])
        constraint = self.constraints.processor([prompt], kwargs)
        for result in streaming.stream_results(self.model, self.template, encoded, states, prompt, kwargs, constraint):
            warn_if_truncated([result], kwargs)  # only the last result can be
            yield result
