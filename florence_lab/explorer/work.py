"""What the panel does, without a widget: pictures, questions, answers, and the predictors that are kept loaded."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
import warnings
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
from ..draw import to_png
from ..hub import resolve
from ..images import ImageError, load_image
from ..predictor import EncodedImage, Predictor, load
from ..results import Result
from ..scenes import draw_scene, sample_path
from ..template import FlorenceTemplate, Region

PREVIEW_SIDE = 640  # pixels
SHELF_ROOM = 2  # predictors; the largest takes 3 GB in fp32


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
    """What a person asked for: `task` and `text` as `Predictor.predict` takes them, and the models to ask, in order."""

    picture: Picture
    task: str
    text: str | Region | None
    models: tuple[str, ...]

    def check(self) -> str:
        """Finds out, before a model is loaded, whether it can be asked; a warning about it comes back as text.

        Raises:
            ValueError: as `FlorenceTemplate.prompt`.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            FlorenceTemplate().prompt(self.task, self.text, self.picture.image.size)
        return "; ".join(str(warning.message) for warning in caught)


@dataclass(frozen=True, eq=False)
class Answer:
    """What one model has said so far.

    Attributes:
        image_seconds: what the vision tower took; None if it had encoded the picture before.
        text_seconds: what reading the prompt and writing the answer took, without the time to draw it.
        whole: whether this is all of it.
    """

    question: Question
    model: str
    result: Result
    image_seconds: float | None
    text_seconds: float
    whole: bool

    @property
    def stem(self) -> str:
        """For the names of its files."""
        return f"{self.question.picture.name}-{self.question.task.strip('<>') or 'question'}"

    def shown(self, threshold: float = 0.0) -> Result:
        """The result without the instances below a confidence."""
        return (
            self.result.above(threshold)
            if threshold and getattr(self.result, "scores", None) is not None
            else self.result
        )

    def code(self, threshold: float = 0.0) -> str:
        """Three lines of Python that give `shown(threshold)` again."""
        text = "" if self.question.text is None else f", {self.question.text!r}"
        above = f".above({threshold:g})" if self.shown(threshold) is not self.result else ""
        return (
            "import florence_lab\n"
            f"predictor = florence_lab.load({self.model!r})\n"
            f"predictor.predict({self.question.picture.code}, {self.question.task!r}{text}, num_beams=1){above}"
        )

    def files(self, threshold: float = 0.0) -> dict[str, tuple[str, bytes]]:
        """What a person may take home: file name -> (MIME type, content)."""
        result, stem = self.shown(threshold), self.stem
        said = {
            "model": self.model,
            "task": result.task,
            "phrase": result.phrase,
            "prompt": result.prompt,
            "raw": result.raw,
            "image": {"name": self.question.picture.name, "size": result.image_size},
            "result": result.to_dict(),
        }
        return {
            f"{stem}.png": ("image/png", to_png(result.image, result)),
            f"{stem}.json": ("application/json", _json(said)),
            f"{stem}-coco.json": ("application/json", _json(result.to_coco(file_name=self.question.picture.name))),
        }


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


_COMPUTING = threading.Lock()  # one answer at a time: two would only slow each other down


def ask(question: Question, model: str, predictor: Predictor, stop: threading.Event) -> Iterator[Answer]:
    """Growing answers of one model; the last is whole. The picture is encoded unless this predictor has done so before.

    Raises:
        Stopped: soon after `stop` is set, whatever the model is at.
        ValueError: as `Predictor.stream`.
    """
    encoded = question.picture.encoded
    with _COMPUTING, _stoppable(predictor, stop):
        image_seconds = None
        with warnings.catch_warnings():  # `Question.check` and `what_it_knows` have told already
            warnings.simplefilter("ignore")
            if predictor not in encoded:
                start = time.perf_counter()
                encoded[predictor] = predictor.encode_image(question.picture.image)
                image_seconds = time.perf_counter() - start
            growing = predictor.stream(encoded[predictor], question.task, question.text)
        seconds, result, whole = 0.0, None, False
        while not whole:
            start = time.perf_counter()
            grown = next(growing, None)
            seconds += time.perf_counter() - start
            result, whole = result if grown is None else grown, grown is None
            yield Answer(question, model, result, image_seconds, seconds, whole)


@contextmanager
def _stoppable(predictor: Predictor, stop: threading.Event) -> Iterator[None]:
    """Has the model look at `stop` before each of its layers: a large one takes seconds until its first word."""

    def look(*_: Any) -> None:
        if stop.is_set():
            raise Stopped

    stacks = [module for module in predictor.model.modules() if isinstance(module, torch.nn.ModuleList)]
    hooks = [layer.register_forward_pre_hook(look) for stack in stacks for layer in stack]
    try:
        look()
        yield
    finally:
        for hook in hooks:
            hook.remove()


# ---------------------------------------------------------------------- predictors


class Shelf:
    """The predictors used last. One that is being loaded is waited for, and never loaded twice."""

    def __init__(self, room: int = SHELF_ROOM) -> None:
        self.room = room
        self._lock = threading.Lock()
        self._loads: OrderedDict[tuple[str, float], Future[Predictor]] = OrderedDict()

    def get(self, model: str) -> Predictor:
        """The predictor of that name, loaded by now or before; raises what `florence_lab.load` does."""
        key = (model, _changed(model))
        with self._lock:
            known = self._loads.get(key)
            if known is None:
                known = self._loads[key] = Future()
                threading.Thread(target=self._load, args=(key, known), daemon=True).start()
            self._loads.move_to_end(key)
            self._make_room()
        return known.result()

    def holds(self, model: str) -> bool:
        """Whether `get` would answer at once."""
        load = self._loads.get((model, _changed(model)))
        return load is not None and load.done()

    def _make_room(self) -> None:
        done = [key for key, load in self._loads.items() if load.done()]
        for key in done[: max(0, len(self._loads) - self.room)]:
            del self._loads[key]

    def _load(self, key: tuple[str, float], outcome: Future[Predictor]) -> None:
        try:
            resolve(key[0])  # may wait for a hub, and lets others load meanwhile
            with _LOADING:
                outcome.set_result(load(key[0]))
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
