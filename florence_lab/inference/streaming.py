"""TODO"""

from __future__ import annotations

import queue

import torch
from transformers.generation.streamers import BaseStreamer


class _TokenQueue(BaseStreamer):
    """Hands generated tokens to another thread."""

    def __init__(self) -> None:
        self.queue: queue.Queue[list[int] | BaseException | None] = queue.Queue()

    def put(self, value: torch.Tensor) -> None:
        self.queue.put(value.flatten().tolist())

    def end(self) -> None:
        """The end is announced by the thread itself, after a last look for errors."""


def _flags(ids: torch.Tensor, value: bool) -> torch.Tensor:
    return torch.full((len(ids),), value, dtype=torch.bool, device=ids.device)
