"""The panel: image, task and model on the left, the answers on the right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Box, Button, Checkbox, Dropdown, GridBox, HBox, Layout, Text, VBox, Widget

from ..argument_validation import validate_value
from ..loading.registry import available_models
from ..predictor import Predictor
from ..tasks import TASKS, get_task
from . import markup
from .answer import Answer
from .answer_view import AnswerView
from .image_chooser import ImageChooser
from .images import open_source
from .messages import describe_error, domain_notice
from .model_chooser import ModelChooser
from .predictor_cache import PredictorCache
from .questions import Question, TaskSelection, select_task, task_menu
from .session import answer_question
from .worker import Job, Worker

HISTORY_SIZE = 8

_SIDE_WIDTH = 330  # pixels of the left column
_MAX_DRAWN = 20  # instances: drawing more of them one by one takes longer than the model
_INPUT_HEADINGS = {
    "none": "the image alone",
    "phrase": "with a phrase",
    "region": "with a region",
    "any": "of your own",
}
_HEADING = "heading "  # the value of a heading in the task menu is this and the value below it
_PHRASE_EXAMPLE = "a sheep"
_BUSY_MESSAGE = "Another run is in progress. Press Stop to end it."
_NO_MODEL_MESSAGE = "No model is selected. Give a checkpoint folder, or a hub id such as microsoft/Florence-2-base."
_WIDE = {"width": "100%"}


class Explorer(VBox):
    """The panel that `florence_lab.explore` returns.

    Attributes:
        image_chooser: the controls of the image.
        task, phrase: the task menu, whose values are those of `TaskSelection`, and the input of tasks that take a phrase.
        model, other_model: the choosers of the model, and of the second one if `compare` is checked.
        views: the views of the answers, the second one for `compare`.
        history: the last answers, newest first; each entry has one answer for each model.
        status, note: lines about the run, and about the models.
    """

    def __init__(self, model_name: Any, image: Any, task: str, cache: PredictorCache) -> None:
        """Create a panel.

        Args:
            model_name, image, task: as for `florence_lab.explore`.
            cache: loads the models.
        """
        self._cache = cache
        self._worker = Worker(self._show_busy, self._show_error)
        given_name, model_name = model_name, str(model_name) if isinstance(model_name, (str, Path)) else ""
        self.history: list[list[Answer]] = []
        self.views = [AnswerView(self._show_error), AnswerView(self._show_error)]
        super().__init__(layout=Layout(**_WIDE))
        self.add_class("fl-panel")
        main = VBox(self._create_main(), layout=Layout(flex="1 1 380px", min_width="0", grid_gap="6px"))
        self.image_chooser = ImageChooser(_SIDE_WIDTH - 10, self._on_image, self._open, self._show_error)
        side = VBox(
            [
                self.image_chooser,
                *self._create_task_controls(),
                *self._create_model_controls(model_name),
                self._create_buttons(),
            ],
            layout=Layout(flex=f"0 0 {_SIDE_WIDTH}px", grid_gap="4px"),
        )
        columns = Box([side, main], layout=Layout(display="flex", flex_flow="row wrap", grid_gap="18px", **_WIDE))
        self.children = [HTML(markup.style_sheet(), layout=Layout(display="none")), columns]
        self._set_up(given_name, image, task)

    @property
    def is_busy(self) -> bool:
        """Whether a run is in progress."""
        return self._worker.is_busy

    @property
    def selection(self) -> TaskSelection:
        """The selected task or tasks."""
        return select_task(self.task.value)

    # ------------------------------------------------------------------ layout

    def _create_task_controls(self) -> list[Widget]:
        self.task = Dropdown(options=_menu_options(), value="<OD>", layout=Layout(**_WIDE))
        self.task.observe(lambda change: self._guard(self._on_task), "value")
        self.task_description = HTML()
        self.phrase = Text(layout=Layout(**_WIDE))
        self.phrase.on_msg(lambda _, content, __: content.get("event") == "submit" and self.run.click())
        return [HTML(markup.heading("Task")), self.task, self.task_description, self.phrase]

    def _create_model_controls(self, model_name: str) -> list[Widget]:
        self.model = ModelChooser(model_name, self._show_notes)
        self.compiled = Checkbox(
            False, description="compile: slower to load, faster to run", indent=False, layout=Layout(**_WIDE)
        )
        self.compare = Checkbox(False, description="compare with another", indent=False, layout=Layout(**_WIDE))
        self.compare.observe(lambda change: self._on_compare(), "value")
        other_name = next(name for name in available_models() if name != model_name)
        self.other_model = ModelChooser(other_name, self._show_notes)
        return [HTML(markup.heading("Model")), self.model, self.compiled, self.compare, self.other_model]

    def _create_buttons(self) -> Widget:
        self.run = Button(description="Run", button_style="primary", icon="play", layout=Layout(flex="2 1 0"))
        self.run.on_click(lambda _: self._guard(self._run))
        self.stop = Button(description="Stop", icon="stop", disabled=True, layout=Layout(flex="1 1 0"))
        self.stop.on_click(lambda _: self._stop())
        return HBox([self.run, self.stop], layout=Layout(margin="6px 0 0 0", **_WIDE))

    def _create_main(self) -> list[Widget]:
        self.status, self.note = HTML(), HTML()
        self.answers = Box(layout=Layout(display="flex", flex_flow="row wrap", grid_gap="18px", **_WIDE))
        self.answers.children = [HTML(markup.EMPTY, layout=Layout(**_WIDE))]
        columns = "repeat(auto-fill, minmax(230px, 1fr))"
        self.history_buttons = GridBox(layout=Layout(grid_template_columns=columns, grid_gap="4px", **_WIDE))
        self.history_heading = HTML(markup.heading("History"), layout=Layout(display="none"))
        return [self.status, self.note, self.answers, self.history_heading, self.history_buttons]

    def _set_up(self, model_name: Any, image: Any, task: str) -> None:
        """Set the panel to the arguments of `explore`; an error in them becomes the status line."""
        self._on_task()
        self._on_compare()
        if isinstance(image, (str, Path)):
            self.image_chooser.select_path(str(image))
        elif image is not None:
            self.image_chooser.select_object(image, "the given image")
        try:
            validate_value("model_type", model_name, str | Path)
            token = get_task(task).token
            if token and token not in TASKS:  # is not in the menu
                self.phrase.value, token = token, ""
            self.task.value = token
        except ValueError as error:
            self._show_error(error)

    # ------------------------------------------------------------------ controls

    def _guard(self, action: Callable[[], None]) -> None:
        """Call a function, and show its exception in the panel: a widget must not end in a traceback."""
        try:
            action()
        except Exception as error:
            self._show_error(error)

    def _on_image(self) -> None:
        self.image_chooser.show_region_picker(self.selection.input == "region")
        self._show_notes()
        self.status.value = ""

    def _on_task(self) -> None:
        if self.task.value.startswith(_HEADING):
            self.task.value = self.task.value.removeprefix(_HEADING)
            return
        selection = self.selection
        self.task_description.value = markup.hint(selection.description)
        self.phrase.layout.display = None if selection.input in ("phrase", "any") else "none"
        self.phrase.placeholder = selection.tasks[0].example or _PHRASE_EXAMPLE
        self.image_chooser.show_region_picker(selection.input == "region")
        self._show_notes()

    def _on_compare(self) -> None:
        self.other_model.layout.display = None if self.compare.value else "none"
        self._show_notes()

    def _open(self, source: str) -> None:
        def run(job: Job) -> None:
            image = open_source(source)
            job.show(lambda: self.image_chooser.select(image))

        self._start(run, f"opening {source}")

    def _model_names(self) -> tuple[str, ...]:
        names = (self.model.model_name, self.other_model.model_name)
        return names if self.compare.value else names[:1]

    def _show_notes(self, warning: str = "") -> None:
        """Show the notice about models that were not trained for the image, and a warning about the question."""
        notice = domain_notice(self._model_names(), self.image_chooser.image)
        self.note.value = "".join(markup.status_line("note", text) for text in (notice, warning))

    def _add_note(self, text: str) -> None:
        self.note.value += markup.status_line("note", text)

    def _show_status(self, kind: markup.StatusKind, text: str) -> None:
        self.status.value = markup.status_line(kind, text)

    def _show_error(self, error: BaseException) -> None:
        self._show_status("error", describe_error(error))

    def _show_busy(self) -> None:
        self.run.disabled, self.stop.disabled = self.is_busy, not self.is_busy
        for control in (*self.history_buttons.children, *(view.threshold for view in self.views)):
            control.disabled = self.is_busy  # the run would overwrite what they show

    # ------------------------------------------------------------------ running

    def _start(self, run: Callable[[Job], None], status: str) -> None:
        if self.is_busy:
            self._show_status("busy", _BUSY_MESSAGE)
            return
        self._show_status("busy", status)
        self._worker.start(run)

    def _stop(self) -> None:
        if self._worker.stop():
            self._show_status("done", "Stopped.")

    def _run(self) -> None:
        if self.is_busy:
            self._show_status("busy", _BUSY_MESSAGE)
            return
        question = self._read_question()
        self._show_notes(question.validate())
        self._start(lambda job: self._answer(question, job), f"loading {question.model_names[0]}")

    def _read_question(self) -> Question:
        """The question that the controls are set to. Raises `ValueError` if something is missing."""
        if "" in self._model_names():
            raise ValueError(_NO_MODEL_MESSAGE)
        selection = self.selection
        phrase, region = self.phrase.value.strip(), self.image_chooser.region_picker.region
        inputs = {"none": None, "phrase": phrase, "region": region, "any": phrase or None}
        text = inputs[selection.input]
        if selection.input == "phrase" and not text:
            raise ValueError(f"{selection.label} needs a phrase, such as {self.phrase.placeholder!r}.")
        if selection.input == "region" and text is None:
            raise ValueError(f"{selection.label} needs a region: drag one on the image, or give its four numbers.")
        return Question(self.image_chooser.image, selection, text, self._model_names(), self.compiled.value)

    def _answer(self, question: Question, job: Job) -> None:
        job.show(lambda: self._show_pending(question))
        answers: list[Answer] = []
        try:
            for model_name, view in zip(question.model_names, self.views, strict=False):
                answers.append(self._answer_with(model_name, question, view, job))
        finally:  # the answer of one model stays if the other one cannot be loaded
            if answers:
                job.show(lambda: self._add_to_history(answers))
        job.show(lambda: self._show_status("done", "Done."))

    def _answer_with(self, model_name: str, question: Question, view: AnswerView, job: Job) -> Answer:
        predictor = self._load(model_name, question.is_compiled, job)
        job.show(lambda: self._show_status("busy", f"{model_name}: encoding the image"))
        num_drawn = 0
        for answer in answer_question(question, model_name, predictor, job.stop):
            draw_overlay = num_drawn < answer.count <= _MAX_DRAWN
            num_drawn = answer.count
            self._show_answer(answer, view, draw_overlay, job)
        return answer

    def _show_answer(self, answer: Answer, view: AnswerView, draw_overlay: bool, job: Job) -> None:
        rendered = view.render(answer, draw_overlay)
        count = f", {answer.count} so far" if answer.count else ""

        def show() -> None:
            view.show(answer, rendered)
            self._show_status("busy", f"{answer.model_name}: decoding{count}")

        job.show(show)

    def _load(self, model_name: str, is_compiled: bool, job: Job) -> Predictor:
        if not self._cache.is_loaded(model_name, is_compiled):
            compiling = ", and compiling takes about a minute" if is_compiled else ""
            status = f"loading {model_name}; it is downloaded at the first time{compiling}"
            job.show(lambda: self._show_status("busy", status))
        predictor = self._cache.get(model_name, is_compiled)
        if warning := self._cache.load_warning(predictor):
            job.show(lambda: self._add_note(f"{model_name}: {warning}"))
        return predictor

    def _show_pending(self, question: Question) -> None:
        self.answers.children = self.views[: len(question.model_names)]
        for model_name, view in zip(question.model_names, self.views, strict=False):
            view.clear(model_name, question.image.preview)

    # ------------------------------------------------------------------ history

    def _add_to_history(self, answers: list[Answer]) -> None:
        self.answers.children = self.views[: len(answers)]
        self.history = [answers, *self.history][:HISTORY_SIZE]
        self.history_heading.layout.display = None
        self.history_buttons.children = [self._create_history_button(answers) for answers in self.history]

    def _create_history_button(self, answers: list[Answer]) -> Button:
        question = answers[0].question
        text = "" if question.text is None else f" {question.text}"
        models = " / ".join(Path(answer.model_name).name for answer in answers)
        compiled = ", compiled" if question.is_compiled else ""
        label = f"{question.selection.name}{text} · {question.image.name} · {models}{compiled}"
        button = Button(description=label, tooltip=label, disabled=self.is_busy, layout=Layout(width="auto"))
        button.add_class("fl-past")
        button.on_click(lambda _: self._guard(lambda: self._restore(answers)))
        return button

    def _restore(self, answers: list[Answer]) -> None:
        """Show answers of the history, and set the controls to their question."""
        if self.is_busy:
            return
        question = answers[0].question
        self.image_chooser.select(question.image)
        self.task.value = question.selection.value
        if question.selection.input in ("phrase", "any"):
            self.phrase.value = question.text or ""
        self.image_chooser.region_picker.region = None if isinstance(question.text, str) else question.text
        self.model.model_name = question.model_names[0]
        self.compiled.value = question.is_compiled
        self.compare.value = len(question.model_names) > 1
        if self.compare.value:
            self.other_model.model_name = question.model_names[1]
        self.answers.children = self.views[: len(answers)]
        for answer, view in zip(answers, self.views, strict=False):
            view.show(answer, view.render(answer))
        self._show_status("done", "From the history.")


def _menu_options() -> list[tuple[str, str]]:
    """The task menu under headings by input. Selecting a heading selects the first task below it."""
    options = []
    for kind, heading in _INPUT_HEADINGS.items():
        selections = [selection for selection in task_menu() if selection.input == kind]
        if selections:
            options.append((f"── {heading}", f"{_HEADING}{selections[0].value}"))
        options += [(f"\u2003{selection.label}", selection.value) for selection in selections]
    return options
