"""`PtEngine` and `TransformersEngine`, the engines of ms-swift 3 and 4."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from transformers import Florence2ForConditionalGeneration, Florence2Processor, PreTrainedTokenizerBase

from ..argument_validation import Range, validate_arguments
from ..exceptions import ArgumentError, ArgumentTypeError, FlorenceLabError, ImageError, PromptError, shorten
from ..predictor import Predictor, load
from ..results import Result, Text
from ..template.prompts import build_prompt
from ..template.template import FlorenceTemplate
from .functions import TEMPLATE_TYPE, device_from_map, predictor_from, seed_everything
from .protocol import (
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
    ChatMessage,
    DeltaMessage,
    FinishReason,
    InferRequest,
    Question,
    RequestConfig,
    UsageInfo,
)

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TransformersEngine:
    """Answers requests with a model.

    Attributes:
        predictor: the model with its processor and template.
        max_batch_size: requests that are answered together; 0 is all of them.
        strict: raise the exception of a request that cannot be answered (the default). False puts it in the place of its
            response, and the other requests are answered.
    """

    @validate_arguments
    def __init__(
        self,
        model: Any,
        *,
        template: FlorenceTemplate | None = None,
        adapters: str | Path | Sequence[str | Path] | None = None,
        max_batch_size: Annotated[int, Range(0)] = 16,
        torch_dtype: torch.dtype | str | None = None,
        model_type: str | None = None,
        device_map: Any = None,
        use_hf: bool | None = None,
        template_type: str | None = None,
    ) -> None:
        """Load a model.

        Args:
            model: a name, a checkpoint folder or a hub id, as in `load`; a `Predictor`; or a model, with its `template`.
            template: of a model that is loaded, from `get_template`.
            adapters: a LoRA adapter on `model`, or a list of one.
            max_batch_size: requests that are answered together; 0 is all of them.
            torch_dtype: as `dtype` of `load`; None is float32.
            model_type: None or "florence"; a checkpoint says what it is.
            device_map: a device, see `load`; None and "auto" select it.
            use_hf: True downloads from Hugging Face, False from ModelScope; None as `load`.
            template_type: None or "florence".

        Raises:
            ArgumentError: for several adapters, or another template.
            HubError, CheckpointError: as `load`.
        """
        for name, value in (("model_type", model_type), ("template_type", template_type)):
            if value not in (None, TEMPLATE_TYPE):
                raise ArgumentError(f"{name} must be {TEMPLATE_TYPE!r} or None, got {shorten(value)}")
        names = [adapters] if isinstance(adapters, (str, Path)) else list(adapters or ())
        if len(names) > 1:
            raise ArgumentError(f"one adapter can be loaded, got {len(names)}")
        self.strict = True
        self.max_batch_size = max_batch_size
        if isinstance(model, (str, Path)):
            options: dict[str, Any] = {"base": model} if names else {}
            hub = None if use_hf is None else "hf" if use_hf else "modelscope"
            dtype = "fp32" if torch_dtype is None else torch_dtype
            source = names[0] if names else model
            self.predictor = load(source, device_from_map(device_map), dtype, hub, **options)
        elif names:
            raise ArgumentError("adapters are loaded with the name of a model, not with a model")
        elif isinstance(model, Predictor):
            self.predictor = model
        elif template is not None:
            self.predictor = predictor_from(model, template)
        else:
            raise ArgumentTypeError(
                f"model must be a name, a folder, a Predictor, or a model with template=, got {shorten(model)}"
            )

    @property
    def model(self) -> Florence2ForConditionalGeneration:
        """transformers' model."""
        return self.predictor.model

    @property
    def processor(self) -> Florence2Processor:
        """transformers' processor."""
        return self.predictor.processor

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """transformers' tokenizer."""
        return self.predictor.processor.tokenizer

    @property
    def template(self) -> FlorenceTemplate:
        """The template of the model."""
        return self.predictor.template

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.predictor!r})"

    @validate_arguments
    def infer(
        self,
        infer_requests: Sequence[InferRequest],
        request_config: RequestConfig | None = None,
        metrics: Sequence[Any] | None = None,
        *,
        use_tqdm: bool | None = None,
    ) -> list[Any]:
        """Answer requests, with the same answers as one by one.

        Args:
            infer_requests: N requests.
            request_config: settings of generation.
            metrics: objects whose `update` is called with each response.
            use_tqdm: accepted for compatibility; `Predictor` shows its own progress.

        Returns:
            N `ChatCompletionResponse`s; with `stream=True`, N iterators of `ChatCompletionStreamResponse`s. If `strict` is
            False, the exception of a request that cannot be answered is in place of its response.

        Raises:
            ArgumentError: for a request that Florence-2 cannot read, before the model runs.
            PromptError, ImageError: as `Predictor.predict`.
        """
        config = RequestConfig() if request_config is None else request_config
        observers = [] if metrics is None else list(metrics)
        questions = [self._parse(request) for request in infer_requests]
        if config.stream:
            return [self._stream(item, config, observers) if isinstance(item, Question) else item for item in questions]
        if config.seed is not None:
            seed_everything(config.seed)
        outcomes = self._predict(questions, config)
        for outcome in outcomes:
            if self.strict and isinstance(outcome, Exception):
                raise outcome
        responses = [item if isinstance(item, Exception) else self._to_response(item) for item in outcomes]
        _update_metrics(observers, responses)
        return responses

    def _parse(self, request: InferRequest) -> Question | FlorenceLabError:
        if not isinstance(request, InferRequest):
            raise ArgumentTypeError(f"infer_requests must be InferRequests, got {shorten(request)}")
        try:
            return request.parse()
        except ArgumentError as error:
            if self.strict:
                raise
            return error

    def _predict(self, questions: Sequence[Question | FlorenceLabError], config: RequestConfig) -> list[Any]:
        """The result or exception of each question, in batches of the same image or of the same task."""
        outcomes: list[Any] = list(questions)
        asked = {row: _split_task(item) for row, item in enumerate(questions) if isinstance(item, Question)}
        by_image = _group(asked, lambda question: _image_key(question.image))
        by_task = _group(asked, lambda question: (question.task, question.text is None))
        answer, groups = (self._ask_image, by_image) if len(by_image) < len(by_task) else (self._ask_task, by_task)
        for rows in groups:
            found = answer([asked[row] for row in rows], config.generate_kwargs())
            for row, outcome in zip(rows, found, strict=True):
                outcomes[row] = outcome
        return outcomes

    def _ask_task(self, questions: Sequence[Question], kwargs: dict[str, Any]) -> list[Any]:
        """The outcomes of questions with the same task."""
        task, text = questions[0].task, questions[0].text
        texts = None if text is None else [question.text for question in questions]
        images = [question.image for question in questions]
        try:
            return list(
                self.predictor.predict_batch(images, task, cast(Any, texts), self._batch_size(images), **kwargs)
            )
        except PromptError as error:  # of one question, or of all of them
            if len(questions) == 1:
                return [error]
            return [self._ask_task([question], kwargs)[0] for question in questions]

    def _ask_image(self, questions: Sequence[Question], kwargs: dict[str, Any]) -> list[Any]:
        """The outcomes of questions about the same image, which is encoded once."""
        try:
            image = self.predictor.encode_image(questions[0].image)
        except ImageError as error:
            return [error] * len(questions)
        tasks = [(question.task, question.text) for question in questions]
        try:
            return list(self.predictor.predict_tasks(image, tasks, self._batch_size(tasks), **kwargs))
        except PromptError as error:
            if len(questions) == 1:
                return [error]
            return [self._ask_image([question._replace(image=image)], kwargs)[0] for question in questions]

    def _batch_size(self, items: Sequence[Any]) -> int:
        return self.max_batch_size or len(items)

    def _stream(
        self, question: Question, config: RequestConfig, metrics: Sequence[Any]
    ) -> Iterator[ChatCompletionStreamResponse]:
        if config.seed is not None:
            seed_everything(config.seed)
        results = self.predictor.stream(*question, **config.generate_kwargs())
        yield from self._to_stream(results, metrics)

    def _to_stream(self, results: Iterable[Result], metrics: Sequence[Any]) -> Iterator[ChatCompletionStreamResponse]:
        response = ChatCompletionStreamResponse(self.predictor.name, [])
        shown, previous = "", None
        for result in results:
            if previous is not None:
                content = _growing_content(previous)
                new = content[len(shown) :] if content.startswith(shown) else ""
                shown += new
                yield self._to_part(response.id, response.created, previous, new, None)
            previous = result
        if previous is not None:
            content = _content(previous)
            new = content[len(shown) :] if content.startswith(shown) else ""
            part = self._to_part(response.id, response.created, previous, new, _finish_reason(previous))
            yield part
            _update_metrics(metrics, [part])

    def _to_part(
        self, id: str, created: int, result: Result, content: str, finish_reason: FinishReason | None
    ) -> ChatCompletionStreamResponse:
        choice = ChatCompletionResponseStreamChoice(0, DeltaMessage("assistant", content), finish_reason)
        return ChatCompletionStreamResponse(
            self.predictor.name, [choice], self._count_tokens(result), result, id, created=created
        )

    def _to_response(self, result: Result) -> ChatCompletionResponse:
        choice = ChatCompletionResponseChoice(0, ChatMessage("assistant", _content(result)), _finish_reason(result))
        return ChatCompletionResponse(self.predictor.name, [choice], self._count_tokens(result), result)

    def _count_tokens(self, result: Result) -> UsageInfo:
        prompt = self.processor.num_image_tokens + len(self.tokenizer(result.prompt).input_ids)
        answer = len(self.tokenizer(result.raw, add_special_tokens=False).input_ids)
        return UsageInfo(prompt, answer, prompt + answer)


