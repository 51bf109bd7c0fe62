"""TODO"""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers import Florence2ForConditionalGeneration, Florence2Processor, StoppingCriteriaList
from transformers.generation import GenerationMode
from transformers.modeling_outputs import BaseModelOutput

from .exceptions import ImageError
from .images import GENERATOR_TAG, list_images, load_image
from .inference.decoding import TokenScoreRecorder, greedy_search
from .inference.device import resolve_dtype, select_device
from .inference.generation import (
    _SCORED_AT_ONCE,
    DEFAULT_MAX_NEW_TOKENS,
    UNSUPPORTED_GENERATE_KWARGS,
    EncodedImage,
    prepare_model,
    size_of,
)
from .inference.streaming import _flags, _TokenQueue
from .loading.adapters import load_model
from .loading.hub import resolve
from .loading.registry import MODELS
from .results import Result, Text
from .tasks import Task
from .template.confidence import TokenProbabilities
from .template.locations import NUM_BINS, Region
from .template.template import FlorenceTemplate

_ANY_SIZE = (10**9, 10**9)  # pixels: a region that no picture has is wrong for all

_READERS = 2  # threads that open pictures


class _Prepared(NamedTuple):
    """A picture on its way to the tower: upright RGB, and 1 x 3 x H x W float32."""

    image: Image.Image
    pixels: torch.Tensor


def load(
    model_type_or_path: str | Path,
    device: str = "auto",
    dtype: str | torch.dtype = "fp32",
    hub: str | None = None,
    compile: bool = False,
) -> Predictor:
    """A predictor for a model of the catalogue, a checkpoint folder, or the id of a model on a hub.

    Args:
        model_type_or_path: as in `available_models()`, a folder in the published or in transformers' layout, or `org/name`.
        device: `"cuda"`, `"cpu"` …; `"auto"` is the first of CUDA, MPS and CPU that is there.
        dtype: `"fp32"` (the default, exactly the published results), `"fp16"`, `"bf16"`, `"auto"` (bf16 where the device
            computes in it, else fp32; says which) or a `torch.dtype`.
        hub: `"modelscope"` or `"hf"`; by default the environment's `FLORENCE_LAB_HUB`, else ModelScope.
        compile: answer faster, for a minute's wait once on each machine and the memory of the weights once more. Needs a
            C++ compiler; without one, a warning says so, and the rest of the gain is there.

    Raises:
        ValueError: for an unknown name, hub or dtype.
        HubError: if a hub can't be reached, or does not have it.
        CheckpointError: if what is there is no whole Florence-2.
    """
    device = select_device(device)
    picked = resolve_dtype(dtype, device)
    model, processor = load_model(resolve(model_type_or_path, hub), picked, hub)
    model.to(device)
    if dtype == "auto":
        print(f"{model_type_or_path}: computes in {str(picked).removeprefix('torch.')} on {device}", file=sys.stderr)
    return (compiled_predictor if compile else Predictor)(model, processor, str(model_type_or_path))


def compiled_predictor(
    model: Florence2ForConditionalGeneration, processor: Florence2Processor, name: str = "florence-2"
) -> Predictor:
    """A predictor whose model is made fast in place, see `compiled.compile_model`."""
    from .inference.compilation import compile_model

    size = processor.image_processor.size
    return Predictor(model, processor, name, compile_model(model, (size["height"], size["width"])))


