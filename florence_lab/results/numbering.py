"""Ids of classes that are the same in many results."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ..exceptions import ArgumentError


class Numbered(Protocol):
    """A result as the numbering of its classes needs it."""

    @property
    def class_names(self) -> np.ndarray:
        """N strings, the name of the class of each instance."""

    def class_numbers(self) -> Mapping[str, int] | None:
        """Return class name -> id as the result numbers its classes; None if it does not, or not uniquely."""


def number_classes(results: Sequence[Numbered], classes: Sequence[str] | None) -> dict[str, int]:
    """Return the index of each class name: in `classes`, as `class_ids` number it, or in the order of first occurrence.

    Raises:
        ArgumentError: for a name that is not in `classes`.
    """
    names = dict.fromkeys(name for result in results for name in result.class_names.tolist())
    if classes is None and (numbered := _numbered_classes(results)):
        return numbered
    if classes is None:
        return {name: i for i, name in enumerate(names)}
    ids = {name: i for i, name in enumerate(classes)}
    if unknown := [name for name in names if name not in ids]:
        raise ArgumentError(
            f"labels that are not in classes: {', '.join(map(repr, unknown[:5]))}; select the others with "
            "result[np.isin(result.labels, classes)], or rename them with result.with_labels(…)"
        )
    return ids


def _numbered_classes(results: Sequence[Numbered]) -> dict[str, int]:
    """Return class name -> id as all results number them; empty if some do not, or if they differ."""
    ids: dict[str, int] = {}
    for result in results:
        numbers = result.class_numbers()
        if numbers is None or any(ids.setdefault(name, i) != i for name, i in numbers.items()):
            return {}
    is_unique = len(set(ids.values())) == len(ids)
    return dict(sorted(ids.items(), key=operator.itemgetter(1))) if is_unique else {}
