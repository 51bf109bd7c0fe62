"""Rows before validation."""

import numpy as np
import pytest

from florence_lab.data.rows import InvalidRow, RowError, class_name, to_row_error


@pytest.mark.parametrize("names", [["dog", "cat"], ("dog", "cat"), {0: "dog", 1: "cat"}, {"0": "dog", "1": "cat"}])
def test_a_class_number_becomes_the_name_of_the_class(names):
    assert [class_name(label, names) for label in (1, np.int32(0), "bird")] == ["cat", "dog", "bird"]
    with pytest.raises(InvalidRow, match="unknown class number: 2"):
        class_name(2, names)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidRow("invalid box", "5"), RowError("a.csv, row 2", "invalid box", "5")),
        (KeyError("width"), RowError("a.csv, row 2", "cannot be read", "KeyError: 'width'")),
        (RecursionError(), RowError("a.csv, row 2", "cannot be read", "RecursionError: RecursionError")),
    ],
)
def test_every_exception_becomes_the_error_of_its_row(error, expected):
    assert to_row_error(error, "a.csv, row 2") == expected
