"""Calls with a time limit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def run_with_timeout(seconds: float, function: Callable[[], T]) -> T:
    """Return `function()`, or raise a `TimeoutError` after a number of seconds.

    The limit covers the whole call, unlike the timeouts of sockets, which restart with each address tried and each byte read.
    An abandoned call continues in a daemon thread, which does not keep the program from exiting.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # raised in the caller's thread
            outcome.set_exception(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome.done():
        raise TimeoutError(f"no answer within {seconds:g} s")
    return outcome.result()