class PtEngine(TransformersEngine):
    """`TransformersEngine` with the name and the order of arguments of ms-swift 3."""

    def __init__(
        self, model_id_or_path: str | Path | Predictor, torch_dtype: torch.dtype | str | None = None, **options: Any
    ) -> None:
        """Load a model. Arguments and errors as `TransformersEngine`."""
        super().__init__(model_id_or_path, torch_dtype=torch_dtype, **options)


def _content(result: Result) -> str:
    answer = result.to_dict()
    for value in answer.values():
        if isinstance(value, dict):
            value.pop("scores", None)  # the published form has none
    return json.dumps(answer)


def _growing_content(result: Result) -> str:
    """The part of `_content` that does not change when a text grows; nothing for instances."""
    if not isinstance(result, Text) or result.raw.endswith(_REPLACEMENT):  # a part of a character
        return ""
    return _content(result).removesuffix('"}')


def _finish_reason(result: Result) -> FinishReason:
    return "length" if result.truncated else "stop"


def _update_metrics(metrics: Iterable[Any], responses: Iterable[Any]) -> None:
    for metric in metrics:
        for response in responses:
            if not isinstance(response, Exception):
                metric.update(response)


def _image_key(image: Any) -> Hashable:
    return image if isinstance(image, (str, Path)) else id(image)


def _split_task(question: Question) -> Question:
    """The question with its task token apart from its phrase, so that questions of one task form a batch."""
    try:
        prompt = build_prompt(question.task, question.text, warn_of_language=False)
    except PromptError:  # reported when it is answered
        return question
    if not prompt.task.token:
        return question
    is_region = question.text is not None and not isinstance(question.text, str)
    return question._replace(task=prompt.task.token, text=question.text if is_region else prompt.text or None)


def _group(questions: dict[int, Question], key: Callable[[Question], Hashable]) -> list[list[int]]:
    """The rows of the questions with the same key."""
    groups: dict[Hashable, list[int]] = {}
    for row, question in questions.items():
        groups.setdefault(key(question), []).append(row)
    return list(groups.values())
