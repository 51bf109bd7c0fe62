"""The answers that were given before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from .answer import Answer
from .questions import Question

MAX_ENTRIES = 20
"""Older answers are freed."""

_numbers = count(1)


@dataclass(frozen=True, eq=False)
class HistoryEntry:
    """The answers to one question.

    Attributes:
        answers: one for each model that has answered.
        is_stopped: whether the run was stopped.
        id: differs between all entries.
        time: when it was added, such as `"14:05"`.
    """

    answers: tuple[Answer, ...]
    is_stopped: bool = False
    id: int = field(default_factory=lambda: next(_numbers))
    time: str = field(default_factory=lambda: datetime.now().strftime("%H:%M"))

    @property
    def question(self) -> Question:
        """The question, for the models that have answered."""
        names = tuple(answer.model_name for answer in self.answers)
        return replace(self.answers[0].question, model_names=names)

    def record(self) -> dict[str, Any]:
        """Return an entry of `Viewer.history`."""
        names = " and ".join(Path(answer.model_name).name for answer in self.answers)
        marks = [
            mark for mark, is_set in (("compiled", self.question.is_compiled), ("stopped", self.is_stopped)) if is_set
        ]
        title = " · ".join([self.question.title, names, *marks])
        return {"id": self.id, "title": title, "time": self.time, "thumbnail": self.question.image.thumbnail}


class History:
    """The last answers, newest first."""

    def __init__(self) -> None:
        """Create an empty history."""
        self.entries: list[HistoryEntry] = []

    def add(self, answers: Sequence[Answer], is_stopped: bool = False) -> list[dict[str, Any]]:
        """Add answers, and return all entries as records."""
        self.entries = [HistoryEntry(tuple(answers), is_stopped), *self.entries][:MAX_ENTRIES]
        return [entry.record() for entry in self.entries]

    def find(self, entry_id: int) -> HistoryEntry | None:
        """Return the entry of an id; None if it is not kept any more."""
        return next((entry for entry in self.entries if entry.id == entry_id), None)
