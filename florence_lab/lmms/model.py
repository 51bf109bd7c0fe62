"""`LmmsModel`: answers the requests of lmms-eval with a `Predictor`. It needs no lmms-eval, see `plugin` for its subclass that does."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NoReturn, Protocol

import torch
from tqdm.auto import tqdm

from ..argument_validation import validate_value
from ..exceptions import ArgumentError, ImageError, PromptError, shorten, unknown_name
from ..generation_settings import CONSTRAINT_SETTINGS, GENERATION_SETTINGS, validate_generation_settings
from ..inference.generation import EncodedImage
from ..predictor import Predictor, load
from ..tasks import get_task
from ..template.locations import RegionFormat
from ..template.prompts import Prompt
from .questions import TaskRule, cut_answer, find_rule, format_answer, read_input

logger = logging.getLogger(__name__)

_SAMPLING = ("temperature", "top_p", "top_k")


class Request(Protocol):
    """An `Instance` of lmms-eval.

    Its arguments are the context, the settings of generation (or the answer to be scored), the function that returns the images
    of a document, the index of the document, the name of the task, and the split.
    """

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments."""


@dataclass(frozen=True)
class _Question:
    """A document of lmms-eval as Florence-2 is asked about it."""

    rule: TaskRule
    document: Mapping[str, Any]
    image: EncodedImage
    text: str | list[float] | None
    prompt: Prompt


