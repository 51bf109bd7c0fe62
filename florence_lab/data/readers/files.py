"""TODO"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...exceptions import DatasetError
from ..rows import Record


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error


def _json_of(path: Path) -> Any:
    try:
        return json.loads(_text_of(path))
    except ValueError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} is no JSON: {error}") from error


def _read_lines(path: Path) -> Iterator[Record | str]:
    for line in _text_of(path).splitlines():
        if line.strip():
            try:
                yield _record(json.loads(line), path.parent)
            except ValueError as error:
                yield f"no JSON: {error}"


def _read_list(path: Path) -> Iterator[Record | str]:
    rows = _json_of(path)
    if not isinstance(rows, list):
        raise DatasetError(f"{path} holds no list of rows; a COCO file is coco:{path}")
    return (_record(row, path.parent) for row in rows)


def _record(row: Any, folder: Path) -> Record | str:
    """A row of ms-swift or of Roboflow. Paths are relative to the file that it stands in."""
    if not isinstance(row, dict):
        return f"no row: a row is an object with names, but this is {str(row)[:60]!r}"
    if {"image", "prefix", "suffix"} <= row.keys():
        return Record(_place(row["image"], folder), str(row["prefix"]), str(row["suffix"]))
    if "query" not in row:
        return f"unknown columns: {', '.join(row)}; give query, response and images, or image, prefix and suffix"
    images = row.get("images", row.get("image", []))
    images = [images] if isinstance(images, (str, dict)) else images
    if len(images) != 1:
        return f"not one picture: {len(images)} images, but a row has one"
    if row.get("history"):
        return "more than one round: Florence-2 answers one question, and has no history"
    objects = row.get("objects") or []
    try:
        objects = json.loads(objects) if isinstance(objects, str) else objects
    except ValueError as error:
        return f"no objects: {error}"
    return Record(_place(images[0], folder), str(row["query"]), str(row.get("response") or ""), list(objects))


def _place(image: Any, folder: Path) -> Any:
    """A path relative to the folder becomes absolute; URLs, pictures and `{"bytes": …}` stay."""
    if isinstance(image, dict):
        return image.get("bytes") or _place(image.get("path"), folder)
    if isinstance(image, str) and "://" not in image:
        return folder / Path(image).expanduser()
    return image
