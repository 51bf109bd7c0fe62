"""Errors in processes of a `DataLoader`."""

from __future__ import annotations

import re

from ..exceptions import summarize_error

_MARKER = "in DataLoader worker process"
_LAST_LINE = re.compile(r"^(?P<type>[\w.]*(?:Error|Exception))\b(?:: (?P<message>.*))?$", re.MULTILINE)


def summarize_data_error(error: BaseException) -> str:
    """Return one line that describes an error, also if it was raised in a process of a `DataLoader`.

    torch raises such an error again in the main process, with the traceback of the worker as its message.
    """
    message = str(error)
    if _MARKER not in message:
        return summarize_error(error)
    *_, last = ["", *_LAST_LINE.finditer(message)]
    if not isinstance(last, re.Match):
        return message.strip().splitlines()[-1]
    is_own = last["type"].startswith("florence_lab.")  # their messages need no type
    return last["message"] if is_own and last["message"] else last[0]


def is_worker_error(error: BaseException) -> bool:
    """Return whether an error was raised in a process of a `DataLoader`, or is the end of that process."""
    return _MARKER in str(error) or str(error).startswith("DataLoader worker (pid")
