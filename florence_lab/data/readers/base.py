"""`Reader`: what a dataset format implements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from ...exceptions import DatasetError, shorten
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
        """Return one row, or the `RowError` of an invalid one. Threads may read rows at the same time.

        It raises nothing once `check` has passed: every fault of a row is a `RowError`.
        """
        ...


def choose(spec: DatasetSpec, option: str, known: Sequence[str]) -> str:
    """Return the value of an option that has a few possible values; the first is the default.

    Raises:
        DatasetError: for another value.
    """
    value = spec.options.get(option, known[0])
    if value not in known:
        raise DatasetError(f"{spec.name}: {option} must be one of {', '.join(known)}, not {shorten(value)}")
    return value
