"""What the panel does, without a widget: pictures, questions, answers, and the predictors that are kept loaded."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from PIL import Image

from ..catalog import MODELS
from ..draw import gallery, to_png
from ..hub import resolve
from ..images import ImageError, load_image
from ..predictor import EncodedImage, Predictor, load
from ..results import Result
from ..scenes import draw_scene, sample_path
from ..tasks import TASKS, Task
from ..template import FlorenceTemplate, Region
from .listening import listening

PREVIEW_SIDE = 640  # pixels
GALLERY_COLUMNS = 4  # of the eight tasks: two rows, to be seen on a screen together with the table
SHELF_ROOM = 2  # predictors; the largest takes 3 GB in fp32

ALL_TASKS = Task("all-tasks", "", "none", "text", "captions, boxes and text, all after one look")
"""None of the model's own: stands for all of its tasks that take nothing but the picture."""


class Stopped(Exception):
    """Nobody wants the answer any more."""


# ---------------------------------------------------------------------- pictures


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture to ask about.

    Attributes:
        image: upright RGB.
        name: what people call it; also the stem of downloads.
        code: the Python expression that gives it, for `Predictor.predict`.
        is_scene: whether it is of the cartoon world, the only one that the models that ship know.
        is_kept: whether `code` names a file that goes with the panel.
        encoded: what each predictor's vision tower has made of it so far.
    """

    image: Image.Image
    name: str
    code: str
    is_scene: bool = False
    is_kept: bool = False
    encoded: WeakKeyDictionary[Predictor, EncodedImage] = field(default_factory=WeakKeyDictionary, repr=False)

    @cached_property
    def preview(self) -> bytes:
        """A PNG of at most 640 pixels a side."""
        small = self.image.copy()
        small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        file = io.BytesIO()
        small.save(file, "PNG")
        return file.getvalue()


@cache  # as many as there are samples
def sample_picture(name: str) -> Picture:
    """One of the sample pictures; the same object each time, so that it is encoded once."""
    return Picture(load_image(sample_path(name)), name, f"florence_lab.scenes.sample_path({name!r})", True)


@lru_cache(maxsize=8)
def scene_picture(seed: int) -> Picture:
    """The scene of a seed."""
    return Picture(draw_scene(seed).image, f"scene-{seed}", f"florence_lab.scenes.draw_scene({seed}).image", True)


def opened_picture(source: str) -> Picture:
    """The picture at a path or URL.

    Raises:
        ImageError: if there is none.
    """
    source = source.strip().strip("\"'")  # file managers copy paths in quotes
    if not source:
        raise ImageError("no path or URL was given")
    image = load_image(source)
    is_sample = "://" not in source and Path(source).expanduser().resolve().parent == sample_path("sheep").parent
    return Picture(image, Path(source.split("?")[0]).stem or "picture", repr(source), is_sample)


def kept_picture(source: Any, name: str, folder: Path) -> Picture:
    """A picture that has no path of its own (an upload, an array …), written into a folder as a PNG for `code` to name.

    Raises:
        ImageError: if `source` is none; it is called by `name` then.
    """
    try:
        image = load_image(source)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    mark = hashlib.sha256(image.tobytes()).hexdigest()[:8]
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(name).stem)[:40] or "picture"
    path = folder / f"{stem}-{mark}.png"
    image.save(path)
    return Picture(image, stem, repr(str(path)), is_kept=True)


# ---------------------------------------------------------------------- questions and answers


@dataclass(frozen=True, eq=False)
class Question:
    """What a person asked for.

    Attributes:
        task, text: as `Predictor.predict` takes them; or `ALL_TASKS`, and None.
        models: to ask, in order.
        compiled: whether they are to be compiled.
    """

    picture: Picture
    task: str
    text: str | Region | None
    models: tuple[str, ...]
    compiled: bool = False

    @property
    def tasks(self) -> list[str]:
        """The tokens of the tasks that it is about."""
        alone = [token for token, task in TASKS.items() if task.input == "none"]
        return alone if self.task == ALL_TASKS.token else [self.task]

    def check(self) -> str:
        """Finds out, before a model is loaded, whether it can be asked; a warning about it comes back as text.

        Raises:
            ValueError: as `FlorenceTemplate.prompt`.
        """
        with listening() as heard:
            template = FlorenceTemplate()
            for task in self.tasks:
                template.prompt(task, self.text, self.picture.image.size)
        return "; ".join(heard)


@dataclass(frozen=True, eq=False)
class _Reply:
    """What both kinds of answers have.

    Attributes:
        image_seconds: what the vision tower took; None if it had encoded the picture before.
        text_seconds: what reading the prompt and writing the answer took, without the time to draw it.
        whole: whether this is all of it.
    """

    question: Question
    model: str
    image_seconds: float | None
    text_seconds: float
    whole: bool

    @property
    def stem(self) -> str:
        """For the names of its files."""
        return f"{self.question.picture.name}-{self.question.task.strip('<>') or 'question'}"

    def _lines(self, call: str) -> str:
        """Three lines of Python, the last of which calls the predictor."""
        compiled = ", compile=True" if self.question.compiled else ""
        return f"import florence_lab\npredictor = florence_lab.load({self.model!r}{compiled})\npredictor.{call}"

    def _source(self, result: Result) -> dict[str, Any]:
        """Who said it of what, for a file."""
        return {"model": self.model, "image": {"name": self.question.picture.name, "size": result.image_size}}


@dataclass(frozen=True, eq=False)
class Answer(_Reply):
    """What one model has said so far to one question."""

    result: Result

    @property
    def has_scores(self) -> bool:
        """Whether a threshold makes a difference."""
        return getattr(self.result, "scores", None) is not None

    @property
    def count(self) -> int:
        """Instances; 0 for a text."""
        return len(getattr(self.result, "labels", ()))

    def shown(self, threshold: float = 0.0) -> Result:
        """The result without the instances below a confidence."""
        return self.result.above(threshold) if threshold and self.has_scores else self.result

    def hidden(self, threshold: float) -> str:
        """How many instances `shown` leaves out, in words; "" for none."""
        left = len(self.shown(threshold).labels) if self.has_scores else self.count
        return f"{self.count - left} of {self.count} less sure, hidden" if left < self.count else ""

    def overlay(self, threshold: float = 0.0) -> bytes:
        """A PNG of the picture with `shown(threshold)`."""
        return to_png(self.result.image, self.shown(threshold))

    def code(self, threshold: float = 0.0) -> str:
        """Three lines of Python that give `shown(threshold)` again."""
        text = "" if self.question.text is None else f", {self.question.text!r}"
        above = f".above({threshold:g})" if self.shown(threshold) is not self.result else ""
        return self._lines(f"predict({self.question.picture.code}, {self.question.task!r}{text}, num_beams=1){above}")

    def files(self, threshold: float = 0.0) -> dict[str, tuple[str, bytes]]:
        """What a person may take home: file name -> (MIME type, content)."""
        result, stem = self.shown(threshold), self.stem
        coco = result.to_coco(file_name=self.question.picture.name)
        return {
            f"{stem}.png": ("image/png", self.overlay(threshold)),
            f"{stem}.json": ("application/json", _json(self._source(result) | _told(result))),
            f"{stem}-coco.json": ("application/json", _json(coco)),
        }


@dataclass(frozen=True, eq=False)
class Answers(_Reply):
    """What one model has said to `ALL_TASKS`: nothing yet, or everything. No threshold makes a difference."""

    results: list[Result]
    has_scores = False

    @property
    def count(self) -> int:
        """Results."""
        return len(self.results)

    def shown(self, threshold: float = 0.0) -> list[Result]:
        return self.results

    def hidden(self, threshold: float) -> str:
        return ""

    def overlay(self, threshold: float = 0.0) -> bytes:
        """A PNG of all results side by side."""
        return self._sheet

    @cached_property
    def _sheet(self) -> bytes:
        return gallery([(result.image, result) for result in self.results], GALLERY_COLUMNS)._repr_png_()

    def code(self, threshold: float = 0.0) -> str:
        """Three lines of Python that give the results again."""
        return self._lines(f"predict_many({self.question.picture.code}, {self.question.tasks}, num_beams=1)")

    def files(self, threshold: float = 0.0) -> dict[str, tuple[str, bytes]]:
        """What a person may take home: file name -> (MIME type, content)."""
        told = self._source(self.results[0]) | {"answers": [_told(result) for result in self.results]}
        return {
            f"{self.stem}.png": ("image/png", self.overlay()),
            f"{self.stem}.json": ("application/json", _json(told)),
        }


def _told(result: Result) -> dict[str, Any]:
    """One result, for a file."""
    words = {name: getattr(result, name) for name in ("task", "phrase", "prompt", "raw")}
    return words | {"result": result.to_dict()}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


_COMPUTING = threading.Lock()  # one answer at a time: two would only slow each other down


def ask(
    question: Question, model: str, predictor: Predictor, stop: threading.Event
) -> Iterator[Answer] | Iterator[Answers]:
    """Growing answers of one model; the last is whole. The picture is encoded unless this predictor has done so before.

    Raises:
        Stopped: soon after `stop` is set, whatever the model is at; only a compiled tower ends its look first.
        ValueError: as `Predictor.stream`.
    """
    with _COMPUTING, _stoppable(predictor, stop):
        seconds = _look(question.picture, predictor)
        answered = _answer_together if question.task == ALL_TASKS.token else _answer_growing
        yield from answered(question, model, predictor, seconds)


def _look(picture: Picture, predictor: Predictor) -> float | None:
    """Has the picture encoded; the seconds it took, None if it was before."""
    if predictor in picture.encoded:
        return None
    start = time.perf_counter()
    with listening():  # `what_it_knows` has told already
        picture.encoded[predictor] = predictor.encode_image(picture.image)
    return time.perf_counter() - start


def _answer_growing(
    question: Question, model: str, predictor: Predictor, image_seconds: float | None
) -> Iterator[Answer]:
    with listening():  # `Question.check` has told already
        growing = predictor.stream(question.picture.encoded[predictor], question.task, question.text)
    seconds, result, whole = 0.0, None, False
    while not whole:
        start = time.perf_counter()
        grown = next(growing, None)
        seconds += time.perf_counter() - start
        result, whole = result if grown is None else grown, grown is None
        yield Answer(question, model, image_seconds, seconds, whole, result)


def _answer_together(
    question: Question, model: str, predictor: Predictor, image_seconds: float | None
) -> Iterator[Answers]:
    yield Answers(question, model, image_seconds, 0.0, False, [])
    start = time.perf_counter()
    results = predictor.predict_many(question.picture.encoded[predictor], question.tasks, num_beams=1)
    yield Answers(question, model, image_seconds, time.perf_counter() - start, True, results)


@contextmanager
def _stoppable(predictor: Predictor, stop: threading.Event) -> Iterator[None]:
    """Has the model look at `stop` before each of its layers and each word: a large one takes seconds until its first."""

    def look(*_: Any) -> None:
        if stop.is_set():
            raise Stopped

    stacks = [module for module in predictor.model.modules() if isinstance(module, torch.nn.ModuleList)]
    layers = [*(layer for stack in stacks for layer in stack), predictor.model.lm_head]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        look()
        yield
    finally:
        for hook in hooks:
            hook.remove()


# ---------------------------------------------------------------------- predictors


_Key = tuple[str, bool, float]  # a model, whether it is compiled, and when it was written


class Shelf:
    """The predictors used last. One that is being loaded is waited for, and never loaded twice."""

    def __init__(self, room: int = SHELF_ROOM) -> None:
        self.room = room
        self._lock = threading.Lock()
        self._loads: OrderedDict[_Key, Future[Predictor]] = OrderedDict()
        self._warnings: WeakKeyDictionary[Predictor, str] = WeakKeyDictionary()

    def get(self, model: str, compiled: bool = False) -> Predictor:
        """The predictor of that name, loaded by now or before; raises what `florence_lab.load` does."""
        key = (model, compiled, _changed(model))
        with self._lock:
            known = self._loads.get(key)
            if known is None:
                known = self._loads[key] = Future()
                threading.Thread(target=self._load, args=(key, known), daemon=True).start()
            self._loads.move_to_end(key)
            self._make_room()
        return known.result()

    def holds(self, model: str, compiled: bool = False) -> bool:
        """Whether `get` would answer at once."""
        load = self._loads.get((model, compiled, _changed(model)))
        return load is not None and load.done()

    def warning(self, predictor: Predictor) -> str:
        """What the loading of a predictor warned of, so that everybody who asks it is told; "" for nothing."""
        return self._warnings.get(predictor, "")

    def _make_room(self) -> None:
        done = [key for key, load in self._loads.items() if load.done()]
        for key in done[: max(0, len(self._loads) - self.room)]:
            del self._loads[key]

    def _load(self, key: _Key, outcome: Future[Predictor]) -> None:
        model, compiled, _ = key
        try:
            resolve(model)  # may wait for a hub, and lets others load meanwhile
            with _LOADING, listening() as heard:
                predictor = load(model, compile=compiled)
            if heard:
                self._warnings[predictor] = "; ".join(heard)
            outcome.set_result(predictor)
        except BaseException as error:  # for whoever waits; the next one tries again
            with self._lock:
                self._loads.pop(key, None)
            outcome.set_exception(error)


_LOADING = threading.Lock()  # transformers changes settings of the whole process while it loads
SHELF = Shelf()
"""One for all panels: to run a cell again loads nothing again."""


def _changed(model: str) -> float:
    """When a checkpoint folder was last written to: after another run of fine-tuning it is another model. 0 for a hub's."""
    try:
        return max((file.stat().st_mtime for file in Path(model).expanduser().glob("*")), default=0.0)
    except OSError:
        return 0.0


# ---------------------------------------------------------------------- words for people


def what_it_knows(models: tuple[str, ...], picture: Picture) -> str:
    """A line about each model that ships and is asked about a picture that it can't know; "" where there is none."""
    strangers = [] if picture.is_scene else [m for m in dict.fromkeys(models) if m in MODELS and MODELS[m].path]
    return " ".join(f"{model} does not know such pictures. {MODELS[model].description}" for model in strangers)


def explain(error: BaseException) -> str:
    """One line: what was wrong, and what would do."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in said.lower() or "can't allocate memory" in said.lower():
        return f"There is not enough memory for this model ({said[:120]}). A smaller one would do: florence-2-base."
    if isinstance(error, ImageError):
        return f"{said}. Give another path or URL of a picture, or choose a sample."
    if isinstance(error, (ValueError, OSError)):
        return said
    return f"That went wrong inside: {type(error).__name__}: {said}. Another picture, task or model may do."
