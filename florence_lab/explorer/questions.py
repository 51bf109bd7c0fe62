"""What the panel runs: the choices of the task menu, and a question as the controls are set."""

from __future__ import annotations

from dataclasses import dataclass

from ..exceptions import capture_warnings
from ..tasks import FREE_QUESTION, TASKS, InputKind, Task, get_task
from ..template.locations import Region
from ..template.prompts import build_prompt
from .images import SourceImage

ALL_TASKS = "all-tasks"
"""The value of the menu for all tasks that take no input besides the image."""


@dataclass(frozen=True)
class TaskSelection:
    """A choice of the task menu: one task, or several that are run together.

    Attributes:
        value: identifies the choice: a task token, "" for a free-form question, or `ALL_TASKS`.
        label: its text in the menu.
        description: one line about it.
        input: what the tasks take besides the image.
        tasks: the tasks that are run.
    """

    value: str
    label: str
    description: str
    input: InputKind
    tasks: tuple[Task, ...]

    @classmethod
    def from_task(cls, task: Task) -> TaskSelection:
        """Return the choice of one task."""
        return cls(task.token, task.token or task.name, task.description, task.input, (task,))

    @property
    def name(self) -> str:
        """The choice in the names of files and in the history."""
        return self.value.strip("<>") or "question"

    @property
    def is_combined(self) -> bool:
        """Whether several tasks are run together."""
        return self.value == ALL_TASKS


def select_task(value: str) -> TaskSelection:
    """Return the choice of a value of the menu.

    Raises:
        ValueError: for a misspelled task; the message names the nearest one.
    """
    if value != ALL_TASKS:
        return TaskSelection.from_task(get_task(value))
    tasks = tuple(task for task in TASKS.values() if task.input == "none")
    return TaskSelection(ALL_TASKS, "all of these at once", "captions, boxes and text, decoded together", "none", tasks)


def task_menu() -> list[TaskSelection]:
    """Return the choices of the menu: the registered tasks, a free-form question, and `ALL_TASKS`."""
    return [*map(TaskSelection.from_task, (*TASKS.values(), FREE_QUESTION)), select_task(ALL_TASKS)]


@dataclass(frozen=True, eq=False)
class Question:
    """A question about an image for one or two models.

    Attributes:
        image: the image.
        selection: the task or tasks.
        text: the phrase or the region in pixels; None if there is none.
        model_names: the models, as `florence_lab.load` takes them.
        is_compiled: whether the models are compiled.
    """

    image: SourceImage
    selection: TaskSelection
    text: str | Region | None
    model_names: tuple[str, ...]
    is_compiled: bool = False

    @property
    def tokens(self) -> list[str]:
        """The tokens of the tasks."""
        return [task.token for task in self.selection.tasks]

    @property
    def query(self) -> tuple[str, str | Region | None]:
        """The arguments `task` and `text` of `Predictor.predict`, for one task.

        A free-form question that begins with a task token, such as `<DocVQA>What is the date?`, is a question of that token.
        """
        (token,) = self.tokens
        if not token and isinstance(self.text, str) and self.text.startswith("<"):
            return self.text, None
        return token, self.text

    def validate(self) -> str:
        """Check the input before a model is loaded, and return warnings about it, "" if there are none.

        Raises:
            PromptError: for a missing input, or one that the task does not accept.
        """
        with capture_warnings() as messages:
            queries = [(token, None) for token in self.tokens] if self.selection.is_combined else [self.query]
            for task, text in queries:
                build_prompt(task, text, self.image.image.size)
        return "; ".join(messages)
