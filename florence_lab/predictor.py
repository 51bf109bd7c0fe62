"""`load` and `Predictor`: encode an image once, then answer any number of prompts about it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from .argument_validation import validate_arguments, validate_value
from .detection.detection_mixin import DetectionMixin
from .detection.scoring_mixin import ScoringMixin
from .exceptions import ArgumentError, ImageError, PromptError, warn
from .images import GENERATOR_TAG, load_image
from .inference import generation, streaming
from .inference.batching import list_tasks, list_texts, process_in_batches, unequal_numbers, zip_texts
from .inference.compilation import compile_model
from .inference.constraints import ConstraintFactory, check_constraint
from .inference.device import resolve_dtype, select_device
from .inference.generation import EncodedImage, EncodedPrompts, ImageEncoder
from .inference.graphed_encoders import DefaultImageEncoder
from .inference.graphs import GraphCache
from .loading.adapters import load_model
from .loading.hub import resolve
from .loading.saving import save_model
from .results import Result
from .sources import list_sources
from .template.locations import Region, RegionFormat
from .template.prompts import Prompt, build_prompt
from .template.template import FlorenceTemplate

logger = logging.getLogger(__name__)

_Task = str | tuple[str, str | Region | None]


class _PreprocessedImage(NamedTuple):
    """Upright RGB, and its pixel values, 1 x 3 x H x W float32."""

    image: Image.Image
    pixel_values: torch.Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size


@validate_arguments
def load(
    model_type_or_path: str | Path,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "fp32",
    hub: str | None = None,
    compile: bool = False,
    base: str | Path | None = None,
    processor: str | Path | None = None,
    graphs: bool = True,
) -> Predictor:
    """Load a Florence-2 model.

    Args:
        model_type_or_path: one of `available_models()`, a checkpoint folder in the published or in transformers' layout, the
            folder of a LoRA adapter, or the id of a model on a hub (`org/name`).
        device: `"cuda"`, `"cpu"` …; `"auto"` is CUDA if available, else MPS, else the CPU.
        dtype: `"fp32"` (the default, gives exactly the published results), `"fp16"`, `"bf16"`, `"auto"` (bf16 if the device
            computes in it, else fp32), or a `torch.dtype`.
        hub: `"modelscope"` or `"hf"`; by default the environment variable `FLORENCE_LAB_HUB`, else ModelScope.
        compile: compile the image encoder ahead of time, see `Predictor.compile`. Without effect on CUDA.
        base: the base model of a LoRA adapter, a name or a folder; by default the one that `adapter_config.json` names, which
            may be a path of another machine.
        processor: the model whose tokenizer and image settings are used, for a folder that has weights and config only.
        graphs: run the model as CUDA graphs, which launch all kernels of a step at once. They need memory of their own: at most
            a quarter of the GPU's for the decoder. Without effect on other devices.

    Raises:
        ArgumentError: for an unknown name, hub, device or dtype.
        HubError: if the model cannot be downloaded.
        CheckpointError: if the folder is not a complete Florence-2 checkpoint.
    """
    torch_device = select_device(device)
    torch_dtype = resolve_dtype(dtype, torch_device)
    folder = resolve(model_type_or_path, hub)
    model, model_processor = load_model(folder, torch_dtype, hub, base=base, processor=processor)
    model.to(torch_device)  # type: ignore[arg-type]  # transformers' decorator hides the signature
    predictor = Predictor(model, model_processor, str(model_type_or_path), graphs)
    if dtype == "auto":
        logger.info("%s runs in %s on %s", predictor.name, str(torch_dtype).removeprefix("torch."), torch_device)
    return predictor.compile() if compile else predictor


class Predictor(DetectionMixin, ScoringMixin):
    """A Florence-2 model with its processor.

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

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        return f"Predictor({self.name!r}, {millions:.1f} M parameters, {self.model.dtype}, {self.model.device})"

    @validate_arguments
    def compile(self, cache_dir: str | Path | None = None) -> Predictor:
        """Compile the image encoder ahead of time for faster inference, and return the predictor itself.

        Takes about one minute at the first call, and the size of the image encoder's weights on disk, where the result is
        cached. Needs a C++ compiler; without one, a warning says so and the encoder runs uncompiled. On a CPU, a
        second copy of the language model's weights is held in memory, in the layout that oneDNN prefers. On CUDA nothing is
        compiled: graphs, which `load` uses by default, take a fraction of a second.

        Args:
            cache_dir: for compiled encoders; by default `$XDG_CACHE_HOME/florence_lab/compiled`.
        """
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
            image: a path, URL, PIL image, array …, see `load_image`; an `EncodedImage` is returned as it is.

        Returns:
            An `EncodedImage` whose `tokens` have shape 1 x N x d_model (N = 577 for the published models).

        Raises:
            ImageError: if the image cannot be read.
            ValueError: for an `EncodedImage` of another model.
        """
        return self._encode(image if isinstance(image, EncodedImage) else self._preprocess(image))

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
        return self._check_length(build_prompt(task, text, size, region_format=region_format))

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
        results = self._predict([self.encode_image(source)], [prompt], kwargs)
        _warn_if_truncated(results, kwargs)
        return results[0]

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
        for image in {id(image): image for image in images}.values():
            self._check_encoded(image)
        results: list[Result] = []
        for start in range(0, len(prompts), batch_size):
            rows = slice(start, start + batch_size)
            results += self._predict(images[rows], prompts[rows], kwargs)
        _warn_if_truncated(results, kwargs)
        return results

    def predict_batch(
        self,
        images: str | Path | Iterable[Any],
        task: str,
        text: str | Region | Sequence[str | Region] | None = None,
        batch_size: int = 8,
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
        batch_size: int = 8,
        keep_images: bool = True,
        region_format: RegionFormat = "xyxy",
        **generate_kwargs: Any,
    ) -> Iterator[Result | ImageError | PromptError]:
        """Answer one prompt about many images and yield the results in order, with the same results as one by one.

        Images are read in background threads, at most a few batches ahead. Images that cannot be opened, or that do not
        contain the given region, yield the exception instead of a result; the remaining images are still processed. If the
        iterable itself fails, the results of the images before are yielded first. Like any generator, the returned one must
        not be advanced by two threads at the same time.

        Args:
            images: an iterable of images or encoded images; a folder, whose image files are taken in the order of their
                names; a pattern such as `"scans/*.png"`; a video, of which one frame a second is taken; or a single image.
                See `sources.expand_sources` for subfolders and other frame rates.
            task: as in `predict`.
            text: one phrase or region for all images, or a list with one for each (a list of four numbers is one region).
            batch_size: images decoded together, at least 1.
            keep_images: keep the image in each result, for drawing; False saves memory.
            region_format, generate_kwargs: as in `predict`.

        Raises:
            PromptError: for a misspelled task token, or an input that the task does not accept for any image.
            ImageError: for a folder without images, and for a single path that does not exist.
            ArgumentError: for an invalid argument, or another number of texts than of images; before any image is read if
                the number of images is known.
        """
        batch_size = validate_value("batch_size", batch_size, int)
        keep_images = validate_value("keep_images", keep_images, bool)
        kwargs = generation.resolve_generation_kwargs(self.model, generate_kwargs)
        sources = [images] if isinstance(images, EncodedImage) else list_sources(images)
        total = len(sources) if isinstance(sources, Sequence) else None
        texts = list_texts(text)
        if texts is not None and total is not None and len(texts) != total:
            raise unequal_numbers(total, len(texts))
        distinct: Iterable[Any] = [text] if texts is None else {repr(item): item for item in texts}.values()
        for item in distinct:
            prompt = self._check_length(build_prompt(task, item, region_format=region_format))
            check_constraint(kwargs, [prompt])
        pairs: Iterable[tuple[Any, Any]] = ((source, text) for source in sources)
        if texts is not None:
            pairs = zip_texts(sources, texts)
        results = self._predict_iter(pairs, task, kwargs, batch_size, total, region_format)
        return results if keep_images else map(_without_image, results)

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

    def _preprocess(self, image: Any) -> _PreprocessedImage:
        image = load_image(image)
        return _PreprocessedImage(image, generation.preprocess(self.processor.image_processor, [image]))

    @cached_property
    def constraints(self) -> ConstraintFactory:
        """Makes the processors of `constrain`, `allowed_labels` and `allowed_characters`."""
        return ConstraintFactory(self.model, self.template.vocabulary)

    @torch.inference_mode()
    def _encode(self, image: _PreprocessedImage | EncodedImage) -> EncodedImage:
        if isinstance(image, EncodedImage):
            self._check_encoded(image)
            return image
        self._warn_if_out_of_domain(image.image)
        pixel_values = image.pixel_values.to(self.model.device, self.model.dtype)
        return EncodedImage(image.image, self.image_encoder(pixel_values))

    def _check_encoded(self, image: EncodedImage) -> None:
        """Raise an `ArgumentError` for image tokens that are not from this model."""
        shape = (1, self.processor.num_image_tokens, generation.text_config(self.model).d_model)
        for name, expected, actual in (
            ("shape", shape, tuple(image.tokens.shape)),
            ("dtype", self.model.dtype, image.tokens.dtype),
            ("device", self.model.device, image.tokens.device),
        ):
            if actual != expected:
                raise ArgumentError(
                    f"{self.name} expects image tokens of {name} {expected}, got {actual}; the image was encoded by another "
                    "model"
                )
        if not bool(image.tokens.isfinite().all()):
            raise ArgumentError("the image tokens contain values that are not finite")

    def _warn_if_out_of_domain(self, image: Image.Image) -> None:
        """Warn once if a model that was trained on cartoon scenes only sees another image."""
        if self._is_domain_warning_pending and not str(image.info.get("Source")).startswith(GENERATOR_TAG):
            self._is_domain_warning_pending = False
            warn(
                f"{self.name} was trained on florence_lab's cartoon scenes only; its answers about other images are "
                "meaningless"
            )

    def _check_length(self, prompt: Prompt) -> Prompt:
        length = len(self.processor.tokenizer(prompt.prompt, verbose=False).input_ids)
        limit = generation.max_prompt_tokens(self.model, self.processor.num_image_tokens)
        if length > limit:
            raise PromptError(f"the prompt has {length} tokens; the model accepts at most {limit} besides the image")
        return prompt

    def _predict(
        self, encoded: Sequence[EncodedImage], prompts: Sequence[Prompt], kwargs: dict[str, Any]
    ) -> list[Result]:
        states = self._encode_prompts(encoded, prompts)
        score_rows = {row for row, prompt in enumerate(prompts) if prompt.task.result != "text"}
        constraint = self.constraints.processor(prompts, kwargs)
        generations = generation.generate(
            self.model,
            states,
            kwargs,
            location_ids=self.template.location_ids,
            score_rows=score_rows,
            constraint=constraint,
            graphs=self.graphs,
        )
        return [
            self.template.parse(
                g.token_ids.tolist(), prompt, image.size, g.probabilities, image.image, truncated=g.is_truncated
            )
            for g, prompt, image in zip(generations, prompts, encoded, strict=True)
        ]

    def _encode_prompts(self, encoded: Sequence[EncodedImage], prompts: Sequence[Prompt]) -> EncodedPrompts:
        image_tokens = torch.cat([image.tokens for image in encoded])
        return generation.encode_prompts(
            self.model, self.processor.tokenizer, image_tokens, [prompt.prompt for prompt in prompts], self.graphs
        )

    def _stream(self, image: Any, prompt: Prompt, kwargs: dict[str, Any]) -> Iterator[Result]:
        encoded = self.encode_image(image)
        states = self._encode_prompts([encoded], [prompt])
        constraint = self.constraints.processor([prompt], kwargs)
        for result in streaming.stream_results(
            self.model, self.template, encoded, states, prompt, kwargs, constraint, self.graphs
        ):
            _warn_if_truncated([result], kwargs)  # only the last result can be
            yield result

    def _predict_iter(
        self,
        pairs: Iterable[tuple[Any, str | Region | None]],
        task: str,
        kwargs: dict[str, Any],
        batch_size: int,
        total: int | None,
        region_format: RegionFormat,
    ) -> Iterator[Result | ImageError | PromptError]:
        def prepare(
            pair: tuple[Any, str | Region | None],
        ) -> tuple[_PreprocessedImage | EncodedImage, Prompt] | ImageError | PromptError:
            source, text = pair
            try:
                image = source if isinstance(source, EncodedImage) else self._preprocess(source)
                prompt = build_prompt(task, text, image.size, warn_of_language=False, region_format=region_format)
                return image, self._check_length(prompt)
            except (ImageError, PromptError) as error:
                return error

        has_warned = False

        def answer(batch: list[tuple[_PreprocessedImage | EncodedImage, Prompt]]) -> list[Result]:
            nonlocal has_warned
            results = self._predict(
                [self._encode(image) for image, _ in batch], [prompt for _, prompt in batch], kwargs
            )
            has_warned = has_warned or _warn_if_truncated(results, kwargs)
            return results

        return process_in_batches(pairs, prepare, answer, batch_size, total, description=task[:60])


def _without_image(result: Result | ImageError | PromptError) -> Result | ImageError | PromptError:
    return replace(result, image=None) if isinstance(result, Result) else result


def _warn_if_truncated(results: Sequence[Result], kwargs: dict[str, Any]) -> bool:
    """Warn of answers that the limit of length or time ended, and return whether there are any."""
    count = sum(result.truncated for result in results)
    if count:
        answers = "the answer is" if len(results) == 1 else f"{count} of {len(results)} answers are"
        limit = "" if kwargs.get("max_time") is None else f" or max_time={kwargs['max_time']:g}"
        warn(f"{answers} truncated at max_new_tokens={kwargs['max_new_tokens']}{limit}; see `result.truncated`")
    return count > 0