class LmmsModel:
    """Answers the requests of lmms-eval.

    Settings of generation are those of the task of lmms-eval, overridden by the arguments of the model. Most tasks ask for one
    beam; Florence-2's model card uses three.

    A document that cannot be asked about, such as one with an image that cannot be read, is answered by "" with a warning.

    Args:
        pretrained: what `load` takes: the name of a model, a folder, or a hub id.
        task: the token of Florence-2's task for all tasks of lmms-eval, `"<CAPTION>"`; "" asks free-form questions. By default
            that of `TASK_RULES`.
        field: the field of a document with the phrase, region or question; "" takes the prompt of lmms-eval. By default that of
            `TASK_RULES`.
        region_format: the units of regions in documents, see `Predictor.predict`. That of COCO is `"xywh"`.
        device, dtype, hub, compile, base, processor: as in `load`.
        batch_size: documents that are answered together.
        max_batch_size: not used; lmms-eval passes it.
        generation: settings of generation, as in `Predictor.predict`.

    Raises:
        ArgumentError: for an invalid argument.
        HubError, CheckpointError: as `load`.
    """

    def __init__(
        self,
        pretrained: str = "florence-2-base-ft",
        task: str | None = None,
        field: str | None = None,
        region_format: RegionFormat = "xywh",
        device: str | None = None,
        dtype: str = "fp32",
        hub: str | None = None,
        compile: bool = False,
        base: str | None = None,
        processor: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: Any = None,
        **generation: Any,
    ) -> None:
        super().__init__()
        self.batch_size = _parse_batch_size(batch_size)
        self.region_format = validate_value("region_format", region_format, RegionFormat)
        self._task = None if task is None else get_task(validate_value("task", task, str)).token
        self._field = validate_value("field", field, str | None)
        self._generation = _check_generation(generation)
        self.predictor: Predictor = load(
            str(pretrained), device or "auto", dtype, hub, compile, base=base, processor=processor
        )
        self.task_dict: dict[str, Any] = {}  # lmms-eval fills it: name -> split -> documents

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.predictor.model.device

    def generate_until(self, requests: Sequence[Request]) -> list[str]:
        """Return the answers to requests, in order.

        Raises:
            ArgumentError: if it is not known how the task is asked, and for an unknown setting of generation.
        """
        rules = self._find_rules(requests)
        settings = [merge_settings(request.args[1], self._generation) for request in requests]
        answers = [""] * len(requests)
        with tqdm(total=len(requests), unit="answer", disable=self._is_quiet) as bar:
            for rows in _batches(settings, self.batch_size):
                for row, question, result in self._predict(rows, requests, rules, settings[rows[0]]):
                    text = format_answer(result, question.rule.answer)
                    answers[row] = cut_answer(text, requests[row].args[1].get("until"))
                bar.update(len(rows))
        return answers

    def loglikelihood(self, requests: Sequence[Request]) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each given answer, and whether it is the one that the model generates greedily.

        Successive requests about a document are scored together. A document that cannot be asked about has minus infinity.

        Raises:
            ArgumentError: if it is not known how the task is asked.
        """
        rules = self._find_rules(requests)
        scores = [(float("-inf"), False)] * len(requests)
        with tqdm(total=len(requests), unit="answer", disable=self._is_quiet) as bar:
            for _, group in groupby(range(len(requests)), key=lambda row: requests[row].args[3:6]):
                rows = list(group)
                if (question := self._ask(requests[rows[0]], rules)) is not None:
                    for row, score in zip(rows, self._score(question, [requests[row] for row in rows]), strict=True):
                        scores[row] = score
                bar.update(len(rows))
        return scores

    def generate_until_multi_round(self, requests: Sequence[Request]) -> NoReturn:
        """Raise an `ArgumentError`: Florence-2 holds no conversations."""
        raise ArgumentError("Florence-2 answers single questions; lmms-eval's tasks of several rounds cannot be run")

    @property
    def _is_quiet(self) -> bool:
        """Whether another process shows the progress."""
        return getattr(self, "rank", 0) != 0

    def _find_rules(self, requests: Sequence[Request]) -> dict[str, TaskRule]:
        """The rule of each task, before any image is read."""
        for request in requests:
            if len(request.args) != 6:
                raise ArgumentError(f"the request has no document with an image: {shorten(request.args)}")
        return {name: find_rule(name, self._task, self._field) for name in {request.args[4] for request in requests}}

    def _predict(
        self,
        rows: Sequence[int],
        requests: Sequence[Request],
        rules: Mapping[str, TaskRule],
        settings: Mapping[str, Any],
    ) -> Iterator[tuple[int, _Question, Any]]:
        """Yield the row, the question and the answer of all requests of a batch that can be asked."""
        asked = [(row, question) for row in rows if (question := self._ask(requests[row], rules)) is not None]
        images, prompts = [question.image for _, question in asked], [question.prompt for _, question in asked]
        results = self.predictor.predict_prompts(images, prompts, self.batch_size, **settings)
        for (row, question), result in zip(asked, results, strict=True):
            yield row, question, result

    def _ask(self, request: Request, rules: Mapping[str, TaskRule]) -> _Question | None:
        """Encode the image of a document and build its prompt; None, with a warning, if that is not possible."""
        context, _, read_images, index, name, split = request.args
        rule = rules[name]
        document = self.task_dict[name][split][index]
        try:
            image = self.predictor.encode_image(_single_image(read_images(document)))
            has_input = get_task(rule.task).input != "none"
            text = read_input(document, rule.field, context) if has_input else None
            prompt = self.predictor.build_prompt(image.size, rule.task, text, self.region_format)
        except (ImageError, PromptError) as error:
            logger.warning("%s, document %s is answered by nothing: %s", name, index, error)
            return None
        return _Question(rule, document, image, text, prompt)

    def _score(self, question: _Question, requests: Sequence[Request]) -> list[tuple[float, bool]]:
        """The scores of answers to one question."""
        continuations = [request.args[1] for request in requests]
        answers = [str(item(question.document) if callable(item) else item).strip() for item in continuations]
        ranked = self.predictor.score(
            question.image, question.rule.task, list(dict.fromkeys(answers)), question.text, False, self.region_format
        )
        likelihoods = {item.candidate: item.log_likelihood for item in ranked}
        (greedy,) = self.predictor.predict_prompts([question.image], [question.prompt], num_beams=1, do_sample=False)
        return [(likelihoods[answer], answer == greedy.raw.strip()) for answer in answers]


def merge_settings(requested: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of generation of a request.

    Args:
        requested: those of lmms-eval. What Florence-2 does not support, such as `until`, is left out.
        own: settings that take precedence.
    """
    merged = {name: value for name, value in requested.items() if name in GENERATION_SETTINGS} | dict(own)
    if not merged.get("do_sample") or not merged.get("temperature", 1):  # a temperature of 0 stands for no sampling
        merged = {name: value for name, value in merged.items() if name not in _SAMPLING} | {"do_sample": False}
    return validate_generation_settings(merged)


def _check_generation(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of generation among the arguments of the model."""
    known = [*GENERATION_SETTINGS, *CONSTRAINT_SETTINGS]
    for name in settings:
        if name not in known:
            raise ArgumentError(unknown_name("argument", name, [*_OPTIONS, *known]))
    return validate_generation_settings(settings)


_OPTIONS = (
    *("pretrained", "task", "field", "region_format", "device", "dtype"),
    *("hub", "compile", "base", "processor", "batch_size"),
)


def _parse_batch_size(value: int | str) -> int:
    text = str(value)
    if not text.isdecimal() or not int(text):
        raise ArgumentError(f"batch_size must be a number of at least 1, got {shorten(value)}")
    return int(text)


def _batches(settings: Sequence[Mapping[str, Any]], size: int) -> Iterator[list[int]]:
    """Batches of the indices of successive requests with equal settings."""
    for _, group in groupby(range(len(settings)), key=settings.__getitem__):
        rows = list(group)
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


def _single_image(images: Any) -> Any:
    """The image of a document.

    Raises:
        ImageError: if it has none, or several.
    """
    images = list(images) if isinstance(images, (list, tuple)) else [images]
    if len(images) != 1 or images[0] is None:
        raise ImageError(
            f"Florence-2 answers about one image, the document has {len([i for i in images if i is not None])}"
        )
    return images[0]
