"""Reading files whose content nobody has checked: paths, encodings, JSON, and the image that a row names."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ...exceptions import DatasetError, shorten
from ..examples import ImageSource
from ..rows import InvalidRow
from ..spec import DatasetSpec

# "surrogateescape" turns a byte that is not UTF-8 into one of these, so that only the row that contains it is faulty
_UNDECODABLE_RE = re.compile("[\udc80-\udcff]")

_SAVE_AS_UTF8 = "save the file as UTF-8"


class Line(NamedTuple):
    """A line of a text file.

    Attributes:
        number: from 1.
        text: without the line break.
    """

    number: int
    text: str


def location_path(spec: DatasetSpec, example: str) -> Path:
    """Return the path of a dataset, with `~` expanded.

    Args:
        spec: the dataset.
        example: what a name with a path looks like, for the message.

    Raises:
        DatasetError: if the name has no path, or one that the system cannot have.
    """
    if not spec.location:
        raise DatasetError(f"{spec.kind}: is followed by a path, as in {example}")
    return expand_path(spec.location)


def image_folder(spec: DatasetSpec) -> Path | None:
    """Return the folder that the option `images` names; None without the option.

    Raises:
        DatasetError: if there is no such folder.
    """
    if "images" not in spec.options:
        return None
    folder = expand_path(spec.options["images"])
    if not spec.options["images"] or not is_folder(folder):
        raise DatasetError(f"{spec.name}: there is no folder {shorten(spec.options['images'])} of images")
    return folder


def expand_path(location: str) -> Path:
    """Return a path with `~` expanded.

    Raises:
        DatasetError: for a user that does not exist, and a null byte.
    """
    try:
        if "\0" in location:
            raise ValueError("it contains a null byte")
        return Path(location).expanduser()
    except (RuntimeError, ValueError) as error:
        raise DatasetError(f"the path {shorten(location)} cannot be used: {error}") from None


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder. A name that is too long is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Return whether a path is a file. A name that is too long is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DatasetError: if it cannot be read.
    """
    if is_folder(path):
        raise DatasetError(f"{path} is a folder, where a file is expected")
    if os.path.lexists(path) and not is_file(path):  # reading a pipe would wait for ever
        raise DatasetError(f"{path} is not a regular file, or a link to nothing")
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{shorten(str(path), 200)[1:-1]} cannot be read: {reason}") from error


def read_text(path: Path) -> str:
    """Return the content of a text file: UTF-8, or UTF-16 and UTF-32, with or without a byte order mark.

    A byte that is not UTF-8 becomes a lone surrogate, see `check_decodable`.

    Raises:
        DatasetError: if the file cannot be read, or begins as UTF-16 and continues otherwise.
    """
    data = read_bytes(path)
    encoding = json.detect_encoding(data)
    if encoding != "utf-8":
        try:
            return data.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "strict")
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path} begins as {encoding} but cannot be read: {error}; {_SAVE_AS_UTF8}") from None
    return data.decode("utf-8", "surrogateescape")


def is_decodable(text: str) -> bool:
    """Return whether text of `read_text` is UTF-8 as a whole."""
    return _UNDECODABLE_RE.search(text) is None


def check_decodable(text: str) -> None:
    """Verify that text of `read_text` contains no byte that is not UTF-8.

    Raises:
        InvalidRow: if it does.
    """
    if match := _UNDECODABLE_RE.search(text):
        byte = match[0].encode("utf-8", "surrogateescape")
        raise InvalidRow(
            "not UTF-8", f"byte 0x{byte.hex()} at character {match.start() + 1} of the text; {_SAVE_AS_UTF8}"
        )


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a text file that are not blank. Only a line feed ends a line, not U+2028 or U+0085.

    Raises:
        DatasetError: see `read_text`.
    """
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [Line(number, text.rstrip("\r")) for number, text in lines if text.strip()]


def parse_json(text: str) -> Any:
    """Return decoded JSON.

    Raises:
        InvalidRow: if the text is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise InvalidRow("invalid JSON", "nested too deeply") from None
    except ValueError as error:
        raise InvalidRow("invalid JSON", shorten(str(error), 200)[1:-1]) from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DatasetError: if the file cannot be read, is not JSON, or contains a byte that is not UTF-8.
    """
    text = read_text(path)
    try:
        check_decodable(text)
    except InvalidRow as error:
        raise DatasetError(f"{path}: {error}") from None
    return decode_json(text, path)


def decode_json(text: str, path: Path) -> Any:
    """Return the content of a JSON file.

    Args:
        text: the text of the file.
        path: the file, for messages.

    Raises:
        DatasetError: if the text is not JSON.
    """
    if not text.strip():
        raise DatasetError(f"{path} is empty")
    try:
        return parse_json(text)
    except InvalidRow as error:
        hint = "; a file with one object per line must end in .jsonl" if "Extra data" in error.details else ""
        raise DatasetError(f"{path} is not JSON: {error.details}{hint}") from None


def resolve_image(image: Any, folder: Path) -> ImageSource | None:
    """Return the source of an image that a row names.

    Args:
        image: a path, a URL, an image, or `{"path", "bytes"}`, whose bytes may be base64 text; None stays None.
        folder: paths are relative to it.

    Raises:
        InvalidRow: for anything else.
    """
    if isinstance(image, dict):
        return _decode_image(image, folder)
    if not isinstance(image, str):
        if isinstance(image, (int, float, list, tuple, set)):
            raise InvalidRow(
                "invalid image", f"expected a path, a URL or {{'path', 'bytes'}}, but got {shorten(image)}"
            )
        return image
    if "://" in image:
        return image
    if not image.strip():
        raise InvalidRow("invalid image", "the path is empty")
    try:
        return folder / Path(image).expanduser()
    except RuntimeError as error:
        raise InvalidRow("invalid image", f"{shorten(image)}: {error}") from None


def _decode_image(image: dict[str, Any], folder: Path) -> ImageSource | None:
    content = image.get("bytes")
    if not content:
        return resolve_image(image.get("path"), folder)
    if isinstance(content, str):
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRow("invalid image", "its bytes are not base64 text") from None
    if not isinstance(content, bytes):
        raise InvalidRow("invalid image", f"expected bytes or base64 text, but got {shorten(content)}")
    return content


def image_extensions() -> frozenset[str]:
    """Return the extensions of image files: those that Pillow reads, and HEIC, which it reads with pillow-heif."""
    from PIL import Image

    readable = {extension for extension, name in Image.registered_extensions().items() if name in Image.OPEN}
    return frozenset(readable | {".heic", ".heif"})


def find_images(folder: Path) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted by path. Hidden files are no images."""
    known = image_extensions()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in known and not path.name.startswith(".") and path.is_file()
    )


def list_names(names: Iterable[object], limit: int = 10) -> str:
    """Return names for a message, separated by commas; only the first ones if there are many."""
    shown = [str(name) for name in names]
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")
