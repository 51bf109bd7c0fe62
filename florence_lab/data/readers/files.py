"""JSON and JSON lines with the rows of ms-swift (query, response, images) or Roboflow (image, prefix, suffix)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ...exceptions import DatasetError
from ..examples import ImageSource
from ..rows import RowError, TextRow
from ..spec import DatasetSpec


class JsonLinesReader:
    """Rows as JSON objects, one per line. Blank lines are ignored."""

    options: ClassVar[Mapping[str, str]] = {}

    def __init__(self, spec: DatasetSpec) -> None:
        self.name, self.path = spec.name, Path(spec.location).expanduser()

    def check(self) -> None:
        """Read the file."""
        _ = self._lines

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> TextRow | RowError:
        source = f"{self.name}, row {index + 1}"
        try:
            row = json.loads(self._lines[index])
        except ValueError as error:
            return RowError(source, "invalid JSON", str(error))
        return parse_row(row, self.path.parent, source)

    @cached_property
    def _lines(self) -> list[str]:
        return [line for line in read_text(self.path).split("\n") if line.strip()]


class JsonReader:
    """Rows as a JSON list of objects."""

    options: ClassVar[Mapping[str, str]] = {}

    def __init__(self, spec: DatasetSpec) -> None:
        self.name, self.path = spec.name, Path(spec.location).expanduser()

    def check(self) -> None:
        """Read the file."""
        _ = self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> TextRow | RowError:
        return parse_row(self._rows[index], self.path.parent, f"{self.name}, row {index + 1}")

    @cached_property
    def _rows(self) -> list[Any]:
        rows = read_json(self.path)
        if not isinstance(rows, list):
            raise DatasetError(f"{self.path} is not a list of rows; write coco:{self.path} for a COCO file")
        return rows


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file.

    Raises:
        DatasetError: if the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DatasetError: if the file cannot be read or is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error


def parse_row(row: Any, folder: Path, source: str) -> TextRow | RowError:
    """Return a row of ms-swift or of Roboflow.

    Args:
        row: the decoded JSON.
        folder: image paths are relative to it.
        source: where the row stands.
    """
    if not isinstance(row, dict):
        return RowError(source, "not an object", f"a row maps names to values, but this is {str(row)[:60]!r}")
    if {"image", "prefix", "suffix"} <= row.keys():
        return TextRow(resolve_image_path(row["image"], folder), str(row["prefix"]), str(row["suffix"]), source)
    if "query" not in row:
        expected = "query, response and images, or image, prefix and suffix"
        return RowError(source, "unknown columns", f"got {', '.join(row)}; expected {expected}")
    return _parse_swift_row(row, folder, source)


def _parse_swift_row(row: Mapping[str, Any], folder: Path, source: str) -> TextRow | RowError:
    images = row.get("images", row.get("image", []))
    images = images if isinstance(images, (list, tuple)) else [images]
    if len(images) != 1:
        return RowError(source, "not exactly one image", f"{len(images)} images")
    if row.get("history"):
        return RowError(source, "conversation history", "Florence-2 answers single prompts; remove `history`")
    objects = row.get("objects") or []
    try:
        objects = json.loads(objects) if isinstance(objects, str) else objects
    except ValueError as error:
        return RowError(source, "invalid objects", str(error))
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        return RowError(source, "invalid objects", f"expected a list of objects, but got {str(objects)[:60]!r}")
    image = resolve_image_path(images[0], folder)
    return TextRow(image, str(row["query"]), str(row.get("response") or ""), source, tuple(objects))


def resolve_image_path(image: Any, folder: Path) -> ImageSource | None:
    """Resolve a path against the folder of its file. URLs and images stay; `{"bytes", "path"}` gives its content."""
    if isinstance(image, dict):
        return image.get("bytes") or resolve_image_path(image.get("path"), folder)
    if isinstance(image, str) and "://" not in image:
        return folder / Path(image).expanduser()
    return image
