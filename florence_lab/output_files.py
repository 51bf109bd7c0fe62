"""Output folders that are checked before long work, and files that are written completely or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .exceptions import ArgumentError, shorten


def prepare_output_folder(name: str, folder: str | Path) -> Path:
    """Create a folder, verify that a file can be written into it, and return it.

    Call it before expensive work, so that results are not lost because they cannot be written.

    Args:
        name: of the argument, for messages: `"--out"`.
        folder: the folder. Its parents are created as well.

    Raises:
        ArgumentError: if the folder cannot be created or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = _temporary_path(folder / "probe")
        try:
            probe.write_bytes(b"\n")  # an empty file can be created on a full disk
        finally:
            probe.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or error
        raise ArgumentError(
            f"{name} {shorten(str(folder), 300)} is not a folder that can be written to: {reason}"
        ) from error
    return folder


def prepare_output_file(name: str, path: str | Path) -> Path:
    """Create the folder of a file, verify that it can be written to, and return the path of the file.

    Args:
        name: of the argument, for messages.
        path: the file, which may exist.

    Raises:
        ArgumentError: if the path is a folder, or its folder cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise ArgumentError(f"{name} {shorten(str(path), 300)} is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        return path  # a device such as /dev/null
    prepare_output_folder(name, path.parent)
    return path


@contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of a file. At the end of the block, what was written to it replaces the file.

    If the block fails, the temporary file is removed and the file stays as it was. A symbolic link stays a link. Anything
    that is not a regular file, such as a device, is yielded itself.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    temporary = _temporary_path(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a file of UTF-8 through `replace_file`. Lone surrogates, as in names that are not UTF-8, are escaped: `\\udcff`."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file through `replace_file`."""
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


def _temporary_path(path: Path) -> Path:
    """A new hidden name in the folder of a file. The extension is kept, from which Matplotlib takes the format."""
    return path.with_name(f".{uuid.uuid4().hex}{path.suffix[:16]}")
