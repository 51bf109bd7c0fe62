"""Shuts down the kernels of the explorer's page that nobody uses any more."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

RECONNECT_SECONDS = 20
"""How long a kernel lives after its last connection has closed. A browser that lost its connection comes back sooner."""

FIRST_CONNECTION_SECONDS = 90
"""How long a kernel lives that nobody connects to, such as that of a program that fetches the page without JavaScript."""


class KernelManager(Protocol):
    """The part of jupyter_server's kernel manager that the watch uses."""

    def list_kernels(self) -> list[dict]:
        """Return one entry per kernel, with `id` and the number of open `connections`."""

    def shutdown_kernel(self, kernel_id: str, now: bool = False) -> Awaitable[None]:
        """Shut a kernel down; `now` kills it."""


@dataclass
class _Visit:
    last_used: float  # seconds, of the clock of the watch
    has_connected: bool = False
    is_closing: bool = False


class KernelWatch:
    """Shuts down kernels without a connection, also when a browser crashed and could not say that it leaves."""

    def __init__(self, manager: KernelManager, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a watch; `check` has to be called about once a second.

        Args:
            manager: the kernel manager of the server.
            clock: returns the time in seconds.
        """
        self._manager, self._clock = manager, clock
        self._visits: dict[str, _Visit] = {}

    @property
    def count(self) -> int:
        """The number of kernels that are running and are not being shut down."""
        kernel_ids = [kernel["id"] for kernel in self._manager.list_kernels()]
        return sum(not (key in self._visits and self._visits[key].is_closing) for key in kernel_ids)

    async def check(self) -> None:
        """Shut down the kernels that have had no connection for too long."""
        kernels = self._manager.list_kernels()
        now = self._clock()
        self._visits = {kernel["id"]: self._visits.get(kernel["id"]) or _Visit(now) for kernel in kernels}
        for kernel in kernels:
            visit = self._visits[kernel["id"]]
            if kernel["connections"] > 0:
                visit.last_used, visit.has_connected = now, True
            elif now - visit.last_used > (RECONNECT_SECONDS if visit.has_connected else FIRST_CONNECTION_SECONDS):
                await self.close(kernel["id"])

    async def close(self, kernel_id: str, now: bool = False) -> None:
        """Shut a kernel down, unless that has begun or it is gone.

        Args:
            kernel_id: of the kernel.
            now: kill it. Otherwise it has 5 seconds to end by itself.
        """
        if kernel_id not in {kernel["id"] for kernel in self._manager.list_kernels()}:
            return
        visit = self._visits.setdefault(kernel_id, _Visit(self._clock()))
        if not visit.is_closing:
            visit.is_closing = True
            await self._manager.shutdown_kernel(kernel_id, now=now)
