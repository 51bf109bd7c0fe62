"""Requests and responses of ms-swift 3 and 4. The responses have the fields of OpenAI's chat completions."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from ..argument_validation import Range, validate_fields, validate_text
from ..exceptions import ArgumentError, ArgumentTypeError, shorten

if TYPE_CHECKING:
    from ..results import Result
    from ..template.locations import Region

_BASE64_RE = re.compile(r"[A-Za-z0-9+/\s]+={0,2}")
_MIN_BASE64_LENGTH = 200  # shorter texts are paths

IMAGE_TAG, REFERENCE_TAG, BOX_TAG = "<image>", "<ref-object>", "<bbox>"

FinishReason = Literal["stop", "length"]
"""Why an answer ends: with its end token, or at its longest permitted length."""


class Question(NamedTuple):
    """What a request asks: an image, and a task with its phrase or region, as in `Predictor.predict`."""

    image: Any
    task: str
    text: str | Region | None


@dataclass
class InferRequest:
    """A request: one query about one image.

    Attributes:
        messages: `[{"role": "user", "content": "<image><OD>"}]`. `<image>` may be left out. The content may also be a list of
            parts, `{"type": "image", "image": source}` and `{"type": "text", "text": "<OD>"}`. An answer of the role
            "assistant" at the end, as in training data, is not read.
        images: one path, URL or image, if the messages contain none.
        objects: `{"ref": [phrase], "bbox": [[x0, y0, x1, y1]]}`, in pixels: what stands for `<ref-object>` and `<bbox>` in
            the content.
        audios, videos, tools, chat_template_kwargs: must be empty; Florence-2 reads one image.

    Raises:
        ArgumentTypeError: for fields of other types.
    """

    messages: list[dict[str, Any]]
    images: list[Any] = field(default_factory=list)
    audios: list[Any] = field(default_factory=list)
    videos: list[Any] = field(default_factory=list)
    tools: list[Any] | None = None
    objects: dict[str, Any] = field(default_factory=dict)
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("images", "audios", "videos"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, [getattr(self, name)])
        validate_fields(self)
        for name in ("messages", "images", "audios", "videos", "tools"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple, type(None))):  # an array is one image
                raise ArgumentTypeError(f"{name} must be a list, got {shorten(value)}")

    def parse(self) -> Question:
        """Return the image, task and input of the request.

        Raises:
            ArgumentError: for what Florence-2 cannot read: several images, several turns, a system prompt, tools, audio or video.
        """
        for name in ("audios", "videos", "tools", "chat_template_kwargs"):
            if getattr(self, name):
                raise ArgumentError(f"{name} cannot be used: Florence-2 reads one image and one query")
        text, images = _split_content(self._user_content())
        images = [*images, *self.images]
        if len(images) != 1:
            raise ArgumentError(f"a request needs one image, got {len(images)}")
        task, phrase_or_region = _insert_objects(_without_image_tag(text), self.objects)
        return Question(_to_source(images[0]), task, phrase_or_region)

    def _user_content(self) -> Any:
        """The content of the only turn of the user."""
        messages = list(self.messages)
        for message in messages:
            role = message.get("role")
            if not (isinstance(role, str) and role in ("system", "user", "assistant") and "content" in message):
                raise ArgumentError(f"a message needs role (user) and content, got {shorten(message)}")
        if any(message["role"] == "system" for message in messages):
            raise ArgumentError("a message has the role system, but Florence-2 reads no system prompt")
        if messages and messages[-1]["role"] == "assistant":
            messages.pop()
        if len(messages) != 1 or messages[0]["role"] != "user":
            raise ArgumentError(f"messages must be one turn of the user, got {shorten(self.messages)}")
        return messages[0]["content"]


@dataclass
class RequestConfig:
    """Settings of generation, with the names of ms-swift.

    Attributes:
        max_tokens: longest answer in tokens; None is the checkpoint's.
        temperature: 0 and None decode without sampling, other values sample.
        top_k, top_p, min_p: restrict sampling.
        repetition_penalty, length_penalty: as in transformers.
        num_beams: 1 decodes greedily. (`Predictor.predict` has the checkpoint's number of beams as default.)
        seed: seed of sampling.
        stream: return iterators of growing answers.
        stop, logprobs, top_logprobs, n, best_of, presence_penalty, frequency_penalty, return_details,
            structured_outputs_regex: accepted with their defaults only.

    Raises:
        ArgumentError: for a value out of its range, restricted sampling without a temperature, and options that do not apply.
    """

    max_tokens: Annotated[int, Range(1)] | None = None
    temperature: Annotated[float, Range(0)] | None = None
    top_k: Annotated[int, Range(1)] | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    num_beams: int = 1
    stop: list[str] | None = field(default_factory=list)
    seed: int | None = None
    stream: bool = False
    logprobs: bool = False
    top_logprobs: int | None = None
    prompt_logprobs: int | None = None
    n: int = 1
    best_of: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    length_penalty: float = 1.0
    return_details: bool = False
    structured_outputs_regex: str | None = None

    def __post_init__(self) -> None:
        validate_fields(self)
        defaults = {item.name: item.default for item in fields(self)} | {"stop": []}
        for name in _NOT_OFFERED:
            value = getattr(self, name)
            if value not in (defaults[name], None):
                raise ArgumentError(f"{name}={shorten(value)} is not offered; {_NOT_OFFERED[name]}")
        if self.stream and self.num_beams != 1:
            raise ArgumentError(f"stream=True requires num_beams=1, got {self.num_beams}")
        for name in ("top_p", "min_p", "top_k"):
            if getattr(self, name) is not None and self.temperature is None:
                raise ArgumentError(
                    f"{name}={getattr(self, name)} restricts sampling, which requires a temperature above 0"
                )

    @property
    def is_sampling(self) -> bool:
        """Whether tokens are drawn at random."""
        return bool(self.temperature) and self.top_k != 1

    def generate_kwargs(self) -> dict[str, Any]:
        """Return the arguments of transformers' `generate`."""
        kwargs: dict[str, Any] = {"num_beams": self.num_beams, "do_sample": self.is_sampling}
        if self.num_beams > 1 and self.length_penalty != 1:
            kwargs["length_penalty"] = self.length_penalty
        optional = {"max_new_tokens": self.max_tokens, "repetition_penalty": self.repetition_penalty}
        if self.is_sampling:
            optional |= {name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "min_p")}
        return kwargs | {name: value for name, value in optional.items() if value is not None}


