"""`PartStore`: the labels of finished batches on disk, one file each, and the settings that they were made with."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..exceptions import ArgumentError, DatasetError, shorten
from ..output_files import replace_file, write_text
from .records import LabelledImage

PARTS_FOLDER = ".parts"
"""In the output folder. Its name begins with a dot, as `datasets` and YOLO's trainers do not look into such folders."""

_UNFINISHED_SECONDS = 3600


@dataclass(frozen=True)
class RowPlace:
    """Where the labels of an image stand.

    Attributes:
        key: the key of the image.
        part: the file.
        offset: of the line in the file, in bytes.
        has_error: whether the image could not be labelled.
    """

    key: str
    part: Path
    offset: int
    has_error: bool


class PartStore:
    """Finished batches in a folder. A batch is a file that is complete: it is written under another name and renamed.

    Several processes may write to one store at the same time. The name of a part depends on its images, so that a batch which is
    labelled twice is one file.

    Attributes:
        folder: the folder of the parts.
        run: names the run, of which the names of its parts tell.
    """

    def __init__(self, folder: str | Path, run: str = "") -> None:
        self.folder = Path(folder)
        self.run = run or uuid.uuid4().hex[:8]

    @property
    def images(self) -> Path:
        """The folder of images that are no files of their own, such as the frames of a video."""
        return self.folder / "images"

    def open(self, settings: Mapping[str, Any]) -> None:
        """Create the store, or verify that it was made with the same settings.

        Args:
            settings: what determines the labels, as JSON values.

        Raises:
            ArgumentError: if they differ; the message names each setting that does, before and now. Also if the folder cannot be
                written to, or its settings are damaged.
        """
        path = self.folder / "settings.json"
        try:
            self.images.mkdir(parents=True, exist_ok=True)
            self._remove_unfinished()
            if not path.exists():
                write_text(path, json.dumps(settings, indent=2) + "\n")
                return
            before = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(before, dict):
                raise ValueError(f"expected an object, got {shorten(before)}")
        except OSError as error:
            raise ArgumentError(
                f"{error.filename or self.folder} cannot be used: {error.strerror}; choose another folder, or delete "
                f"{self.folder} to label anew"
            ) from error
        except ValueError as error:
            raise ArgumentError(f"{path} is damaged: {error}; delete {self.folder} to label anew") from error
        if changes := _describe_changes(before, json.loads(json.dumps(settings))):
            raise ArgumentError(
                f"{self.folder.parent} was labelled with other settings: {'; '.join(changes)}. Choose another folder, or "
                f"delete {self.folder} to label anew"
            )

    def has(self, keys: Sequence[str]) -> bool:
        """Return whether this run has written the part of a batch."""
        return self._path(keys).exists()

    def write(self, rows: Sequence[LabelledImage]) -> Path:
        """Write the part of a batch, completely or not at all, and return its path."""
        path = self._path([row.key for row in rows])
        with replace_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(row.to_line() for row in rows)
            file.flush()
            os.fsync(file.fileno())
        return path

    def index(self, signatures: Mapping[str, str] | None = None) -> list[RowPlace]:
        """Return where the labels of each image stand, sorted by key. Of several rows of an image, one without error wins.

        Args:
            signatures: source -> its signature now. Images of other sources, and of those that have changed, are left out.

        Raises:
            DatasetError: for a part that is damaged.
        """
        places: dict[str, RowPlace] = {}
        for place, row in self._rows():
            known = places.get(row.key)
            is_current = signatures is None or signatures.get(row.source) == row.signature
            if is_current and (known is None or known.has_error):
                places[row.key] = place
        return [places[key] for key in sorted(places)]

    def read(self, places: Sequence[RowPlace]) -> Iterator[LabelledImage]:
        """Yield the labels at some places. One row at a time is in memory."""
        part, file = None, None
        try:
            for place in places:
                if place.part != part:
                    if file is not None:
                        file.close()
                    part, file = place.part, place.part.open("rb")
                assert file is not None
                file.seek(place.offset)
                yield LabelledImage.from_line(file.readline())
        finally:
            if file is not None:
                file.close()

    def _remove_unfinished(self) -> None:
        """Delete what killed processes have left. What is young may be written by another process at this moment."""
        for path in self.folder.glob(".*"):
            try:
                if path.is_file() and path.stat().st_mtime < time.time() - _UNFINISHED_SECONDS:
                    path.unlink()
            except OSError:  # it has just been renamed
                continue

    def _rows(self) -> Iterator[tuple[RowPlace, LabelledImage]]:
        for part in sorted(self.folder.glob("part-*.jsonl")):
            with part.open("rb") as file:
                offset = 0
                for line in file:
                    try:
                        row = LabelledImage.from_line(line)
                    except (ValueError, KeyError, TypeError) as error:
                        raise DatasetError(
                            f"{part} is damaged at byte {offset}: {shorten(error)}; delete it"
                        ) from error
                    yield RowPlace(row.key, part, offset, bool(row.error)), row
                    offset += len(line)

    def _path(self, keys: Sequence[str]) -> Path:
        digest = hashlib.sha256("\0".join(keys).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return self.folder / f"part-{digest}-{self.run}.jsonl"


def _describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} was {shorten(before.get(name), 120)}, now {shorten(now.get(name), 120)}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
