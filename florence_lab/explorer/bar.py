"""The bar of the panel: the controls of the question, and the status of the run."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any, Literal

from ipywidgets import HTML, Box, Button, Checkbox, Dropdown, Text, Widget

from ..loading.registry import available_models
from .image_menu import ImageMenu
from .images import SourceImage
from .model_menu import ModelMenu
from .selections import Selection, select, task_menu

StatusKind = Literal["busy", "done", "error"]

_PHRASE_NAMES = {"": "Question", "detect-classes": "Classes"}  # value of the task menu -> what its text is
_PHRASE_EXAMPLE = "a sheep"


class Bar(Box):
    """The controls of the panel. All are ipywidgets, so that a cell can read and set their `value`.

    Attributes:
        image: the menu of images.
        task: the menu of tasks; its values are those of `Selection`.
        phrase: the text of tasks that take one.
        model, other_model: the models, the second one for `compare`.
        compare: whether two models answer.
        compiled: whether the models are compiled.
        run: the button that runs, and stops while something runs.
        status, note: lines about the run, and about the models and the question.
    """

    def __init__(
        self,
        model_name: str,
        on_change: Callable[[], None],
        on_submit: Callable[[], None],
        on_select: Callable[[SourceImage], None],
        on_open: Callable[[str], None],
        on_set: Callable[[Any], None],
    ) -> None:
        """Create a bar.

        Args:
            model_name: the model that it is set to.
            on_change: called after a control of the question has changed.
            on_submit: called if Enter is pressed in the text.
            on_select, on_open, on_set: as for `ImageMenu`.
        """
        self.image = ImageMenu(on_select, on_open, on_set)
        self.task = Dropdown(options=_menu_options(), value="<OD>", description="Task")
        self.phrase = Text(description="Phrase")
        self.model = ModelMenu("Model", model_name, on_change)
        self.compare = Checkbox(False, description="Compare", indent=False, tooltip="ask a second model as well")
        other_name = next(name for name in available_models() if name != model_name)
        self.other_model = ModelMenu("Other model", other_name, on_change)
        self.compiled = Checkbox(
            False,
            description="Compile",
            indent=False,
            tooltip="compile the image encoder: slower to load, faster to run",
        )
        self.run = Button(description="Run", icon="play", button_style="primary")
        self.status, self.note = HTML(), HTML()
        named: dict[str, Widget] = {
            "fl-task-menu": self.task, "fl-phrase-field": self.phrase, "fl-run": self.run, "fl-status": self.status, "fl-note": self.note
        }  # fmt: skip
        for name, widget in named.items():
            widget.add_class(name)
        questions = [self.image, self.task, self.phrase]
        models = [self.model, self.compare, self.other_model, self.compiled]
        super().__init__([*questions, *models, self.run, self.status, self.note])
        self.add_class("fl-bar")
        self._show_inputs()
        self.task.observe(lambda change: self._show_inputs(), "value")
        self.compare.observe(lambda change: self._show_inputs(), "value")
        for control in (self.task, self.phrase, self.compare, self.compiled):
            control.observe(lambda change: on_change(), "value")
        self.phrase.on_msg(lambda _, content, __: on_submit() if content.get("event") == "submit" else None)

    @property
    def selection(self) -> Selection:
        """The selected task or tasks."""
        return select(self.task.value)

    @property
    def model_names(self) -> tuple[str, ...]:
        """The selected models."""
        names = (self.model.value, self.other_model.value)
        return names if self.compare.value else names[:1]

    def set_models(self, names: tuple[str, ...], is_compiled: bool) -> None:
        """Set the controls to one or two models."""
        self.model.value = names[0]
        self.compare.value = len(names) > 1
        if self.compare.value:
            self.other_model.value = names[1]
        self.compiled.value = is_compiled

    def refresh_tasks(self) -> None:
        """Add the tasks that were registered since, as by a checkpoint that was loaded."""
        options = _menu_options()
        if options != list(self.task.options):
            value = self.task.value
            with self.task.hold_sync():
                self.task.options = options
                self.task.value = value

    def show_busy(self, is_busy: bool) -> None:
        """Let the button stop what runs, or run. It is one button, so that it keeps the focus."""
        with self.run.hold_sync():
            self.run.description, self.run.icon = ("Stop", "stop") if is_busy else ("Run", "play")
            self.run.button_style = "danger" if is_busy else "primary"

    def show_status(self, kind: StatusKind, *texts: str) -> None:
        """Show what happens, with what is queued behind it."""
        lines = "".join(f"<span>{escape(text)}</span> " for text in texts if text)
        self.status.value = f'<div class="fl-line fl-{kind}">{lines}</div>' if lines else ""

    def show_notes(self, *texts: str) -> None:
        """Show remarks, each on a line."""
        self.note.value = "".join(f'<div class="fl-line fl-remark">{escape(text)}</div>' for text in texts if text)

    def _show_inputs(self) -> None:
        """Show only the controls that the task and the comparison need."""
        selection = self.selection
        self.task.tooltip = selection.description
        self.phrase.layout.display = None if selection.input in ("phrase", "any") else "none"
        self.phrase.placeholder = selection.example or _PHRASE_EXAMPLE
        self.phrase.description = _PHRASE_NAMES.get(selection.value, "Phrase")
        self.other_model.layout.display = None if self.compare.value else "none"


def _menu_options() -> list[tuple[str, str]]:
    return [(selection.label, selection.value) for selection in task_menu()]