_NOT_OFFERED = {
    "stop": "an answer ends with the token that the checkpoint defines",
    "logprobs": "florence_lab.trace shows the probabilities of tokens",
    "top_logprobs": "florence_lab.trace shows the probabilities of tokens",
    "prompt_logprobs": "the encoder predicts no tokens",
    "n": "repeat the request for several answers",
    "best_of": "num_beams selects the best of several answers",
    "presence_penalty": "use repetition_penalty",
    "frequency_penalty": "use repetition_penalty",
    "return_details": "the tokens are part of response.result.raw",
    "structured_outputs_regex": "the form of an answer follows from its task",
}
"""Field of `RequestConfig` -> what to use instead."""


@dataclass
class UsageInfo:
    """Numbers of tokens, counted in the text: image tokens and prompt, answer, and both."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass
class ChatMessage:
    """A message."""

    role: str
    content: str


@dataclass
class DeltaMessage:
    """What a message has grown by."""

    role: str | None = None
    content: str | None = None


@dataclass
class ChatCompletionResponseChoice:
    """An answer."""

    index: int
    message: ChatMessage
    finish_reason: FinishReason | None


@dataclass
class ChatCompletionResponseStreamChoice:
    """What an answer has grown by. `finish_reason` is None until it is complete."""

    index: int
    delta: DeltaMessage
    finish_reason: FinishReason | None


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def _now() -> int:
    return int(time.time())


@dataclass
class ChatCompletionResponse:
    """The response to a request.

    Attributes:
        model: name of the model.
        choices: one answer. Its content is the JSON of what the published `post_process_generation` returns, as in ms-swift.
        usage: numbers of tokens.
        result: the parsed answer of `Predictor.predict`, with scores.
        id, object, created: as in OpenAI's responses.
    """

    model: str
    choices: list[ChatCompletionResponseChoice]
    usage: UsageInfo
    result: Result | None = field(default=None, repr=False)
    id: str = field(default_factory=_new_id)
    object: str = "chat.completion"
    created: int = field(default_factory=_now)


@dataclass
class ChatCompletionStreamResponse:
    """A part of a response. Joined, the `delta.content` of all parts are the content of the response.

    A text grows word by word. The content of instances is in the last part, while `result` has those found so far.
    """

    model: str
    choices: list[ChatCompletionResponseStreamChoice]
    usage: UsageInfo | None = None
    result: Result | None = field(default=None, repr=False)
    id: str = field(default_factory=_new_id)
    object: str = "chat.completion.chunk"
    created: int = field(default_factory=_now)


def _split_content(content: Any) -> tuple[str, list[Any]]:
    """The text of a content and the images in its parts."""
    if isinstance(content, str):
        return validate_text("content", content), []
    if not isinstance(content, (list, tuple)):
        raise ArgumentTypeError(f"content must be a string or a list of parts, got {shorten(content)}")
    texts: list[str] = []
    images: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str):
            kind = ""
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(validate_text("content", part["text"]))
        elif kind in ("image", "image_url") and part.get(kind) is not None:
            value = part[kind]
            images.append(value["url"] if isinstance(value, Mapping) and "url" in value else value)
        else:
            raise ArgumentError(
                f'a part must be {{"type": "text", "text": …}} or {{"type": "image", "image": …}}, got {shorten(part)}'
            )
    return "".join(texts), images


def _without_image_tag(text: str) -> str:
    """The query without `<image>` before or behind it."""
    stripped = text.strip()
    is_first = stripped.startswith(IMAGE_TAG)
    stripped = stripped.removeprefix(IMAGE_TAG) if is_first else stripped.removesuffix(IMAGE_TAG)
    if IMAGE_TAG in stripped:
        raise ArgumentError(f"{IMAGE_TAG} must stand once, before the query, got {shorten(text)}")
    return stripped.strip()


def _insert_objects(query: str, objects: Mapping[str, Any]) -> tuple[str, str | Region | None]:
    """A query and its region, with the phrases and the box of `objects` for their tags."""
    unknown = [name for name in objects if name not in ("ref", "bbox")]
    if unknown:
        raise ArgumentError(f"objects has {', '.join(map(str, unknown))}; only ref and bbox can be used")
    references, boxes = ([] if objects.get(name) is None else objects[name] for name in ("ref", "bbox"))
    for name, tag, values in (("ref", REFERENCE_TAG, references), ("bbox", BOX_TAG, boxes)):
        if not isinstance(values, (list, tuple)) or len(values) != query.count(tag):
            raise ArgumentError(
                f"objects[{name!r}] must have one value for each {tag} in the query, got {shorten(values)}"
            )
    for reference in references:
        if not isinstance(reference, str):
            raise ArgumentTypeError(f"objects['ref'] must be strings, got {shorten(reference)}")
        query = query.replace(REFERENCE_TAG, validate_text("ref", reference), 1)
    if not boxes:
        return query, None
    if len(boxes) > 1:
        raise ArgumentError(f"a query has one region, got {len(boxes)}")
    task = query.replace(BOX_TAG, "").strip()
    if not isinstance(boxes[0], (list, tuple)):
        raise ArgumentTypeError(f"objects['bbox'] must be lists of x0, y0, x1, y1, got {shorten(boxes[0])}")
    return task, tuple(boxes[0])


def _to_source(image: Any) -> Any:
    """A source that `load_image` reads.

    `{"bytes": …, "path": …}`, as datasets store images, is one of the two. A long text of base64 characters is the content of
    a file.
    """
    if isinstance(image, Mapping):
        found = [image[key] for key in ("bytes", "path") if image.get(key) is not None]
        return found[0] if found else None
    if isinstance(image, str) and len(image) > _MIN_BASE64_LENGTH and _BASE64_RE.fullmatch(image):
        return f"data:image/png;base64,{image}"
    return image
