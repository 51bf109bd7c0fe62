"""TODO"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def run_with_timeout(seconds: float, call: Callable[[], T]) -> T:
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
