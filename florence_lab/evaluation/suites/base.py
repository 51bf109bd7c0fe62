"""`Suite`: what a published benchmark consists of. A benchmark is an entry in the table `SUITES`."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exceptions import DatasetError, FlorenceLabError, shorten, summarize_error
from ...results import Instances, Polygons, Result, Text
from ..official import Estimate

if TYPE_CHECKING:
    import pandas as pd

DOCUMENTED_GENERATION: Mapping[str, Any] = {"num_beams": 3, "do_sample": False, "max_new_tokens": 1024}
"""The settings of the examples in Florence-2's model card. It names none per benchmark."""


@dataclass(frozen=True)
class PublishedFile:
    """A file or folder of a benchmark.

    Attributes:
        names: where it lies below the root, as published; further names are other places where it is often kept.
        url: where it is published.
    """

    names: tuple[str, ...]
    url: str

    def find(self, root: Path) -> Path:
        """Return its path.

        Raises:
            DatasetError: if it is at none of its places; the message names them, and where it is published.
        """
        found = next((root / name for name in self.names if (root / name).exists()), None)
        if found is None:
            others = f" (nor {', '.join(self.names[1:])})" if len(self.names) > 1 else ""
            raise DatasetError(f"{root / self.names[0]} is missing{others}; it is published at {self.url}")
        return found


@dataclass(frozen=True, eq=False)
class SuiteQuestion:
    """A question of a benchmark.

    Attributes:
        key: identifies it within the suite and split, as `"image 391895"`.
        image: path of the image.
        text: what follows the task token: a caption, a phrase, a question; "" for a task that takes none.
        group: the image. Questions of one group are drawn together by the bootstrap.
        truth: what the family of the suite needs to score an answer; None if the truth is not published.
        image_size: (width, height) that the files state; None if they state none.
    """

    key: str
    image: Path
    text: str = ""
    group: Hashable = ""
    truth: Any = None
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class SuiteData:
    """The questions of a split.

    Attributes:
        questions: all of them, those about one image one after another.
        content: what scoring needs besides, such as the COCO file.
    """

    questions: Sequence[SuiteQuestion]
    content: Any = None


@dataclass(frozen=True, eq=False)
class SuiteScores:
    """The numbers of a benchmark.

    Attributes:
        metrics: name -> value, 0..1 (CIDEr 0..10). Samples for resampling are the questions, in their order.
        tables: title -> further tables to print and write, such as that of the names.
    """

    metrics: Mapping[str, Estimate]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


Answers = Sequence[Result | None]
"""The answer to each question; None if the image could not be read, which counts as answered by nothing."""


@dataclass(frozen=True)
class Suite(ABC):
    """A published benchmark.

    Attributes:
        name: as `--suite` takes it.
        description: one line.
        task: token of the task that is asked.
        splits: the splits that can be evaluated; the first is the default.
        main_metric: the metric that the model card gives.
    """

    name: str
    description: str
    task: str
    splits: tuple[str, ...]
    main_metric: str

    def read(self, root: Path, split: str) -> SuiteData:
        """Return the questions of a split, read from the published files below a folder.

        Raises:
            DatasetError: for a file that is missing or has another format, and for a split without questions.
        """
        try:
            data = self.read_files(root, split)
        except FlorenceLabError:
            raise
        except Exception as error:  # values of any type are where others are expected
            raise DatasetError(
                f"the files of {self.name} in {root} have another content than the published ones: {shorten(error, 200)}"
            ) from error
        if not data.questions:
            raise DatasetError(f"the files of {self.name} in {root} have no question of the split {split}")
        return data

    @abstractmethod
    def read_files(self, root: Path, split: str) -> SuiteData:
        """Do what `read` does. Any exception may be raised for files with another content."""

    @abstractmethod
    def score(self, data: SuiteData, answers: Answers) -> SuiteScores:
        """Return the official metrics."""

    @abstractmethod
    def submission(self, data: SuiteData, answers: Answers) -> Any:
        """Return the answers in the format of the official server or scorer, as JSON values."""

    def image_url(self, split: str) -> str:
        """Return where the images are published, for the message about a missing one."""
        return ""

    def check(self) -> None:  # noqa: B027  # most suites need nothing
        """Verify that what scoring needs is installed, before the model runs."""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DatasetError: if it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read: {summarize_error(error)}") from error


def read_entries(path: Path, section: str, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Return a list of a JSON file, whose entries all have some keys.

    Args:
        path: the file.
        section: the key of the list; "" for a file that is a list itself.
        keys: what each entry must have.

    Raises:
        DatasetError: for a file with another content; the message names the entry.
    """
    data = read_json(path)
    entries = data if not section else data.get(section) if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise DatasetError(f"{path} has another format: expected a list{f' {section!r}' if section else ''}")
    keys = list(keys)
    for i, entry in enumerate(entries):
        missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise DatasetError(f"{path}, {section or 'entry'} {i + 1} lacks {', '.join(missing)}: {shorten(entry)}")
    return entries


def answer_text(answer: Result | None) -> str:
    """Return the text of an answer in one line; "" if there is none."""
    return " ".join(answer.text.split()) if isinstance(answer, Text) else ""


def answer_instances(answer: Result | None) -> Instances | None:
    """Return the instances of an answer; None if there are none."""
    return answer if isinstance(answer, Instances) and len(answer) else None


def answer_polygons(answer: Result | None) -> Polygons | None:
    """Return the polygons of an answer; None if there are none."""
    return answer if isinstance(answer, Polygons) and len(answer) else None
