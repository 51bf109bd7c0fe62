"""The kinds of errors, and the table by class."""

import math

import pytest
from support import boxes

from florence_lab.evaluation import ERROR_KINDS, classify_errors, count_errors, measure_classes

CAT, DOG = ("cat", 0, 0, 10, 10), ("dog", 50, 50, 60, 60)


@pytest.mark.parametrize(
    ("predicted", "kinds", "missed"),
    [
        ([CAT, DOG], ["correct", "correct"], []),
        ([CAT, DOG, ("cat", 0, 0, 10, 9)], ["correct", "correct", "duplicate"], []),
        ([CAT, ("dog", 56, 50, 66, 60)], ["correct", "localization"], []),
        ([CAT, ("cat", 50, 50, 60, 60)], ["correct", "classification"], []),
        ([CAT, ("cat", 56, 50, 66, 60)], ["correct", "both"], [1]),
        ([CAT, ("dog", 80, 80, 90, 90)], ["correct", "background"], [1]),
        ([], [], [0, 1]),
    ],
)
def test_each_kind_of_error(predicted, kinds, missed):
    errors = classify_errors(boxes(*predicted), boxes(CAT, DOG))
    assert (errors.kinds, errors.missed) == (kinds, missed)


def test_everything_is_background_where_nothing_is():
    assert classify_errors(boxes(CAT), boxes()).kinds == ["background"]


def test_the_duplicate_is_the_worse_box():
    """Matching is by the number of matches, so that either of two good boxes may be the duplicate."""
    assert sorted(classify_errors(boxes(CAT, CAT), boxes(CAT)).kinds) == ["correct", "duplicate"]


def test_errors_are_counted_over_images():
    counts = count_errors([boxes(CAT), boxes(DOG)], [boxes(CAT), boxes(CAT)])
    assert counts == dict.fromkeys(ERROR_KINDS, 0) | {"correct": 1, "background": 1, "missed": 1}


def test_the_table_has_a_row_for_each_class():
    frame = measure_classes([boxes(CAT, DOG), boxes()], [boxes(CAT), boxes(CAT, ("cow", 1, 1, 5, 5))])
    rows = frame.set_index("class")
    assert list(rows.index) == ["cat", "cow", "dog"]
    assert rows.loc["cat"][["true", "predicted", "precision", "recall", "missed"]].tolist() == [2, 1, 1, 0.5, 1]
    assert (rows.loc["dog", "precision"], rows.loc["cow", "recall"]) == (0, 0)
    assert math.isnan(rows.loc["dog", "recall"])


def test_no_images_give_no_rows():
    assert len(measure_classes([], [])) == 0
