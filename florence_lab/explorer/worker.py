"""Hearing what one thread is warned of.

`warnings.catch_warnings` is about all threads. Two of them in it at once, as when one loads a model and another asks, would
put back each other's settings, and nobody would be warned of anything any more.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PACKAGE = Path(__file__).parents[1]

_lock = threading.Lock()
_heard: dict[int, list[str]] = {}  # thread -> what it has been warned of since it listens
_settings = ExitStack()  # closing it puts back Python's


@contextmanager
def listening() -> Iterator[list[str]]:
    """What florence_lab warns this thread of within the block; nothing else of this thread is shown, all of others is."""
    thread, heard = threading.get_ident(), []
    with _lock:
        if not _heard:
            _start()
        _heard[thread] = heard
    try:
        yield heard
    finally:
        with _lock:
            del _heard[thread]
            if not _heard:
                _settings.close()


def _start() -> None:
    _settings.enter_context(warnings.catch_warnings())
    warnings.simplefilter("always", UserWarning)  # a second time, too
    show = warnings.showwarning

    def hear(message: Warning, category: type[Warning], filename: str, *where: object) -> None:
        heard = _heard.get(threading.get_ident())
        if heard is None:
            show(message, category, filename, *where)
        elif issubclass(category, UserWarning) and Path(filename).is_relative_to(PACKAGE):
            heard.append(str(message))

    warnings.showwarning = hear
