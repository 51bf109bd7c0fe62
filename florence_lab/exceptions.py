"""TODO"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a `name` not among the `known` ones: it suggests the nearest and lists them all.

    `kind` says what was being named, as in "model_type". Case does not count towards nearness.
    """
    spelled = {str(item).lower(): str(item) for item in known}
    nearest = difflib.get_close_matches(str(name).lower(), spelled, n=1)
    hint = f"; did you mean {spelled[nearest[0]]!r}?" if nearest else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(spelled.values())}"


class CheckpointError(ValueError):
    """A folder that can't be loaded as Florence-2: what is missing in it, or strange."""


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


class HubError(OSError):
    """A model's files are not on this machine and could not be brought here."""


def summarize_error(error: BaseException) -> str:
    """One line on why: the innermost of chained errors, which network libraries wrap in several more."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class ImageError(ValueError):
    """What was given is no image, or could not be read; the message names it and says why."""


class DatasetError(ValueError):
    """A dataset that can't be read at all; what is wrong with single rows is a `RowError` each."""


class TrainingError(RuntimeError):
    """A run that can't go on, or can't begin, and why."""
