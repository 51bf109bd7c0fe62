"""Files of predictions, such as `answers.jsonl`: reading, and appending to what an interrupted run has left."""

from __future__ import annotations

import codecs
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..argument_validation import validate_arguments
from ..exceptions import DatasetError, summarize_error
from .predictions import Prediction

ANSWERS_FILE = "answers.jsonl"

logger = logging.getLogger(__name__)


@validate_arguments
def read_predictions(path: str | Path) -> list[Prediction]:
    """Read a file that `predict_dataset`, `Evaluation.save` or `florence-lab infer` wrote.

    A last line that an interrupted run has left incomplete is ignored.

    Raises:
        DatasetError: for a file that cannot be read, and for a line that is no prediction; the message names it.
    """
    return [prediction for _, prediction in read_lines(Path(path))]


@validate_arguments
def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Append predictions to a JSON lines file, see `append_rows`."""
    append_rows(path, (prediction.to_json() for prediction in predictions))


def append_rows(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append rows to a JSON lines file in UTF-8.

    Lone surrogates, as in the name of a file that is not UTF-8, are escaped, so that they are read as they were. A last line
    that an interrupted run has left incomplete is removed.
    """
    path = Path(path)
    _end_last_line(path)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with path.open("ab") as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def read_lines(path: Path) -> list[tuple[bytes, Prediction]]:
    """Return the lines of a file without blank ones, each with its prediction.

    Raises:
        DatasetError: as `read_predictions`.
    """
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    rows = []
    # not splitlines: texts may contain other separators, such as U+2028
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            if line.strip():
                rows.append((line, Prediction.from_json(json.loads(line.decode("utf-8")))))
        except (ValueError, RecursionError) as error:
            is_last = number == content.count(b"\n") + 1
            if is_last and _is_torn(line):
                logger.warning("%s: the last line is incomplete and is ignored", path)
            else:
                raise DatasetError(f"{path}, line {number} is not a prediction: {summarize_error(error)}") from error
    return rows


def _is_torn(line: bytes) -> bool:
    """Whether a line without end is what an interrupted run leaves: a part of a row, or the zeros of a file system."""
    return line.lstrip(b"\0")[:1] in (b"", b"{")


def _end_last_line(path: Path) -> None:
    """End the last line of a file, or remove it if it is incomplete."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        content = file.read()
        start = content.rfind(b"\n") + 1
        try:
            json.loads(content[start:].decode("utf-8"))
        except (ValueError, RecursionError):
            if _is_torn(content[start:]):
                file.truncate(start)
                return
        file.write(b"\n")
