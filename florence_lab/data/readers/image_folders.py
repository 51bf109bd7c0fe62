"""Folders of images with a metadata file, as `datasets` has them, or with a text beside each image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ...exceptions import DatasetError, shorten, warn
from ...tasks import Task, get_task
from ..rows import AnnotatedRow, InvalidRow, RowError, TextRow
from ..spec import DatasetSpec
from .files import check_decodable, find_images, is_file, is_folder, list_names, location_path, read_text
from .records import CsvReader, JsonLinesReader, RecordReader

METADATA: Mapping[str, type[RecordReader]] = {"metadata.jsonl": JsonLinesReader, "metadata.csv": CsvReader}
"""Names of metadata files, and what reads them. Their column `file_name` names the image."""


class ImageFolderReader:
    """A folder of images with `metadata.jsonl` or `metadata.csv`, the convention of `datasets`' `imagefolder`."""

    options: ClassVar[Mapping[str, str]] = {
        **RecordReader.options,
        "split": "subfolder with the metadata file (default: the folder itself, else train)",
    }

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec

    def check(self) -> None:
        """Find the metadata file and read it."""
        self._reader.check()

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> TextRow | AnnotatedRow | RowError:
        return self._reader[index]

    @cached_property
    def _reader(self) -> RecordReader:
        folder = location_path(self.spec, "imagefolder:FOLDER")
        split = self.spec.options.get("split")
        folders = [folder / split] if split else [folder, folder / "train"]
        for name, reader_type in METADATA.items():
            for parent in folders:
                if is_file(parent / name):
                    return reader_type(self.spec, parent / name)
        raise DatasetError(
            f"{self.spec.name}: no {' or '.join(METADATA)} in {' or '.join(map(str, folders))}; other tables are read by "
            f"`datasets`, as hf:{folder}"
        )


class CaptionFolderReader:
    """Images with a text file of the same name beside them, as trainers of image generators read and write them."""

    options: ClassVar[Mapping[str, str]] = {"task": "task whose answer the texts are (default: CAPTION)"}

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        self.path = location_path(spec, "captions:FOLDER")

    def check(self) -> None:
        """List the folder and verify the task. Warn of texts without an image."""
        _ = self.task
        if not self._images:
            raise DatasetError(f"{self.spec.name}: {self.path} contains no images")
        stems = {path.with_suffix("") for path in self._images}
        texts = sorted(self.path.rglob("*.txt"))
        if stems.isdisjoint(text.with_suffix("") for text in texts):
            raise DatasetError(f"{self.spec.name}: {self.path} has no image with a .txt of the same name beside it")
        others = [text.name for text in texts if text.with_suffix("") not in stems]
        if others:
            warn(f"{self.path}: {len(others)} texts have no image beside them: {list_names(others, 5)}")

    @cached_property
    def task(self) -> Task:
        """The task of the rows.

        Raises:
            DatasetError: for a task that is unknown or that is not answered with a text.
        """
        name = self.spec.options.get("task", "CAPTION")
        try:
            task = get_task(name)
        except ValueError as error:
            raise DatasetError(f"{self.spec.name}: {error}") from None
        if not task.token or task.needs_input or task.result != "text":
            raise DatasetError(f"{self.spec.name}: task {shorten(name)} must be one that answers with text, as CAPTION")
        return task

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> TextRow | RowError:
        image = self._images[index]
        try:
            return TextRow(image, self.task.token, _read_caption(image.with_suffix(".txt")), str(image))
        except InvalidRow as error:
            return error.at(str(image))

    @cached_property
    def _images(self) -> list[Path]:
        if not is_folder(self.path):
            raise DatasetError(f"{self.spec.name}: there is no folder {self.path}")
        return find_images(self.path)


def _read_caption(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InvalidRow: if it is missing, unreadable, or has the numbers of a detection format.
    """
    if not is_file(path):
        raise InvalidRow("no caption", f"there is no {path.name} beside the image")
    try:
        text = read_text(path).strip()
    except DatasetError as error:
        raise InvalidRow("unreadable caption", str(error)) from None
    check_decodable(text)
    if not text:
        raise InvalidRow("no caption", f"{path.name} is empty")
    if all(_is_detection_label(line) for line in text.splitlines()):
        raise InvalidRow("not a caption", f"{path.name} has boxes in the format of YOLO; write yolo:FOLDER")
    return text


def _is_detection_label(line: str) -> bool:
    """Whether a line is a class number and four or more numbers, as in YOLO's format."""
    number, *values = line.split() or [""]
    return (
        number.isdecimal()
        and len(values) >= 4
        and all(value.lstrip("-").replace(".", "", 1).isdecimal() for value in values)
    )
