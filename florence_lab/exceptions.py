"""Exceptions and warnings of the package."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class FlorenceLabError(Exception):
    """Base class of the package's own exceptions."""


class ArgumentError(FlorenceLabError, ValueError):
    """An argument whose value is out of its range, or not one of the permitted values."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument of a type that the function does not accept."""


class PromptError(FlorenceLabError, ValueError):
    """A misspelled task token, a missing input, or an input that the task does not accept."""


class ImageError(FlorenceLabError, ValueError):
    """A source that is not an image or cannot be read."""


class CheckpointError(FlorenceLabError, ValueError):
    """A folder that cannot be loaded as a Florence-2 checkpoint."""


class HubError(FlorenceLabError, OSError):
    """Model files that are neither on this machine nor can be downloaded."""


class DatasetError(FlorenceLabError, ValueError):
    """A dataset that cannot be read."""


class TrainingError(FlorenceLabError, RuntimeError):
    """A training run that cannot start or continue."""


class GenerationInterrupted(Exception):
    """Raised within the model when `inference.generation.interruptible` is asked to stop."""


class FlorenceLabWarning(UserWarning):
    """Base class of the package's own warnings."""


_captured: ContextVar[list[str] | None] = ContextVar("florence_lab_captured_warnings", default=None)


def warn(message: str) -> None:
    """Issue a `FlorenceLabWarning` that points at the first caller outside the package.

    Within `capture_warnings` the message is collected instead.
    """
    captured = _captured.get()
    if captured is not None:
        captured.append(message)
        return
    skipped = ("torch", __name__.partition(".")[0])  # torch: the wrapper of a function under inference_mode
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in skipped:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, FlorenceLabWarning, stacklevel=level)


@contextmanager
def capture_warnings() -> Iterator[list[str]]:
    """Collect the messages of `warn` in a list instead of issuing them, until the block ends.

    Only this thread is affected. (`warnings.catch_warnings` changes the settings of all threads.)
    """
    messages: list[str] = []
    token = _captured.set(messages)
    try:
        yield messages
    finally:
        _captured.reset(token)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name: the closest known name, and all of them.

    Args:
        kind: what was named, as in "model_type".
        name: the name given. The comparison ignores case.
        known: the names that exist.
    """
    spelled = {str(item).lower(): str(item) for item in known}
    closest = difflib.get_close_matches(str(name).lower(), spelled, n=1)
    hint = f"; did you mean {spelled[closest[0]]!r}?" if closest else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(spelled.values())}"


def shorten(value: object, max_length: int = 80) -> str:
    """Return the `repr` of a value for a message: at most `max_length` characters, in a single line of valid Unicode."""
    try:
        text = repr(value)
    except Exception:  # a `__repr__` of the caller's own may raise anything
        text = f"<{type(value).__name__}>"
    text = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


def summarize_error(error: BaseException, max_length: int = 300) -> str:
    """Return the first line of an exception's message, or of its innermost cause, which network libraries wrap."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    return (str(error).strip() or type(error).__name__).splitlines()[0][:max_length]