class Predictor:
    """A model with its processor, ready to be asked.

    Attributes:
        model: transformers' `Florence2ForConditionalGeneration`.
        processor: transformers' `Florence2Processor`.
        template: the words of Florence-2.
        name: what it was loaded as.
    """

    def __init__(
        self,
        model: Florence2ForConditionalGeneration,
        processor: Florence2Processor,
        name: str = "florence-2",
        tower: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """`tower`, from pixels to image tokens, is used in place of the model's own."""
        self.model = prepare_model(model)
        self.processor = processor
        self.template = FlorenceTemplate(processor.tokenizer)
        self.name = name
        self._tower = tower or (lambda pixels: self.model.get_image_features(pixels).pooler_output)
        self._knows_scenes_only = name in MODELS and MODELS[name].path is not None

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        return f"Predictor({self.name!r}, {millions:.1f} M parameters, {self.model.dtype}, {self.model.device})"

    @torch.inference_mode()
    def encode_image(self, image: Any) -> EncodedImage:
        """Runs the vision tower, which is most of the work, once for however many questions.

        Args:
            image: whatever `florence_lab.images.load_image` takes (path, URL, PIL image, array …), or an `EncodedImage`,
                which comes back as it is.

        Raises:
            ImageError: if it can't be read as a picture.
        """
        if isinstance(image, EncodedImage):
            return image
        return self._look(self._prepare(image))

    def predict(self, image: Any, task: str, text: str | Region | None = None, **generation: Any) -> Result:
        """The answer to one question about one image.

        Args:
            image: a picture or an `EncodedImage`, see `encode_image`.
            task: a task token (`"<OD>"`), one with its phrase behind it, or a question in your own words.
            text: the phrase, or the region as (x0, y0, x1, y1) in pixels, of a task that takes one.
            generation: settings for transformers' `generate` (`num_beams`, `max_new_tokens`, `do_sample` …) in place of
                the checkpoint's own.

        Raises:
            ValueError: for an unknown task, or an input that it can't take; before any model runs.
            ImageError: if the image can't be read.
        """
        settings = self._settings(generation)
        picture = image if isinstance(image, EncodedImage) else load_image(image)
        question = self._question(size_of(picture), task, text)
        return self._answer([self.encode_image(picture)], [question], settings)[0]

    def predict_batch(
        self,
        images: str | Path | Iterable[Any],
        task: str,
        text: str | Region | Sequence[str | Region] | None = None,
        batch_size: int = 8,
        **generation: Any,
    ) -> list[Result | ImageError | ValueError]:
        """The answers to one question about many images, equal to asking one by one; `predict_iter` as a list.

        Args, raises: as `predict_iter`.
        """
        return list(self.predict_iter(images, task, text, batch_size, **generation))

    def predict_iter(
        self,
        images: str | Path | Iterable[Any],
        task: str,
        text: str | Region | Sequence[str | Region] | None = None,
        batch_size: int = 8,
        **generation: Any,
    ) -> Iterator[Result | ImageError | ValueError]:
        """The answers to one question about any number of images, in their order, as they come.

        Pictures are opened in the background, no more than a few batches ahead, and none is kept here. What can't be opened,
        or has not the region that is asked about, has its error in place of an answer, and the others go on.

        Args:
            images: a folder, whose pictures are taken by name, or N pictures or encoded images, or an iterator of them.
            task: as in `predict`.
            text: one phrase or region for all of them, or a list of one each (a list of four numbers is one region).
            batch_size: how many are decoded together.
            generation: as in `predict`.

        Raises:
            ValueError: for an unknown task, an input that it can't take, a folder without pictures, or another number of
                texts than of images; before any picture is opened.
        """
        settings = self._settings(generation)
        sources = list_images(images) if isinstance(images, (str, Path)) else images
        total = len(sources) if isinstance(sources, Sequence) else None
        one_each = isinstance(text, list) and not (len(text) == 4 and all(isinstance(t, Real) for t in text))
        if one_each and total is not None and len(text) != total:
            raise ValueError(f"{total} images, but {len(text)} texts: give one for all, or one each")
        for one in text if one_each else [text]:
            self._question(_ANY_SIZE, task, one)  # what is wrong with it for pictures of any size
        asked = zip(sources, text, strict=True) if one_each else ((source, text) for source in sources)
        return self._each(asked, task, settings, batch_size, total)

    def predict_tasks(
        self,
        image: Any,
        questions: Sequence[str | tuple[str, str | Region | None]],
        batch_size: int = 16,
        **generation: Any,
    ) -> list[Result]:
        """The answers to many questions about one image, equal to asking one by one.

        The image is encoded once, and the answers are decoded together, which costs little more than the longest of them.

        Args:
            image: as in `predict`.
            questions: N tasks, each as in `predict`, alone or as (task, text).
            batch_size: how many are decoded together.
            generation: as in `predict`.

        Raises:
            ValueError, ImageError: as in `predict`.
        """
        settings = self._settings(generation)
        picture = image if isinstance(image, EncodedImage) else load_image(image)
        asked = [(question, None) if isinstance(question, str) else question for question in questions]
        prompts = [self._question(size_of(picture), task, text) for task, text in asked]
        encoded = self.encode_image(picture)
        results: list[Result] = []
        for start in range(0, len(prompts), batch_size):
            some = prompts[start : start + batch_size]
            results += self._answer([encoded] * len(some), some, settings)
        return results

    def stream(self, image: Any, task: str, text: str | Region | None = None, **generation: Any) -> Iterator[Result]:
        """Growing results: each word of a text, each instance as soon as its last coordinate is out.

        The last one is the whole answer, as `predict(…, num_beams=1)` gives it. Beams can't be streamed, because the
        best one is known only at the end; the checkpoint's `num_beams` is not used here. Stop early by leaving the loop.

        Args, raises: as in `predict`; ValueError also for `num_beams` above 1.
        """
        if generation.setdefault("num_beams", 1) != 1:
            raise ValueError(f"an answer can't be streamed with num_beams={generation['num_beams']}, only with 1")
        settings = self._settings(generation)
        picture = image if isinstance(image, EncodedImage) else load_image(image)
        return self._stream(picture, self._question(size_of(picture), task, text), settings)

    def save(self, folder: str | Path) -> None:
        """Writes transformers' layout, which plain `from_pretrained` of transformers reads back.

        The answers are the same with `AutoProcessor.from_pretrained(folder, backend="pil")`. Without `backend`, transformers
        resizes with torchvision where it is installed; pixels then differ by a level or two, and an answer now and then.
        """
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    # ------------------------------------------------------------------ inside

    def _prepare(self, image: Any) -> _Prepared:
        """Opened, and made into pixels for the tower."""
        image = load_image(image)
        return _Prepared(image, self.processor.image_processor(image, return_tensors="pt")["pixel_values"])

    @torch.inference_mode()
    def _look(self, prepared: _Prepared) -> EncodedImage:
        self._say_what_it_knows(prepared.image)
        return EncodedImage(prepared.image, self._tower(prepared.pixels.to(self.model.device, self.model.dtype)))

    def _each(
        self,
        asked: Iterable[tuple[Any, str | Region | None]],
        task: str,
        settings: dict[str, Any],
        batch_size: int,
        total: int | None,
    ) -> Iterator[Result | ImageError | ValueError]:
        """See `predict_iter`; `asked` are pictures with their texts."""

        def ready(pair: tuple[Any, str | Region | None]) -> tuple[Any, tuple[Task, str, str]] | ValueError:
            try:
                picture = pair[0] if isinstance(pair[0], EncodedImage) else self._prepare(pair[0])
                return picture, self._question(picture.image.size, task, pair[1])
            except ValueError as error:  # an ImageError is one
                return error

        bar = tqdm(total=total, desc=task[:60], unit="picture", disable=total is not None and total <= batch_size)
        with bar, ThreadPoolExecutor(_READERS) as readers:
            coming = _ahead(readers, ready, asked, 2 * batch_size)
            while rows := list(islice(coming, batch_size)):
                good = [row for row in rows if not isinstance(row, ValueError)]
                encoded = [p if isinstance(p, EncodedImage) else self._look(p) for p, _ in good]
                answers = iter(self._answer(encoded, [question for _, question in good], settings) if good else ())
                for row in rows:
                    bar.update()
                    yield row if isinstance(row, ValueError) else next(answers)

    def _say_what_it_knows(self, image: Image.Image) -> None:
        """A model that ships is a small one, of which people may expect too much; said once."""
        if self._knows_scenes_only and not str(image.info.get("Source")).startswith(GENERATOR_TAG):
            self._knows_scenes_only = False
            warnings.warn(
                f"{self.name} knows florence_lab's cartoon scenes and nothing else: "
                "what it says about any other picture means nothing",
                stacklevel=5,  # the caller of encode_image, past a decorator
            )

    def _question(self, size: tuple[int, int], task: str, text: str | Region | None) -> tuple[Task, str, str]:
        """Task, phrase and prompt; whatever is wrong with a question about a picture of that size is said here."""
        if not isinstance(task, str):
            raise ValueError(f"a task is a string such as '<OD>', but got {task!r}")
        question = self.template.prompt(task, text, size)
        length = len(self.processor.tokenizer(question[2]).input_ids)
        longest = self.model.config.text_config.max_position_embeddings - self.processor.num_image_tokens
        if length > longest:
            raise ValueError(f"the prompt has {length} tokens; beside a picture the model reads at most {longest}")
        return question

    def _settings(self, generation: dict[str, Any]) -> dict[str, Any]:
        """The caller's settings, completed where transformers' defaults don't suit."""
        settings = dict(generation)
        own = self.model.generation_config
        for name in settings:
            if name not in vars(own) or name in UNSUPPORTED_GENERATE_KWARGS:
                nearest = "".join(
                    f"; did you mean {n!r}?" for n in get_close_matches(name, vars(own), n=1) if n != name
                )
                raise ValueError(f"{name!r} is no setting for the generation of one answer{nearest}")
        if settings.get("do_sample") and "num_beams" not in settings:
            settings["num_beams"] = 1  # to sample means to sample one answer
        if (beams := settings.get("num_beams")) is not None and beams < 1:
            raise ValueError(f"num_beams={beams}: give 1 (greedy) or more")
        if settings.get("num_beams", own.num_beams) in (None, 1):
            settings.setdefault("early_stopping", False)  # a setting for beams, of which transformers warns otherwise
        if settings.get("max_new_tokens") is None:
            # a length counts the start token too
            whole = settings.pop("max_length", None)
            settings["max_new_tokens"] = whole - 1 if whole else own.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
        longest = self.model.config.text_config.max_position_embeddings
        # max_length is what transformers would warn of, where the checkpoint has one beside our max_new_tokens
        return settings | {"max_new_tokens": min(settings["max_new_tokens"], longest), "max_length": None}

    @torch.inference_mode()
    def _read(self, encoded: Sequence[EncodedImage], prompts: Sequence[str]) -> dict[str, Any]:
        """The text encoder's view of image tokens and prompts, as keywords of `generate`."""
        words = self.processor.tokenizer(list(prompts), padding=True, return_tensors="pt").to(self.model.device)
        images = torch.cat([e.tokens for e in encoded])
        embeddings = torch.cat([images, self.model.get_input_embeddings()(words.input_ids)], dim=1)
        mask = torch.cat([words.attention_mask.new_ones(images.shape[:2]), words.attention_mask], dim=1)
        states = self.model.get_encoder()(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        return {"encoder_outputs": BaseModelOutput(last_hidden_state=states), "attention_mask": mask}

    @torch.inference_mode()
    def _answer(
        self,
        encoded: Sequence[EncodedImage],
        questions: Sequence[tuple[Task, str, str]],
        settings: dict[str, Any],
    ) -> list[Result]:
        read = self._read(encoded, [prompt for _, _, prompt in questions])
        states, mask = read["encoder_outputs"].last_hidden_state, read["attention_mask"]
        watched = {row for row, (task, _, _) in enumerate(questions) if task.result != "text"}
        thoughts = TokenScoreRecorder(watched, self.template.first_location_id, self.model.config.image_token_id)
        sequences = self._generate(states, mask, settings, thoughts)
        results = []
        for row, (sequence, picture, question) in enumerate(zip(sequences, encoded, questions, strict=True)):
            only = slice(row, row + 1)
            results.append(self._result(sequence, picture, question, states[only], mask[only], thoughts.of(row)))
        return results

    def _generate(
        self,
        states: torch.Tensor,
        mask: torch.Tensor,
        settings: dict[str, Any],
        thoughts: TokenScoreRecorder | None = None,
    ) -> torch.Tensor:
        """One sequence per question, start token and all, padded to one length; `thoughts` are filled if it is greedy."""
        config = copy.deepcopy(self.model.generation_config)
        config.update(**settings)
        own = {}
        if config.get_generation_mode() is GenerationMode.GREEDY_SEARCH:
            own = {"custom_generate": partial(greedy_search, watch=thoughts)}
        # generate repeats the states for its beams in place, so it gets a wrapper of its own
        encoder_outputs = BaseModelOutput(last_hidden_state=states)
        return self.model.generate(encoder_outputs=encoder_outputs, attention_mask=mask, **own, **settings)

    def _up_to_its_end(self, sequence: torch.Tensor) -> torch.Tensor:
        """A sequence without what follows its `</s>`; the start token is the same token, and no end."""
        ends = (sequence[1:] == self.processor.tokenizer.eos_token_id).nonzero()
        return sequence[: int(ends[0]) + 2] if len(ends) else sequence

    def _result(
        self,
        sequence: torch.Tensor,
        picture: EncodedImage,
        question: tuple[Task, str, str],
        states: torch.Tensor,
        mask: torch.Tensor,
        scores: TokenProbabilities | None = None,
    ) -> Result:
        """One generated sequence, start token and all, as a result; `scores` if they are known already."""
        task, phrase, _ = question
        sequence = self._up_to_its_end(sequence)
        if scores is None and task.result != "text":
            scores = self._probabilities(sequence, states, mask)
        return self.template.parse(
            sequence[1:].tolist(), task, picture.image.size, phrase=phrase, probabilities=scores, image=picture.image
        )

    @torch.inference_mode()
    def _probabilities(self, sequence: torch.Tensor, states: torch.Tensor, mask: torch.Tensor) -> TokenProbabilities:
        """What the model thinks of a sequence that it generated.

        One parallel pass over the whole of it, at the cost of a few steps of generation; the probabilities are the model's
        own for greedy decoding, sampling and beams alike, untouched by what `generate` does to its logits.
        """
        hidden = self.model.model.language_model.decoder(
            input_ids=sequence[None, :-1], encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state[0]
        first = self.template.first_location_id
        chosen, locations = [], []
        for ids, probabilities in zip(
            sequence[1:].split(_SCORED_AT_ONCE), self._over_the_vocabulary(hidden), strict=True
        ):
            chosen.append(probabilities.gather(1, ids[:, None])[:, 0])
            locations.append(probabilities[:, first : first + NUM_BINS])
        return TokenProbabilities(*(np.concatenate([part.cpu().numpy() for part in p]) for p in (chosen, locations)))

    def _over_the_vocabulary(self, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """T x d_model, the decoder's states -> the probabilities of the next token, n x vocabulary, some positions at a time."""
        for some in hidden.split(_SCORED_AT_ONCE):
            logits = self.model.lm_head(some).float()
            logits[:, self.model.config.image_token_id] = -torch.inf  # a place in the prompt, never an answer
            yield logits.softmax(dim=-1)

    def _stream(self, picture: Any, question: tuple[Task, str, str], settings: dict[str, Any]) -> Iterator[Result]:
        encoded = self.encode_image(picture)
        read = self._read([encoded], [question[2]])
        states, mask = read["encoder_outputs"].last_hidden_state, read["attention_mask"]
        shown = 0
        for sequence, finished in self._generate_stepwise(states, mask, settings):
            size, phrase = encoded.image.size, question[1]
            so_far = self.template.parse(sequence[1:], question[0], size, phrase=phrase, image=encoded.image)
            if not finished:
                so_far = _without_unfinished(so_far)
                if _extent(so_far) <= shown:
                    continue
            shown = _extent(so_far)
            if not isinstance(so_far, Text):
                # scores want a pass through the decoder, so they are asked for only where there is something to show
                sequence = torch.tensor(sequence, device=states.device)
                so_far = self._result(sequence, encoded, question, states, mask).head(shown)
            yield so_far

    def _generate_stepwise(
        self, states: torch.Tensor, mask: torch.Tensor, settings: dict[str, Any]
    ) -> Iterator[tuple[list[int], bool]]:
        """The sequence so far after each token, and whether it is the whole; generation runs in a thread of its own."""
        tokens = _TokenQueue()
        stop = threading.Event()

        def work() -> None:
            try:
                with torch.inference_mode():
                    self.model.generate(
                        encoder_outputs=BaseModelOutput(last_hidden_state=states),
                        attention_mask=mask,
                        streamer=tokens,
                        stopping_criteria=StoppingCriteriaList([lambda ids, scores, **_: _flags(ids, stop.is_set())]),
                        **settings,
                    )
                tokens.queue.put(None)
            except BaseException as error:  # for the caller's thread to raise
                tokens.queue.put(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        sequence: list[int] = []
        try:
            while True:
                item = tokens.queue.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    yield sequence, True
                    return
                sequence = [*sequence, *item]
                yield sequence, False
        finally:  # the caller left the loop, or all is out
            stop.set()
            worker.join()


T = TypeVar("T")

U = TypeVar("U")


def _ahead(workers: Executor, work: Callable[[T], U], items: Iterable[T], ahead: int) -> Iterator[U]:
    """`map(work, items)` that is done by others, but never further ahead than so many items."""
    started: deque[Future[U]] = deque()
    for item in items:
        started.append(workers.submit(work, item))
        if len(started) > ahead:
            yield started.popleft().result()
    while started:
        yield started.popleft().result()


def _extent(result: Result) -> int:
    """How much a growing result holds: characters, or instances."""
    return len(result.text) if isinstance(result, Text) else len(result.labels)


def _without_unfinished(result: Result) -> Result:
    """Without what the next token may still change: half a character, or a last outline that may grow."""
    if isinstance(result, Text):
        return replace(result, text=result.text.rstrip("\ufffd"), raw=result.raw.rstrip("\ufffd"))
    grows = bool(result.labels) and bool(getattr(result, "polygons", ())) and bool(result.polygons[-1])
    return result.head(len(result) - 1) if grows else result
