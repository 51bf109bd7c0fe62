"""What the panel runs: a question, as the controls are set."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ..exceptions import capture_warnings
from .images import SourceImage
from .selections import Selection, Text


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
    selection: Selection
    text: Text
    model_names: tuple[str, ...]
    is_compiled: bool = False

    @property
    def key(self) -> Hashable:
        """Equal for questions that have the same answer."""
        return id(self.image), self.selection.value, self.text, self.model_names, self.is_compiled

    @property
    def shown_text(self) -> str:
        """The phrase or region as a reader sees it; "" if there is none."""
        if self.text is None or isinstance(self.text, str):
            return self.text or ""
        return f"region {tuple(self.text)}"

    @property
    def title(self) -> str:
        """The question in a line: the task, the text and the image."""
        text = f"“{self.text}”" if isinstance(self.text, str) else self.shown_text
        return " · ".join(filter(None, [self.selection.title, text, self.image.name]))

    def validate(self) -> str:
        """Check the input before a model is loaded, and return warnings about it, "" if there are none.

        Raises:
            ValueError: for a missing input, or one that the task does not accept.
        """
        with capture_warnings() as messages:
            self.selection.validate(self.text, self.image.image.size)
        return "; ".join(messages)
