"""TODO"""

from __future__ import annotations

from dataclasses import dataclass

from ..tasks import TASKS, Task
from ..template.locations import Region
from ..template.template import FlorenceTemplate
from .images import Picture
from .listening import listening

ALL_TASKS = Task("all-tasks", "", "none", "text", "captions, boxes and text, all after one look")
"""None of the model's own: stands for all of its tasks that take nothing but the picture."""


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
                template.build_prompt(task, self.text, self.picture.image.size)
        return "; ".join(heard)
