"""The panel: a bar of controls, and below it the viewer that shows the image with the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipywidgets import Box, Layout, VBox, Widget
from PIL import Image

from ..argument_validation import validate_value
from ..results import Instances, Result
from ..scenes import SAMPLES
from ..tasks import TASKS, get_task
from ..viewer.widget import MAX_UPLOAD_BYTES, Viewer
from .access import check_model
from .answer import Answer
from .bar import Bar, StatusKind
from .history import History
from .images import SourceImage, load_sample
from .library import ImageLibrary
from .messages import describe_error, domain_notice, loading_message
from .predictor_cache import PredictorCache
from .presenter import Presenter
from .questions import Question
from .selections import task_menu
from .session import answer_question
from .worker import Job, Request, Worker

if TYPE_CHECKING:
    from ..predictor import Predictor

_HINT = "Press Run to ask the model about this image."
_REGION_HINT = "Drag a region on the image, then press Run."
_MAX_NAME_LENGTH = 200  # of a path or URL in the status; a `data:` URL may have megabytes
_NO_MODEL_MESSAGE = "No model is selected. Give a checkpoint folder, or a hub id such as microsoft/Florence-2-base."


class Explorer(VBox):
    """The panel that `florence_lab.explore` returns.

    Its controls are ipywidgets, which a cell can read and set: `explorer.task.value = "<OCR>"`, `explorer.run.click()`.

    Attributes:
        image: the menu of images; a sample, path or URL can be set as its `value`.
        task, phrase: the menu of tasks, whose values are task tokens, and the text of tasks that take one.
        model, compare, other_model, compiled: the model, and a second one if `compare` is checked.
        run: the button that runs, and stops while something runs.
        status, note: lines about the run, and about the models and the question.
        viewer: shows the image and the answers.
        history: the last answers.
        shown_image: the image that is shown, with its origin.
    """

    def __init__(self, model_name: Any, image: Any, task: str, cache: PredictorCache) -> None:
        """Create a panel.

        Args:
            model_name, image, task: as for `florence_lab.explore`.
            cache: loads the models.
        """
        self._cache = cache
        self._status: tuple[StatusKind, str] = ("done", "")
        self._warnings: list[str] = []  # about the run that is shown
        self._library = ImageLibrary()
        self._worker = Worker(self._show_busy, self._show_error)
        self.history = History()
        self.viewer = Viewer(
            on_upload=self._upload, on_open=self._open_entry, upload_limit=MAX_UPLOAD_BYTES, has_tools=True
        )
        self._presenter = Presenter(self.viewer)
        self.viewer.make_file = self._presenter.make_file
        self.shown_image = self._chosen_image = load_sample(next(iter(SAMPLES)))
        self._bar = Bar(
            str(model_name) if isinstance(model_name, (str, Path)) else "",
            on_change=self._guarded(self._on_change),
            on_submit=self._guarded(self._ask),
            on_select=self._select,
            on_open=self._open,
            on_set=self._open_now,
        )
        self.image, self.task, self.phrase = self._bar.image, self._bar.task, self._bar.phrase
        self.model, self.compare, self.other_model = self._bar.model, self._bar.compare, self._bar.other_model
        self.compiled, self.run = self._bar.compiled, self._bar.run
        self.status, self.note = self._bar.status, self._bar.note
        super().__init__([self._bar, self.viewer], layout=Layout(width="100%"))
        self.add_class("fl-panel")
        self.run.on_click(lambda _: self._guarded(self._press_run)())
        self.viewer.observe(lambda change: self._guarded(self._show_stale)(), "region")
        self.viewer.observe(lambda change: self._guarded(self._presenter.show_code)(), "threshold")
        self._set_up(model_name, image, task)

    @property
    def is_busy(self) -> bool:
        """Whether something runs."""
        return self._worker.is_busy

    @property
    def result(self) -> Result | list[Result] | None:
        """What is shown, without the instances below the threshold: a result, a list of results, or None."""
        return self._presenter.filtered

    @property
    def selected(self) -> Instances | None:
        """The instances that were clicked; None if there are none."""
        return self._presenter.selected

    def close(self) -> None:
        """Stop what runs, and free the widgets, the answers and the uploaded files."""
        if not self._is_open():
            return
        self._worker.stop()
        self._presenter.close()
        self.history = History()
        self._library.close()
        for widget in list(_descendants(self)):
            widget.close()
        super().close()

    def _is_open(self) -> bool:
        return getattr(self, "_worker", None) is not None and self.comm is not None

    def _set_up(self, model_name: Any, image: Any, task: str) -> None:
        """Set the panel to the arguments of `explore`; an error in them becomes the status line."""
        self._show_image(self.shown_image)
        try:
            if isinstance(image, str) and "://" in image:
                self._open(image)
            elif image is not None:
                self._open_now(image)
            validate_value("model_type", model_name, str | Path)
            self._select_task(task)
        except Exception as error:
            self._show_error(error)

    def _select_task(self, task: str) -> None:
        if task in [selection.value for selection in task_menu()]:
            self.task.value = task
            return
        token = get_task(task).token
        if token not in TASKS:  # is not in the menu
            self.phrase.value, token = token, ""
        self.task.value = token

    # ------------------------------------------------------------------ what is shown

    def _guarded(self, action: Callable[[], None]) -> Callable[[], None]:
        """Return a function that shows the exception of `action` in the panel: a widget must not end in a traceback.

        It is not called by two threads at the same time.
        """

        def run() -> None:
            try:
                with self._worker.lock:
                    action()
            except Exception as error:
                self._show_error(error)

        return run

    def _on_change(self) -> None:
        """Follow a change of the controls."""
        input_kind = self._bar.selection.input
        self.viewer.takes_region = input_kind in ("region", "any")
        self.viewer.hint = _REGION_HINT if input_kind == "region" else _HINT
        self._show_notes()
        self._show_stale()

    def _show_stale(self) -> None:
        shown = self._presenter.question
        self.viewer.is_stale = shown is not None and self._question().key != shown.key

    def _show_notes(self) -> None:
        """Show the notice about models that were not trained for the image, and the warnings about the last run."""
        self._bar.show_notes(domain_notice(self._bar.model_names, self._chosen_image), *self._warnings)

    def _show_status(self, kind: StatusKind, text: str) -> None:
        self._status = (kind, text)
        queued = self._worker.queued
        self._bar.show_status(kind, text, "" if queued is None else f"Queued: {queued.title}.")

    def _show_error(self, error: BaseException) -> None:
        self._show_status("error", describe_error(error))

    def _show_busy(self) -> None:
        self._bar.show_busy(self.is_busy)
        if not self.is_busy and self._chosen_image is not self.shown_image:
            self._choose(self.shown_image)  # what was queued was dropped, or has failed
        self._show_status(*self._status)

    # ------------------------------------------------------------------ images

    def _choose(self, image: SourceImage) -> None:
        """Set the controls to an image; it is shown as soon as nothing else runs."""
        self._chosen_image = image
        self.image.show(image)
        self._on_change()

    def _show_image(self, image: SourceImage) -> None:
        """Show an image; the answers about another one leave."""
        if image is not self.shown_image or not self.viewer.picture:
            self.shown_image = image
            self._warnings = []
            self._presenter.show_image(image)
        self._choose(image)

    def _select(self, image: SourceImage) -> None:
        with self._worker.lock:
            if self.is_busy:
                self._choose(image)
            self._change(f"the image {image.name}", lambda: self._show_image(image))

    def _change(self, title: str, change: Callable[[], None]) -> None:
        """Change what is shown: now, or after what runs."""
        if self.is_busy:
            guarded = self._guarded(change)
            self._worker.submit(Request(title, lambda job: job.show(guarded)))
        else:
            self._show_status("done", "")
            self._guarded(change)()

    def _open_now(self, source: Any) -> None:
        """Open an image that a cell gives. Raises `ImageError` for anything that is not an image."""
        self._select(self._library.find_equal(self._library.load(source)))

    def _open(self, source: str) -> None:
        name = source.strip() or "an image"
        self._open_later(name if len(name) <= _MAX_NAME_LENGTH else f"{name[:_MAX_NAME_LENGTH]} …", source)

    def _upload(self, name: str, image: Image.Image) -> None:
        self._open_later(name, image)

    def _open_later(self, name: str, source: str | Image.Image) -> None:
        """Open an image in the background."""

        def run(job: Job) -> None:
            job.show(lambda: self._show_status("busy", f"Opening {name} …"))
            loaded = self._library.load(source, name)
            image = self._library.find_equal(loaded)
            same = "" if image is loaded else f"{name} is the same image as {image.name}."
            _ = image.picture, image.thumbnail  # made here, and not in the thread that handles messages
            job.show(lambda: self._show_image(image))
            job.show(lambda: self._show_status("done", same))

        self._worker.submit(Request(f"opening {name}", run))

    # ------------------------------------------------------------------ running

    def _press_run(self) -> None:
        if not self.is_busy:
            self._ask()
            return
        dropped = self._worker.queued
        self._worker.stop()
        if self._presenter.is_running:
            self._presenter.end("stopped")
            self._remember(is_stopped=True)
        self._show_status("done", "Stopped." if dropped is None else f"Stopped. Not done: {dropped.title}.")
        self._show_stale()

    def _ask(self) -> None:
        """Run the question that the controls are set to, or queue it."""
        question = self._question()
        self._check(question)
        warning = question.validate()
        self._worker.submit(Request(question.title, lambda job: self._answer(question, warning, job)))

    def _question(self) -> Question:
        """The question that the controls are set to; it may lack something."""
        selection = self._bar.selection
        phrase = self.phrase.value.strip() or None
        region = tuple(self.viewer.region) or None if self._chosen_image is self.shown_image else None
        texts = {"none": None, "phrase": phrase, "region": region, "any": phrase or region}
        text: Any = texts[selection.input]
        return Question(self._chosen_image, selection, text, self._bar.model_names, self.compiled.value)

    def _check(self, question: Question) -> None:
        """Raise `ValueError` if the question lacks something."""
        selection = question.selection
        if "" in question.model_names:
            raise ValueError(_NO_MODEL_MESSAGE)
        if question.text is None and selection.input == "phrase":
            raise ValueError(f"{selection.title} needs a text, such as {self.phrase.placeholder!r}.")
        if question.text is None and selection.input == "region":
            raise ValueError(f"{selection.title} needs a region: drag one on the image.")

    def _answer(self, question: Question, warning: str, job: Job) -> None:
        job.show(lambda: self._begin(question, warning))
        phase = "error"
        try:
            for index, model_name in enumerate(question.model_names):
                self._answer_with(index, model_name, question, job)
            phase = "done"
        finally:  # the answer of one model stays if the other one cannot be loaded
            job.show(lambda: self._end(phase))

    def _answer_with(self, index: int, model_name: str, question: Question, job: Job) -> None:
        predictor = self._load_model(model_name, question.is_compiled, job)
        job.show(lambda: self._show_status("busy", f"{model_name}: encoding the image …"))
        for answer in answer_question(question, model_name, predictor, job.stop):
            job.show(partial(self._show_answer, index, answer))

    def _show_answer(self, index: int, answer: Answer) -> None:
        if self._presenter.show_answer(index, answer):
            count = f", {answer.count} so far" if answer.count else ""
            self._show_status("busy", f"{answer.model_name}: decoding{count} …")

    def _load_model(self, model_name: str, is_compiled: bool, job: Job) -> Predictor:
        check_model(model_name)
        if not self._cache.is_loaded(model_name, is_compiled):
            job.show(lambda: self._show_status("busy", loading_message(model_name, is_compiled)))
        predictor = self._cache.get(model_name, is_compiled)
        job.show(self._bar.refresh_tasks)  # a checkpoint may bring tasks
        if warning := self._cache.load_warning(predictor):
            job.show(lambda: self._warn(f"{model_name}: {warning}"))
        return predictor

    def _warn(self, warning: str) -> None:
        self._warnings.append(warning)
        self._show_notes()

    def _begin(self, question: Question, warning: str) -> None:
        self._show_image(question.image)
        self._warnings = [warning]
        self._show_notes()
        self._presenter.begin(question)
        self._show_stale()
        self._show_status("busy", "Starting …")

    def _end(self, phase: str) -> None:
        self._presenter.end(phase)
        self._remember()
        self._show_stale()
        if phase == "done":
            self._show_status("done", "Done.")

    # ------------------------------------------------------------------ history

    def _remember(self, is_stopped: bool = False) -> None:
        answers = [answer for answer in self._presenter.answers if answer.results]
        if answers:
            self.viewer.history = self.history.add(answers, is_stopped)

    def _open_entry(self, entry_id: int) -> None:
        entry = self.history.find(entry_id)
        if entry is not None:
            with self._worker.lock:
                self._change(f"the answer of {entry.time}", lambda: self._show_entry(entry_id))

    def _show_entry(self, entry_id: int) -> None:
        """Show answers of the history, and set the controls to their question."""
        entry = self.history.find(entry_id)
        if entry is None:
            return
        question = entry.question
        self._show_image(question.image)
        self._warnings = []
        self._bar.refresh_tasks()
        self.task.value = question.selection.value
        if isinstance(question.text, str) or question.selection.input in ("phrase", "any"):
            self.phrase.value = question.text if isinstance(question.text, str) else ""
        self._bar.set_models(question.model_names, question.is_compiled)
        self._presenter.show_past(entry)
        if question.text is not None and not isinstance(question.text, str):
            self.viewer.region = list(question.text)
        self._on_change()
        self._show_status("done", f"From the history, {entry.time}.")


def _descendants(box: Box) -> Iterator[Widget]:
    """Yield the widgets in a box, with their styles and layouts, and those of the box."""
    for part in (box, *box.children):
        for name in ("layout", "style"):
            with suppress(AttributeError):
                yield getattr(part, name)
    for child in box.children:
        if isinstance(child, Box):
            yield from _descendants(child)
        yield child
