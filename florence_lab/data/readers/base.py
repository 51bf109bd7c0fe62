"""`Reader`: what a dataset format implements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from ..rows import RawRow, RowError
from ..spec import DatasetSpec


class Reader(Protocol):
    """Reads the rows of one dataset.

    A reader states what its source contains. `RowValidator` decides whether a row can be used.

    Attributes:
        options: the options that the format accepts: name -> help text.
    """

    options: ClassVar[Mapping[str, str]]

    def __init__(self, spec: DatasetSpec) -> None: ...

    def check(self) -> None:
        """Verify at once, and without reading images, that the dataset exists and has this format.

        Raises:
            DatasetError: if it does not.
        """

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def __getitem__(self, index: int) -> RawRow | RowError:
        """Return one row, or the `RowError` of an invalid one. Threads may read rows at the same time."""
        ...
