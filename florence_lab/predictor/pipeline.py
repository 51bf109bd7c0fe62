"""One prompt about many images: read and resized in threads, encoded, answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch

from ..exceptions import ImageError, PromptError
from ..images import held_bytes
from ..inference.batch_size import MAX_BATCH_BYTES, auto_batch_size, num_reader_threads
from ..inference.batching import process_in_batches
from ..inference.generation import EncodedImage
from ..inference.preprocessing import PreprocessedImage, preprocess_source
from ..inference.side_stream import shared_side_stream
from ..results import Result
from ..template.locations import Region, RegionFormat
from ..template.prompts import Prompt, build_prompt
from .answering import answer_prompts
from .checks import check_prompt_length, warn_if_truncated
from .core import PredictorCore


class _Question(NamedTuple):
    """A prompt about an image."""

    image: PreprocessedImage | EncodedImage
    prompt: Prompt


class _Encoded(NamedTuple):
    """A batch whose images are encoded after an event."""

    images: list[EncodedImage]
    questions: list[_Question]
    event: torch.cuda.Event


class ImagePipeline:
    """Answers a task about many images.

    On CUDA, the images of the next batch are encoded while the present one is decoded.
    """

    def __init__(
        self, predictor: PredictorCore, task: str, kwargs: dict[str, Any], region_format: RegionFormat = "xyxy"
    ) -> None:
        """
        Args:
            predictor: the model.
            task, region_format: as in `predict`.
            kwargs: see `generation.resolve_generation_kwargs`.
        """
        self._predictor, self._task, self._kwargs = predictor, task, kwargs
        self._region_format: RegionFormat = region_format
        device = predictor.model.device
        self._side = shared_side_stream(device) if device.type == "cuda" else None
        self._has_warned = False

    def run(
        self, pairs: Iterable[tuple[Any, str | Region | None]], batch_size: int | None, total: int | None
    ) -> Iterator[Result | ImageError | PromptError]:
        """Yield a result, or the exception, for each pair of an image and a text, in order.

        Args:
            pairs: image as in `predict`, text as in `predict`.
            batch_size: images decoded together; by default as many as pay, within the memory.
            total: number of pairs; None if it is unknown.
        """
        predictor = self._predictor
        num_tokens = predictor.processor.num_image_tokens
        return process_in_batches(
            pairs,
            self._prepare,
            self._answer_launched if self._side else self._answer,
            batch_size or auto_batch_size(predictor.model, self._kwargs, num_tokens),
            total,
            description=self._task[:60],
            num_threads=num_reader_threads(predictor.model.device),
            num_bytes=_num_bytes,
            max_batch_bytes=None if batch_size else MAX_BATCH_BYTES,
            start=self._launch if self._side else None,
            source_bytes=lambda pair: held_bytes(pair[0]),
        )

    def _prepare(self, pair: tuple[Any, str | Region | None]) -> _Question | ImageError | PromptError:
        image, text = pair
        predictor = self._predictor
        try:
            if not isinstance(image, EncodedImage):
                device = predictor.model.device
                image = preprocess_source(predictor.processor.image_processor, image, pin_memory=device.type == "cuda")
            prompt = build_prompt(
                self._task, text, image.size, warn_of_language=False, region_format=self._region_format
            )
            return _Question(image, check_prompt_length(prompt, predictor.model, predictor.processor))
        except (ImageError, PromptError) as error:
            return error

    def _launch(self, batch: list[_Question]) -> _Encoded:
        """Start to encode the images of a batch beside what runs."""
        assert self._side is not None
        images, event = self._side.launch(lambda: self._encode(batch))
        return _Encoded(images, batch, event)

    def _encode(self, batch: list[_Question]) -> list[EncodedImage]:
        return self._predictor.encode_images([question.image for question in batch])

    def _answer_launched(self, batch: _Encoded) -> list[Result]:
        assert self._side is not None
        self._side.join(batch.event, (image.tokens for image in batch.images))
        results = self._answer(batch.questions, batch.images)
        self._side.join_all()  # the caller may use the image encoder before the next batch
        return results

    def _answer(self, batch: list[_Question], images: list[EncodedImage] | None = None) -> list[Result]:
        prompts = [question.prompt for question in batch]
        results = answer_prompts(self._predictor, images or self._encode(batch), prompts, self._kwargs)
        self._has_warned = self._has_warned or warn_if_truncated(results, self._kwargs)
        return results


def _num_bytes(question: _Question) -> int:
    image = question.image
    return image.num_bytes if isinstance(image, PreprocessedImage) else 0
