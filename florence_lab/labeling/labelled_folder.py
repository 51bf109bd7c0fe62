"""`LabelledFolder`: a folder that `label` has written, opened again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.readers.folders import LABELLED_MANIFEST
from ..detection.ontology import Ontology
from ..exceptions import ArgumentError, DatasetError, shorten, unknown_name
from .assembly import Counts, DatasetLayout, assemble, read_labels
from .parts import PARTS_FOLDER, PartStore, RowPlace
from .sources import expand_user
from .writers import WRITERS


@dataclass(frozen=True)
class LabelledFile:
    """An image of a labelled folder.

    Attributes:
        place: where the model's labels stand.
        source: the path or URL of its original.
        file: its file in the dataset; of Parquet, which contains the images, that of its original.
        split: the split that it belongs to.
    """

    place: RowPlace
    source: str
    file: Path
    split: str


class LabelledFolder:
    """A folder of `label`: its layout, its images, and its files, which can be written again.

    Attributes:
        path: the folder.
        layout: how its labels became a dataset.
        store: the model's labels.

    Raises:
        ArgumentError: if there is no such folder.
        DatasetError: if it was not written by `label`, or is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = expand_user(path)
        if not self.path.is_dir():
            raise ArgumentError(f"there is no folder {shorten(str(path), 300)}")
        self.layout = _read_layout(self.path)
        self.store = PartStore(self.path / PARTS_FOLDER)
        if not self.store.folder.is_dir():
            raise DatasetError(
                f"{self.path} has no {PARTS_FOLDER}, in which florence_lab.label keeps the labels; copy it along with the "
                "other files, or label again"
            )

    def list_files(self) -> list[LabelledFile]:
        """Return the images of the dataset, in the order of their ids.

        Raises:
            DatasetError: if their list is damaged, or does not fit the labels.
        """
        rows = {row["key"]: row for row in read_labels(self.path)}
        places = [place for place in self.store.index(self._read_signatures()) if place.key in rows]
        if len(places) < len(rows):
            raise DatasetError(
                f"{self.path}: {len(rows) - len(places)} of {len(rows)} images are not in {PARTS_FOLDER}"
            )
        found = []
        for place in places:
            row = rows[place.key]
            found.append(LabelledFile(place, str(row["source"]), self.path / row["file"], str(row.get("split", ""))))
        return found

    def write_files(self) -> Counts:
        """Write the files of the dataset again, with the corrections that there are now, and return what they contain.

        The layout and the images are those of the last run of `label`, which may have ended since this object was made.

        Raises:
            DatasetError: if an image is gone, or the folder damaged.
        """
        try:
            return assemble(self.store, _read_layout(self.path), self.path, self._read_signatures())
        except OSError as error:
            raise DatasetError(f"the files of {self.path} cannot be written: {error.strerror or error}") from error

    def _read_signatures(self) -> dict[str, str]:
        """Source -> signature of the last run, also of the images with errors."""
        signatures = {str(row["source"]): str(row.get("signature", "")) for row in read_labels(self.path)}
        path = self.path / "errors.jsonl"
        if path.is_file():
            try:
                rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
                signatures = {row["source"]: row["signature"] for row in rows} | signatures
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DatasetError(f"{path} is damaged: {shorten(error)}; label again") from error
        return signatures


def _read_layout(folder: Path) -> DatasetLayout:
    path = folder / LABELLED_MANIFEST
    hint = "florence_lab.label(images, classes, folder) writes one"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{folder} is not a labelled folder: it has no {LABELLED_MANIFEST}; {hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read: {shorten(error)}") from error
    missing = [name for name in ("format", "classes", "split") if not isinstance(content, dict) or name not in content]
    if missing:
        raise DatasetError(
            f"{folder} is not a labelled folder: {LABELLED_MANIFEST} has no {', '.join(missing)}; {hint}"
        )
    if content["format"] not in WRITERS:
        raise DatasetError(f"{path}: {unknown_name('format', str(content['format']), WRITERS)}")
    review = content.get("review")
    try:
        return DatasetLayout(
            content["format"],
            Ontology.from_classes(content["classes"]),
            {str(name): float(share) for name, share in content["split"].items()},
            (float(review[0]), float(review[1])) if review else None,
            bool(content.get("masks")),
            tuple(content.get("tasks", ())),
        )
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise DatasetError(f"{path} is damaged: {shorten(error)}") from error
