"""A second CUDA stream, on which the next batch is encoded while the present one is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

T = TypeVar("T")


class SideStream:
    """Runs kernels beside those of the current stream, both from one thread.

    Its kernels start after those that have been launched on the current stream, as the two may share buffers.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._device = device

    def launch(self, function: Callable[[], T]) -> tuple[T, torch.cuda.Event]:
        """Call a function that launches kernels, and return its value and the event of their end."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            value = function()
            return value, self._stream.record_event()

    def join(self, event: torch.cuda.Event, tensors: Iterable[torch.Tensor] = ()) -> None:
        """Let the current stream wait for an event, after which it may use tensors that the function computed."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(event)
        for tensor in tensors:
            tensor.record_stream(current)  # their memory is not reused before

    def join_all(self) -> None:
        """Let the current stream wait for everything that has been launched."""
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
