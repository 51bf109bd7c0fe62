"""What the viewer shows: an image, the answers about it as they grow, and their code and files."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

from ..results import Instances, Result
from ..viewer.files import DownloadFile, file_choices, make_file
from ..viewer.records import Styles, answer_record
from ..viewer.threshold import filter_result
from ..viewer.widget import Viewer
from .answer import Answer, answer_code
from .history import HistoryEntry
from .images import SourceImage
from .questions import Question

UPDATE_SECONDS = 0.05
"""Minimum time between two updates of an answer that grows."""

_TEMPORARY_NOTE = "The file of the image is deleted when the panel is closed."
_STOPPED_NOTE = "The run was stopped; the code gives the whole answer."
_MAX_RESULTS = 1000  # of a model, in the numbering of answers


class Presenter:
    """Shows images and answers in a viewer.

    Attributes:
        question: the question of the answers that are shown; None if there are none.
        answers: one for each model.
        is_running: whether more is to come.
    """

    def __init__(self, viewer: Viewer) -> None:
        """Create a presenter of a viewer."""
        self._viewer = viewer
        self._numbers = count(1)
        self.question: Question | None = None
        self.answers: list[Answer] = []
        self.is_running = False
        self._forget()

    @property
    def results(self) -> list[Result]:
        """The results, in the order of the viewer's answers."""
        return [result for answer in self.answers for result in answer.results]

    @property
    def filtered(self) -> Result | list[Result] | None:
        """What is shown: a result without the instances below the threshold, or a list of them; None if there is none."""
        results = [filter_result(result, self._threshold) for result in self.results]
        if not results:
            return None
        return results if self._viewer.arrangement != "single" else results[0]

    @property
    def selected(self) -> Instances | None:
        """The instances that were clicked; None if there are none."""
        results = self.results
        if not 0 <= self._viewer.active < len(results):
            return None
        result = results[self._viewer.active]
        if not isinstance(result, Instances):
            return None
        indices = [index for index in self._viewer.selected if 0 <= index < len(result)]
        return result[indices] if indices else None

    def show_image(self, image: SourceImage) -> None:
        """Show an image without answers."""
        viewer = self._viewer
        with viewer.hold_sync():
            self._clear("empty")
            viewer.show_picture(image.picture)

    def begin(self, question: Question) -> None:
        """Remove the answers, to show those to another question about the image that is shown."""
        with self._viewer.hold_sync():
            self._clear("loading")
            self.question, self.is_running = question, True
            self._viewer.arrangement = _arrange(question, len(question.model_names))

    def show_answer(self, index: int, answer: Answer) -> bool:
        """Show what a model has answered so far, unless the last update was just before.

        Args:
            index: the number of the model.
            answer: its answer.

        Returns whether it is shown.
        """
        self.answers[index:] = [answer]
        if not answer.is_complete and time.monotonic() - self._last_update < UPDATE_SECONDS:
            return False
        self._update("answering")
        return True

    def end(self, phase: str) -> None:
        """Show what was answered, now that nothing more comes. `phase` is one of `viewer.widget.PHASES`."""
        self.is_running = False
        with self._viewer.hold_sync():
            self._update(phase if self.results or phase == "error" else "empty")
            if self.question is not None and self.results:
                self._viewer.arrangement = _arrange(self.question, len(self.answers))
            self.show_code()

    def show_past(self, entry: HistoryEntry) -> None:
        """Show answers of the history, and their image."""
        with self._viewer.hold_sync():
            self.show_image(entry.question.image)
            self.begin(entry.question)
            self.answers = list(entry.answers)
            self.end("stopped" if entry.is_stopped else "done")

    def show_code(self) -> None:
        """Show code and files of the answers, filtered by the threshold, unless more is to come."""
        if self.is_running or self.question is None or not self.results:
            return
        notes = [_TEMPORARY_NOTE] if self.question.image.is_temporary else []
        notes += [_STOPPED_NOTE] if self._viewer.phase == "stopped" else []
        with self._viewer.hold_sync():
            self._viewer.code, self._viewer.code_note = answer_code(self.answers, self._threshold), " ".join(notes)
            self._viewer.files = file_choices(self.results, self._model_names)

    def make_file(self, file_id: str) -> DownloadFile:
        """Return a file of what is shown, filtered by the threshold. Any thread may call it.

        Args:
            file_id: the `id` of an entry of `Viewer.files`.
        """
        question, results, models = self.question, self.results, self._model_names
        assert question is not None
        kept = [filter_result(result, self._threshold) for result in results]
        stem = f"{question.image.name}-{question.selection.name}"
        return make_file(file_id, kept, stem=stem, image_name=question.image.name, models=models)

    def close(self) -> None:
        """Forget the answers."""
        self.is_running = False
        self._forget()

    @property
    def _model_names(self) -> list[str]:
        """The model of each of the results."""
        return [answer.model_name for answer in self.answers for _ in answer.results]

    @property
    def _threshold(self) -> float:
        return round(self._viewer.threshold, 4)

    def _forget(self) -> None:
        self.question, self.answers = None, []
        self._records: dict[int, tuple[Answer, list[dict[str, Any]]]] = {}  # number of a model -> its answer, as shown
        self._styles: Styles = {}
        self._last_update = 0.0
        self._first_id = next(self._numbers) * _MAX_RESULTS

    def _clear(self, phase: str) -> None:
        self._forget()
        viewer = self._viewer
        viewer.answers, viewer.active, viewer.selected = [], 0, []
        viewer.arrangement, viewer.phase, viewer.is_stale = "single", phase, False
        viewer.code, viewer.code_note, viewer.files = "", "", []

    def _update(self, phase: str) -> None:
        """Send the answers."""
        viewer = self._viewer
        with viewer.hold_sync():
            records = [record for i, answer in enumerate(self.answers) for record in self._answer_records(i, answer)]
            if viewer.arrangement == "tasks" and 0 < len(viewer.answers) == len(records) - 1:  # the next task has begun
                viewer.active, viewer.selected = len(records) - 1, []
            viewer.answers, viewer.phase = records, phase
        self._last_update = time.monotonic()

    def _answer_records(self, index: int, answer: Answer) -> list[dict[str, Any]]:
        shown, records = self._records.get(index, (None, []))
        if shown is not answer:
            records = [self._record(index, answer, number) for number in range(len(answer.results))]
            self._records[index] = answer, records
        return records

    def _record(self, index: int, answer: Answer, number: int) -> dict[str, Any]:
        question, result = answer.question, answer.results[number]
        region = question.text if isinstance(question.text, tuple) else None
        record = answer_record(
            result,
            id=self._first_id + index * _MAX_RESULTS // 2 + number,
            image=question.image.name,
            model=answer.model_name,
            times=answer.times,
            complete=answer.is_complete or number < len(answer.results) - 1,
            task_name=question.selection.title_of(result),
            text=None if question.selection.has_many else question.shown_text,
            regions=None if region is None else [region],
            styles=self._styles,
        )
        return record | {"task": question.selection.token_of(result)}


def _arrange(question: Question, num_models: int) -> str:
    if question.selection.has_many:
        return "tasks"
    return "compare" if num_models > 1 else "single"
