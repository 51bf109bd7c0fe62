"""What everything that waits for a network needs: an end to the waiting, and one line on what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def call_within(seconds: float, call: Callable[[], T]) -> T:
    """Return `call()`, or raise `TimeoutError` after `seconds` in all, whatever `call` is stuck in.

    Sockets' own timeouts start again with each address tried and each byte read. The abandoned call goes on
    in a daemon thread, which keeps no program from ending.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # handed to the caller's thread, which raises it
            outcome.set_exception(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome.done():
        raise TimeoutError(f"no answer within {seconds:g} s")
    return outcome.result()


def root_cause(error: BaseException) -> str:
    """One line on why: the innermost of chained errors, which network libraries wrap in several more."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
