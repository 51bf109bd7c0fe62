"""Shutting down the kernels of pages that were left."""

import asyncio

import pytest

from florence_lab.explorer.kernel_watch import FIRST_CONNECTION_SECONDS, RECONNECT_SECONDS, KernelWatch


class FakeManager:
    """Kernels with a number of connections each."""

    def __init__(self):
        self.connections = {}
        self.killed = []
        self.gate = None

    def list_kernels(self):
        return [{"id": key, "connections": count} for key, count in self.connections.items()]

    async def shutdown_kernel(self, kernel_id, now=False):
        if self.gate is not None:
            await self.gate.wait()
        del self.connections[kernel_id]
        if now:
            self.killed.append(kernel_id)


@pytest.fixture
def manager():
    return FakeManager()


def watch(manager, *steps):
    """Check at the times of the steps, each of which sets connections before; return the watch."""
    time = 0
    kernel_watch = KernelWatch(manager, clock=lambda: time)
    for time, connections in steps:  # noqa: B007 - the clock reads it
        manager.connections.update(connections)
        asyncio.run(kernel_watch.check())
    return kernel_watch


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ([(0, {"a": 0}), (FIRST_CONNECTION_SECONDS, {})], ["a"]),
        ([(0, {"a": 0}), (FIRST_CONNECTION_SECONDS + 1, {})], []),
        ([(0, {"a": 1}), (1000, {})], ["a"]),
        ([(0, {"a": 1}), (10, {"a": 0}), (RECONNECT_SECONDS, {})], ["a"]),
        ([(0, {"a": 1}), (10, {"a": 0}), (RECONNECT_SECONDS + 1, {})], []),
        ([(0, {"a": 1}), (10, {"a": 0}), (15, {"a": 1}), (1000, {})], ["a"]),
        ([(0, {"a": 1, "b": 1}), (1, {"a": 0}), (100, {})], ["b"]),
    ],
    ids=["waits", "nobody came", "in use", "reconnects", "left", "came back", "one of two left"],
)
def test_a_kernel_lives_as_long_as_somebody_uses_it(manager, steps, left):
    watch(manager, *steps)
    assert list(manager.connections) == left


def test_a_kernel_that_is_being_shut_down_does_not_count_and_is_shut_down_once(manager):
    async def run():
        manager.gate = asyncio.Event()
        manager.connections = {"a": 0, "b": 1}
        kernel_watch = KernelWatch(manager)
        tasks = [asyncio.create_task(kernel_watch.close("a")) for _ in range(2)]
        await asyncio.sleep(0)
        assert kernel_watch.count == 1
        manager.gate.set()
        await asyncio.gather(*tasks)  # the second would fail, as the kernel is gone
        assert kernel_watch.count == 1

    asyncio.run(run())


def test_closing_a_kernel_that_is_gone_does_nothing(manager):
    asyncio.run(KernelWatch(manager).close("unknown", now=True))
    assert manager.killed == []
