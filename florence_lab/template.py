"""Both directions between people's words and the model's tokens.

Forth: a query, with its phrase or region, becomes the prompt that Florence-2 was trained on. Back: the generated tokens
become a typed result in pixels, with a confidence for every instance.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .layout import ADDED_TOKENS, NOT_GROUNDABLE
from .results import Boxes, Polygons, Quads, Result, Text, outlines_extent
from .tasks import Task, get_task, split_query

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedTokenizerBase

BINS = 1000
"""Location tokens a side: the model sees every picture as a grid of 1,000 x 1,000."""

LOCATION_TOLERANCE = 0.25
"""How far, in parts of an instance's extent, a coordinate may be off and still count as right in `instance_score`.

With two opposite sides of a box off by that much, inwards, the intersection over union is 1 - 2 * 0.25 = 0.5: the score speaks
of detections in the sense of IoU 0.5. On 956 detections of florence-2-nano in scenes that it had not seen, the expected
calibration error was 0.075, and 0.106 with 0.15; a larger tolerance gains little.
"""

Region = Sequence[float]
"""(x0, y0, x1, y1) in pixels."""

_LOCATION_NAMES = [f"<loc_{i}>" for i in range(BINS)]
_SEPARATORS = ("<sep>", "<and>", "<poly>", "</poly>")
_SILENT = ("<s>", "</s>", "<pad>")
# What else the vocabulary adds to words. It belongs to no answer, but nothing keeps a model from emitting it.
_IGNORED = sorted({*ADDED_TOKENS, "<unk>", "<mask>", "<image>"}.difference(_LOCATION_NAMES, _SEPARATORS))

_LOCATION = re.compile(r"<loc_(?:0|[1-9][0-9]{0,2})>")
_REGION_TOKENS = re.compile(rf"(?:{_LOCATION.pattern}){{4}}")
_MARKUP = re.compile(f"({'|'.join([_LOCATION.pattern, *_SEPARATORS])})")
_SILENT_MARKUP = re.compile("|".join(_SILENT))
_IGNORED_MARKUP = re.compile("|".join(_IGNORED))
_CHINESE = re.compile(r"[\u3400-\u9fff]")


class Piece(NamedTuple):
    """A run of generated tokens: words, one location token, or one of `<sep> <and> <poly> </poly>`.

    Attributes:
        text: the words, or the token.
        location: 0..999 if it is a location token, else None.
        tokens: the positions of its tokens in the generated sequence.
    """

    text: str
    location: int | None
    tokens: tuple[int, ...]


class TokenProbabilities(NamedTuple):
    """What the model itself thought of T generated tokens, before any processing of the logits.

    Attributes:
        chosen: T float, the probability of the token that stands there.
        locations: T x 1000 float, the probability of each location token at that position.
    """

    chosen: np.ndarray
    locations: np.ndarray


@dataclass
class _Instance:
    """One thing as parsed: a label and the location bins that follow it, still without pixels."""

    label: str
    label_tokens: tuple[int, ...]
    outlines: list[list[Piece]]  # location pieces; one list, or one per polygon
    is_polygon: bool = False

    @property
    def locations(self) -> list[Piece]:
        return [piece for outline in self.outlines for piece in outline]


@dataclass(frozen=True)
class FlorenceTemplate:
    """The words of Florence-2: `prompt` builds what the model reads, `parse` reads what it wrote.

    Attributes:
        tokenizer: the checkpoint's tokenizer; only `parse` and `decode` need it (`parse_text` reads plain strings).
    """

    tokenizer: PreTrainedTokenizerBase | None = field(default=None, repr=False)

    # ------------------------------------------------------------------ people's words -> the prompt

    def prompt(
        self, query: str, text: str | Region | None = None, image_size: tuple[int, int] | None = None
    ) -> tuple[Task, str, str]:
        """The task of a query, the phrase or region that goes into its prompt, and the prompt.

        Args:
            query: a task token, alone or with its phrase behind it (`"<OPEN_VOCABULARY_DETECTION>a sheep"`), or a
                question in your own words.
            text: the phrase, or the region as (x0, y0, x1, y1) in pixels or as four location tokens.
            image_size: (width, height); needed for a region in pixels.

        Raises:
            ValueError: for an unknown task, and for a missing input or one that the task can't take.
        """
        task, phrase = split_query(query)
        beside = "" if text is None else text
        if phrase and not (isinstance(beside, str) and not beside.strip()):
            raise ValueError(f"{_name(task)} got its input twice: {phrase!r} in the query and {beside!r} beside it")
        phrase = _INPUT_READERS[task.input](task, phrase or beside, image_size)
        if _CHINESE.search(phrase):
            warnings.warn(
                f"Florence-2 was not trained on Chinese; the answer to {phrase!r} may be useless", stacklevel=3
            )
        return task, phrase, task.prompt.replace("{input}", phrase)

    # ------------------------------------------------------------------ the model's tokens -> a result

    def parse(
        self,
        token_ids: Iterable[int],
        task: str | Task,
        image_size: tuple[int, int],
        phrase: str = "",
        probabilities: TokenProbabilities | None = None,
        image: Image.Image | None = None,
    ) -> Result:
        """Generated token ids -> a typed result in pixels of an image of (width, height).

        Tolerant of what models really emit: text without boxes and boxes without text, a cut-off last box, start and
        end tokens anywhere, a label in front of several boxes, doubled words and pronouns in grounding.
        """
        ids = [int(i) for i in token_ids]
        return _build_result(
            self._pieces(ids),
            self.decode(ids),
            task,
            image_size,
            phrase=phrase,
            probabilities=probabilities,
            image=image,
        )

    def parse_text(self, raw: str, task: str | Task, image_size: tuple[int, int], phrase: str = "") -> Result:
        """The same for text in Florence-2's grammar, as in a training target: no tokenizer, and no scores."""
        raw = _SILENT_MARKUP.sub("", raw)
        pieces = []
        for i, part in enumerate(filter(None, _MARKUP.split(_IGNORED_MARKUP.sub("", raw)))):
            pieces.append(Piece(part, int(part[5:-1]) if _LOCATION.fullmatch(part) else None, (i,)))
        return _build_result(pieces, raw, task, image_size, phrase=phrase)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text as generated: location tokens and all, without `<s>`, `</s>` and `<pad>`."""
        kept = [i for i in token_ids if i not in self._vocabulary.silent]
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _pieces(self, ids: Sequence[int]) -> list[Piece]:
        """Token ids -> pieces: neighbouring word tokens are decoded together, tokens that say nothing are passed over."""
        vocabulary = self._vocabulary
        pieces: list[Piece] = []
        words: list[int] = []

        def flush() -> None:
            if words:
                text = self.tokenizer.decode([ids[i] for i in words], clean_up_tokenization_spaces=False)
                pieces.append(Piece(text, None, tuple(words)))
                words.clear()

        for position, token_id in enumerate(ids):
            if token_id in vocabulary.markup:
                flush()
                pieces.append(Piece(*vocabulary.markup[token_id], (position,)))
            elif token_id not in vocabulary.ignored:
                words.append(position)
        flush()
        return pieces

    @cached_property
    def _vocabulary(self) -> _Vocabulary:
        return _Vocabulary.of(self.tokenizer)

    @property
    def first_location_id(self) -> int:
        """The id of `<loc_0>`; the other 999 follow it."""
        return self._vocabulary.first_location_id


class _Vocabulary(NamedTuple):
    """Token ids: those without a place in `raw`, those without one in words and labels, and what the others mean."""

    silent: frozenset[int]
    ignored: frozenset[int]
    markup: dict[int, tuple[str, int | None]]
    first_location_id: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> _Vocabulary:
        location_ids = tokenizer.convert_tokens_to_ids(_LOCATION_NAMES)
        first = location_ids[0]
        if location_ids != list(range(first, first + BINS)):
            raise ValueError("this tokenizer has no 1,000 location tokens in a row, so it is none of Florence-2")
        markup: dict[int, tuple[str, int | None]] = {first + i: (name, i) for i, name in enumerate(_LOCATION_NAMES)}
        markup |= {tokenizer.convert_tokens_to_ids(name): (name, None) for name in _SEPARATORS}
        silent = frozenset(tokenizer.convert_tokens_to_ids(list(_SILENT)))
        ignored = frozenset(tokenizer.convert_tokens_to_ids(_IGNORED))
        return cls(silent, silent | ignored, markup, first)


# ---------------------------------------------------------------------- pixels <-> location bins


def to_bins(coordinates: np.ndarray | Sequence, image_size: tuple[int, int]) -> np.ndarray:
    """Pixels -> location bins: `floor(x / side * 1000)`, kept within 0..999. The last axis runs x, y, x, y …

    (The published `quantize`.)
    """
    coordinates = np.asarray(coordinates, np.float64)
    sides = np.resize(np.asarray(image_size, np.float64), coordinates.shape[-1])
    return np.clip(np.floor(coordinates / sides * BINS), 0, BINS - 1).astype(int)


def from_bins(bins: np.ndarray | Sequence, image_size: tuple[int, int]) -> np.ndarray:
    """Location bins -> float64 pixels: bin n stands for its centre, `(n + 0.5) / 1000 * side`."""
    bins = np.asarray(bins, np.float64)
    return (bins + 0.5) / BINS * np.resize(np.asarray(image_size, np.float64), bins.shape[-1])


def location_tokens(coordinates: np.ndarray | Sequence, image_size: tuple[int, int]) -> str:
    """Pixels x, y, x, y … (any shape whose last axis does so) -> `"<loc_12><loc_34>…"`."""
    return "".join(f"<loc_{n}>" for n in to_bins(coordinates, image_size).ravel())


# ---------------------------------------------------------------------- reading the input of a query


def _name(task: Task) -> str:
    return task.token or "a free question"


def _read_nothing(task: Task, given: str | Region, image_size: tuple[int, int] | None) -> str:
    if not isinstance(given, str) or given.strip():
        raise ValueError(f"{task.token} takes no input, but got {given!r}")
    return ""


def _read_phrase(task: Task, given: str | Region, image_size: tuple[int, int] | None) -> str:
    if not isinstance(given, str):
        raise ValueError(f"{_name(task)} takes a phrase, but got {given!r}")
    if not given.strip():
        example = f", as in {task.token}a sheep" if task.token else ""
        raise ValueError(f"{_name(task)} needs a phrase{example}")
    return given.strip()


def _read_region(task: Task, given: str | Region, image_size: tuple[int, int] | None) -> str:
    accepted = "a region: (x0, y0, x1, y1) in pixels, or four location tokens <loc_0> … <loc_999>"
    if isinstance(given, str):
        given = given.strip()
        if not given:
            raise ValueError(f"{task.token} needs {accepted}")
        if not _REGION_TOKENS.fullmatch(given):
            raise ValueError(f"{task.token} takes {accepted}; got {given!r}")
        x0, y0, x1, y1 = map(int, re.findall("[0-9]+", given))
        if x0 > x1 or y0 > y1:
            of = f", of a picture of {image_size[0]} x {image_size[1]}," if image_size else ""
            raise ValueError(f"the region {given}{of} is inside out: x0 <= x1 and y0 <= y1 must hold")
        return given
    try:
        region = np.asarray(given, np.float64)
    except (TypeError, ValueError, OverflowError):
        region = np.empty(0)
    if region.shape != (4,):
        raise ValueError(f"{task.token} takes {accepted}; got {given!r}")
    if image_size is None:
        raise ValueError("a region in pixels needs the image's size")
    _check_region(region, image_size)
    return location_tokens(region, image_size)


def _check_region(region: np.ndarray, image_size: tuple[int, int]) -> None:
    width, height = image_size
    x0, y0, x1, y1 = region.tolist()
    shown = f"the region ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not np.isfinite(region).all():
        raise ValueError(f"{shown} is not made of finite numbers; the picture is {width} x {height}")
    if x1 <= x0 or y1 <= y0:
        raise ValueError(
            f"{shown} has no area or is inside out: x0 < x1 and y0 < y1 must hold; the picture is {width} x {height}"
        )
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        raise ValueError(f"{shown} reaches outside the picture, which is {width} x {height}")


_INPUT_READERS: dict[str, Callable[[Task, Any, Any], str]] = {
    "none": _read_nothing,
    "phrase": _read_phrase,
    "region": _read_region,
}


# ---------------------------------------------------------------------- pieces -> instances


def _groups(pieces: Sequence[Piece]) -> list[tuple[Piece | None, list[Piece]]]:
    """A label (None where there is none) and what follows it up to the next label; labels alone are passed over."""
    groups: list[tuple[Piece | None, list[Piece]]] = []
    for piece in pieces:
        is_words = piece.location is None and piece.text not in _SEPARATORS
        if is_words and piece.text.strip():
            groups.append((piece, []))
        elif not is_words:
            if not groups:
                groups.append((None, []))
            groups[-1][1].append(piece)
    return groups


def _things(body: Sequence[Piece]) -> list[tuple[str, list[list[Piece]]]]:
    """What follows a label: `<and>`, `<poly>` and `</poly>` part things, `<sep>` parts the outlines of one thing.

    Gives the mark in front of each thing ("" where there is none), and its outlines.
    """
    things: list[tuple[str, list[list[Piece]]]] = [("", [[]])]
    for piece in body:
        if piece.location is not None:
            things[-1][1][-1].append(piece)
        elif piece.text == "<sep>":
            things[-1][1].append([])
        else:
            things.append((piece.text, [[]]))
    return things


def _read_boxes(label: Piece | None, mark: str, outlines: list[list[Piece]], coordinates: int = 4) -> list[_Instance]:
    """Every four location tokens are one more box of the label in front of them; a cut-off box is dropped."""
    return [
        _instance(label, [outline[start : start + coordinates]])
        for outline in outlines
        for start in range(0, len(outline) - coordinates + 1, coordinates)
    ]


def _read_quads(label: Piece | None, mark: str, outlines: list[list[Piece]]) -> list[_Instance]:
    return _read_boxes(label, mark, outlines, coordinates=8)


def _read_polygons(label: Piece | None, mark: str, outlines: list[list[Piece]]) -> list[_Instance]:
    # a coordinate without its partner is cut off, and it takes three points to make an outline
    whole = [outline[: len(outline) // 2 * 2] for outline in outlines]
    whole = [outline for outline in whole if len(outline) >= 6]
    return [_instance(label, whole, is_polygon=True)] if whole else []


def _read_either(label: Piece | None, mark: str, outlines: list[list[Piece]]) -> list[_Instance]:
    """Open-vocabulary detection marks its polygons with `<poly>` or `<sep>`; what has no mark is boxes."""
    read = _read_polygons if mark == "<poly>" or len(outlines) > 1 else _read_boxes
    return read(label, mark, outlines)


def _instance(label: Piece | None, outlines: list[list[Piece]], is_polygon: bool = False) -> _Instance:
    return _Instance(label.text.strip() if label else "", label.tokens if label else (), outlines, is_polygon)


def _phrase_of_caption(label: str, caption: str) -> str:
    """A label that is no part of the caption, but for its doubled beginning (`thethe sheeps`), is cut down to that part."""
    caption = caption.lower()
    if label.lower() in caption:
        return label
    for i in range(1, len(label)):
        beginning, rest = label[:i].strip().lower(), label[i:].lower()
        if rest.startswith(beginning) and re.search(rf"\b{re.escape(rest)}", caption):
            return label[i:]
    return label


# ---------------------------------------------------------------------- instances -> results


def _build_result(
    pieces: Sequence[Piece],
    raw: str,
    task: str | Task,
    image_size: tuple[int, int],
    phrase: str = "",
    probabilities: TokenProbabilities | None = None,
    image: Image.Image | None = None,
) -> Result:
    task = task if isinstance(task, Task) else get_task(task)
    common = {
        "raw": raw,
        "image_size": image_size,
        "task": task.token,
        "prompt": task.prompt.replace("{input}", phrase),
        "phrase": phrase,
        "image": image,
    }
    if task.result == "text":
        words = "".join(piece.text for piece in pieces if piece.location is None and piece.text not in _SEPARATORS)
        return Text(text=words.strip(), **common)

    read, build = _PARSERS[task.result]
    instances = [
        instance
        for label, body in _groups(pieces)
        for mark, outlines in _things(body)
        for instance in read(label, mark, outlines)
    ]
    if task.result == "grounding":
        for instance in instances:
            instance.label = _phrase_of_caption(instance.label, phrase)
        instances = [instance for instance in instances if instance.label.lower() not in NOT_GROUNDABLE]
    common["labels"] = tuple(instance.label for instance in instances)
    if probabilities is not None:
        common["scores"] = np.array([_score(instance, probabilities) for instance in instances], np.float64)
    return build(instances, common)


def _pixels(locations: Sequence[Piece], image_size: tuple[int, int]) -> np.ndarray:
    return from_bins([piece.location for piece in locations], image_size)


def _outlines_in_pixels(instance: _Instance, image_size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    return tuple(_pixels(outline, image_size).reshape(-1, 2) for outline in instance.outlines)


def _build_boxes(instances: Sequence[_Instance], common: dict[str, Any]) -> Boxes:
    size = common["image_size"]
    outlines = tuple(_outlines_in_pixels(i, size) if i.is_polygon else () for i in instances)
    # a box is the extent of two corners, of whichever the model named first
    boxes = [outlines_extent(o or _outlines_in_pixels(i, size)) for i, o in zip(instances, outlines, strict=True)]
    return Boxes(boxes=np.array(boxes, np.float64).reshape(-1, 4), polygons=outlines if any(outlines) else (), **common)


def _build_quads(instances: Sequence[_Instance], common: dict[str, Any]) -> Quads:
    quads = [_pixels(i.locations, common["image_size"]) for i in instances]
    return Quads(quads=np.array(quads, np.float64).reshape(-1, 4, 2), **common)


def _build_polygons(instances: Sequence[_Instance], common: dict[str, Any]) -> Polygons:
    return Polygons(polygons=tuple(_outlines_in_pixels(i, common["image_size"]) for i in instances), **common)


_PARSERS: dict[str, tuple[Callable[..., list[_Instance]], Callable[..., Result]]] = {
    "boxes": (_read_boxes, _build_boxes),
    "grounding": (_read_boxes, _build_boxes),
    "boxes_or_polygons": (_read_either, _build_boxes),
    "quads": (_read_quads, _build_quads),
    "polygons": (_read_polygons, _build_polygons),
}


# ---------------------------------------------------------------------- confidence


def instance_score(label_probabilities: np.ndarray, location_probabilities: np.ndarray, bins: np.ndarray) -> float:
    """The confidence of one instance, 0..1: how likely the model itself holds it that label and place are right.

        score = prod(p(label token)) * prod(m_1 … m_n) ** (4 / n)

    where `m_i` is the probability that the model gave, at the place of the i-th coordinate, to all location tokens within
    `LOCATION_TOLERANCE` times the instance's extent (its width for an x, its height for a y) of the one it chose. With
    1,000 bins a side the chosen bin alone has little probability even where the model is sure of the place to a
    few pixels; the sum over the bins that would have done as well is what "the box is right" means at IoU 0.5. The
    power gives the n coordinates of a quad box or a polygon the weight of a box's four. The probabilities are the
    model's own, of the sequence that came out, so the formula is the same for greedy decoding, sampling and beams. A
    label that stands in front of several boxes counts for each. Ours: the published code gives no confidence.

    Args:
        label_probabilities: the probabilities of the label's tokens; empty where there is no label.
        location_probabilities: n x 1000, the probability of each location token at each coordinate.
        bins: n location bins, x, y, x, y …
    """
    bins = np.asarray(bins).reshape(-1, 2)
    tolerance = np.maximum(1, LOCATION_TOLERANCE * (bins.max(axis=0) - bins.min(axis=0)))
    near = np.abs(np.arange(BINS) - bins[..., None]) <= tolerance[:, None]
    masses = (np.asarray(location_probabilities, np.float64) * near.reshape(-1, BINS)).sum(axis=1)
    with np.errstate(divide="ignore"):  # log(0), of a place held impossible
        place = np.exp(4 * np.log(masses).mean())  # the product itself would underflow for a long polygon
    score = np.prod(label_probabilities, dtype=np.float64) * place
    return float(np.clip(score, 0, 1))


def _score(instance: _Instance, probabilities: TokenProbabilities) -> float:
    locations = instance.locations
    at = [piece.tokens[0] for piece in locations]
    return instance_score(
        probabilities.chosen[list(instance.label_tokens)],
        probabilities.locations[at],
        np.array([piece.location for piece in locations]),
    )
