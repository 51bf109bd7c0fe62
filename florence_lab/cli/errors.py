"""How the command line reports exceptions."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from ..exceptions import FlorenceLabError

DEBUG_VARIABLE = "FLORENCE_LAB_DEBUG"
"""Environment variable that adds the traceback to the message of an error."""

EXPECTED_ERRORS = (FlorenceLabError, ValueError, OSError, RuntimeError, MemoryError)
"""Exceptions whose message is meant for the user. Any other one is an error of the program."""

_MAX_LENGTH = 2000  # of a message of another library, which may print tensors


def is_debugging() -> bool:
    """Return whether tracebacks are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "").lower() not in ("", "0", "false", "no")


def describe_error(error: BaseException) -> str:
    """Return the message of an exception: one line, except for messages of the package that list rows.

    An exception that the package does not expect is named by its type and the line that raised it.
    """
    message = str(error) or type(error).__name__
    if isinstance(error, FlorenceLabError):
        return message
    message = " ".join(message.split())
    message = message if len(message) <= _MAX_LENGTH else f"{message[:_MAX_LENGTH]}..."
    if isinstance(error, EXPECTED_ERRORS) and not isinstance(error, RecursionError):
        return message
    return f"internal error: {type(error).__name__}: {message}{_where(error)}; {DEBUG_VARIABLE}=1 shows the traceback"


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
