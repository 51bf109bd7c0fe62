"""`BatchMixin`: the methods of `Predictor` for many prompts or many images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..argument_validation import validate_value
from ..exceptions import ArgumentError, ImageError, PromptError
from ..images import load_image
from ..inference import generation
from ..inference.batching import list_tasks, list_texts, unequal_numbers, zip_texts
from ..inference.constraints import check_constraint
from ..inference.generation import EncodedImage
from ..results import Result
from ..sources import list_sources
from ..template.locations import Region, RegionFormat
from ..template.prompts import Prompt, build_prompt
from .answering import answer_prompts
from .checks import check_prompt_length, warn_if_truncated
from .core import PredictorCore
from .pipeline import ImagePipeline

_Task = str | tuple[str, str | Region | None]


class BatchMixin(PredictorCore):
    """Answers many prompts about one image, and one prompt about many images."""

    def predict_tasks(
        self,
        image: Any,
        tasks: Sequence[_Task],
        batch_size: int = 16,
        region_format: RegionFormat = "xyxy",
        **generate_kwargs: Any,
    ) -> list[Result]:
        """Answer many prompts about one image, with the same results as one by one.

        The image is encoded once. Prompts are decoded together, which takes little longer than the longest answer alone.

        Args:
            image: as in `predict`.
            tasks: N tasks, each a string as in `predict`, or a pair of (task, text).
            batch_size: prompts decoded together, at least 1.
            region_format, generate_kwargs: as in `predict`.

        Returns:
            N results.

        Raises:
            PromptError, ImageError, ArgumentError: as `predict`; the latter also for anything but a list of tasks.
        """
        validate_value("batch_size", batch_size, int)  # before the image is read, like the settings of generation
        pairs = list_tasks(tasks)
        kwargs = generation.resolve_generation_kwargs(self.model, generate_kwargs)
        source = image if isinstance(image, EncodedImage) else load_image(image)
        prompts = [self.build_prompt(source.size, task, text, region_format) for task, text in pairs]
        check_constraint(kwargs, prompts)
        encoded = self.encode_image(source)
        return self.predict_prompts([encoded] * len(prompts), prompts, batch_size, **generate_kwargs)

    def predict_prompts(
        self,
        images: Sequence[EncodedImage],
        prompts: Sequence[Prompt],
        batch_size: int = 16,
        **generate_kwargs: Any,
    ) -> list[Result]:
        """Answer many pairs of an encoded image and a prompt, with the same results as one by one.

        `predict_tasks` and `predict_batch` are easier to use. This is for questions of which some share an image.

        Args:
            images: N encoded images, of `encode_image`.
            prompts: N prompts, of `build_prompt`.
            batch_size: prompts decoded together, at least 1.
            generate_kwargs: as in `predict`.

        Returns:
            N results.

        Raises:
            ArgumentError: for another number of images than of prompts, image tokens of another model, and as in `predict`.
        """
        images = validate_value("images", images, Sequence[EncodedImage])
        prompts = validate_value("prompts", prompts, Sequence[Prompt])
        batch_size = validate_value("batch_size", batch_size, int)
        kwargs = generation.resolve_generation_kwargs(self.model, generate_kwargs)
        check_constraint(kwargs, prompts)
        if len(images) != len(prompts):
            raise ArgumentError(f"images and prompts must be of equal number, got {len(images)} and {len(prompts)}")
        self.encode_images(list({id(image): image for image in images}.values()))  # refuses those of another model
        results: list[Result] = []
        for start in range(0, len(prompts), batch_size):
            rows = slice(start, start + batch_size)
            results += answer_prompts(self, images[rows], prompts[rows], kwargs)
        warn_if_truncated(results, kwargs)
        return results

    def predict_batch(
        self,
        images: str | Path | Iterable[Any],
        task: str,
        text: str | Region | Sequence[str | Region] | None = None,
        batch_size: int | Literal["auto"] = "auto",
        keep_images: bool = True,
        region_format: RegionFormat = "xyxy",
        **generate_kwargs: Any,
    ) -> list[Result | ImageError | PromptError]:
        """Answer one prompt about many images and return a list. See `predict_iter` for arguments and errors."""
        return list(self.predict_iter(images, task, text, batch_size, keep_images, region_format, **generate_kwargs))

    def predict_iter(
        self,
        images: str | Path | Iterable[Any],
        task: str,
        text: str | Region | Sequence[str | Region] | None = None,
        batch_size: int | Literal["auto"] = "auto",
        keep_images: bool = True,
        region_format: RegionFormat = "xyxy",
        **generate_kwargs: Any,
    ) -> Iterator[Result | ImageError | PromptError]:
        """Answer one prompt about many images and yield the results in order, with the same results as one by one.

        Images are read and resized in background threads, at most two batches ahead and 512 MB. On CUDA, the images of the
        next batch are encoded while the present one is decoded. Images that cannot be opened, or that do not
        contain the given region, yield the exception instead of a result; the remaining images are still processed. If the
        iterable itself fails, the results of the images before are yielded first. Like any generator, the returned one must
        not be advanced by two threads at the same time.

        Args:
            images: an iterable of images or encoded images; a folder, whose image files are taken in the order of their
                names; a pattern such as `"scans/*.png"`; a video, of which one frame a second is taken; or a single image.
                See `sources.expand_sources` for subfolders and other frame rates.
            task: as in `predict`.
            text: one phrase or region for all images, or a list with one for each (a list of four numbers is one region).
            batch_size: images decoded together, at least 1; `"auto"` is the number from which more do not pay, within the
                memory: 16 on a CPU and at most 128 on a GPU, divided by `num_beams`.
            keep_images: keep the image in each result, for drawing; False saves memory.
            region_format, generate_kwargs: as in `predict`.

        Raises:
            PromptError: for a misspelled task token, or an input that the task does not accept for any image.
            ImageError: for a folder without images, and for a single path that does not exist.
            ArgumentError: for an invalid argument, or another number of texts than of images; before any image is read if
                the number of images is known.
        """
        batch_size = validate_value("batch_size", batch_size, int | Literal["auto"])
        keep_images = validate_value("keep_images", keep_images, bool)
        kwargs = generation.resolve_generation_kwargs(self.model, generate_kwargs)
        sources = [images] if isinstance(images, EncodedImage) else list_sources(images)
        total = len(sources) if isinstance(sources, Sequence) else None
        texts = list_texts(text)
        if texts is not None and total is not None and len(texts) != total:
            raise unequal_numbers(total, len(texts))
        distinct: Iterable[Any] = [text] if texts is None else {repr(item): item for item in texts}.values()
        for item in distinct:
            prompt = check_prompt_length(
                build_prompt(task, item, region_format=region_format), self.model, self.processor
            )
            check_constraint(kwargs, [prompt])
        pairs: Iterable[tuple[Any, Any]] = ((source, text) for source in sources)
        if texts is not None:
            pairs = zip_texts(sources, texts)
        pipeline = ImagePipeline(self, task, kwargs, region_format)
        results = pipeline.run(pairs, None if batch_size == "auto" else batch_size, total)
        return results if keep_images else (_without_image(result) for result in results)


def _without_image(result: Result | ImageError | PromptError) -> Result | ImageError | PromptError:
    return replace(result, image=None) if isinstance(result, Result) else result
