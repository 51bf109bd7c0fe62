"""TODO"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..template.locations import NUM_BINS


class RowError(NamedTuple):
    """A row that can't be trained on: the dataset, the row's number from 1 on, and what is wrong with it."""

    dataset: str
    row: int
    reason: str

    def __str__(self) -> str:
        return f"{self.dataset}, row {self.row}: {self.reason}"


@dataclass(frozen=True)
class Record:
    """A row as it was found. A box is still in the units of its file, since only the picture tells its pixels."""

    image: Any
    query: str
    response: str
    objects: list[dict] = field(default_factory=list)


class _Bad(ValueError):
    """What is wrong with a row: what kind of fault, a colon, and the particulars."""


BOX_UNITS: dict[str, Callable[[tuple[int, int]], np.ndarray]] = {
    "real": lambda size: np.ones(4),
    "norm_1000": lambda size: np.array(size * 2) / NUM_BINS,
    "norm_1": lambda size: np.array(size * 2, float),
}
"""bbox_type -> what its coordinates are to be multiplied with to be pixels of a picture of (width, height)."""
