"""How fast a run trains: images per second, and the share of the time in which it waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback


@dataclass
class _Window:
    """What was measured since a moment."""

    images: int = 0
    seconds: float = 0.0
    seconds_of_waiting: float = 0.0

    def to_log(self) -> dict[str, float]:
        if not self.seconds:
            return {}
        return {
            "images_per_second": round(self.images / self.seconds, 3),
            "data_wait": round(self.seconds_of_waiting / self.seconds, 4),
        }


class ThroughputMeter(TrainerCallback):
    """Measures optimizer steps from the request for their data to their end: validation and checkpoints do not count."""

    def __init__(self) -> None:
        self._recent, self._whole = _Window(), _Window()
        self._started = 0.0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Measure a block that fetches the data of the next step."""
        self._started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - self._started
            for window in (self._recent, self._whole):
                window.seconds_of_waiting += seconds

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Add the duration of a step."""
        seconds = time.perf_counter() - self._started
        for window in (self._recent, self._whole):
            window.seconds += seconds

    def count_images(self, number: int) -> None:
        """Add the images of the next step."""
        for window in (self._recent, self._whole):
            window.images += number

    def take_recent(self) -> dict[str, float]:
        """Return `images_per_second` and `data_wait`, from 0 to 1, since the last call. Without a step there are none."""
        recent, self._recent = self._recent, _Window()
        return recent.to_log()

    def describe_run(self) -> dict[str, float]:
        """Return the same of the whole run."""
        return self._whole.to_log()
