"""Values that no parameter expects, each for many parameters: the pool that odd calls take their arguments from."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from florence_lab.tasks import TASKS


def _endless_list() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


ODD_VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "0": lambda: 0,
    "-1": lambda: -1,
    "1.5": lambda: 1.5,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "10**400": lambda: 10**400,
    "10**9": lambda: 10**9,
    "True": lambda: True,
    "1j": lambda: 1j,
    "Decimal": lambda: Decimal("0.5"),
    "''": lambda: "",
    "'x'": lambda: "x",
    "'<x>'": lambda: "<x>",
    "lone surrogate": lambda: "a\ud800",
    "null byte": lambda: "a\0b",
    "'x' * 10000": lambda: "x" * 10_000,
    "b'x'": lambda: b"x",
    "[]": list,
    "[5]": lambda: [5],
    "[None]": lambda: [None],
    "['a\\ud800']": lambda: ["a\ud800"],
    "[[1, 2], [3]]": lambda: [[1, 2], [3]],
    "list in itself": _endless_list,
    "{}": dict,
    "{'a': 1}": lambda: {"a": 1},
    "{1: None}": lambda: {1: None},
    "()": lambda: (),
    "(0, 0)": lambda: (0, 0),
    "set()": lambda: set(),
    "object()": object,
    "int": lambda: int,
    "print": lambda: print,
    "iterator": lambda: iter([5]),
    "missing path": lambda: Path("/nonexistent/x"),
    "unknown home": lambda: "~no_such_user/x",
    "empty array": lambda: np.zeros((0, 0)),
    "array of strings": lambda: np.array(["a", "b"]),
    "array of nan": lambda: np.full((2, 3), np.nan),
    "array of objects": lambda: np.array([None, {}], object),
    "array of dates": lambda: np.array(["2026-01-01"], "datetime64[D]"),
    "0-d array": lambda: np.array(3),
    "meta tensor": lambda: torch.zeros(3, 9, 9, device="meta"),
    "bool tensor": lambda: torch.ones(2, dtype=torch.bool),
    "image of 0 x 0": lambda: Image.new("RGB", (0, 0)),
    "a Task": lambda: TASKS["<OD>"],
}
"""Description -> a function that makes the value."""
