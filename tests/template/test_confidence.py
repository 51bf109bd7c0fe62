"""The confidence of instances."""

import warnings

import numpy as np
import pytest

from florence_lab.template.confidence import instance_score


def spread(*rows: dict[int, float]) -> np.ndarray:
    """Probabilities of location tokens, a row for each coordinate, from {bin: probability}."""
    table = np.zeros((len(rows), 1000))
    for row, entries in zip(table, rows, strict=True):
        row[list(entries)] = list(entries.values())
    return table


BOX = (100, 200, 300, 600)  # 200 x 400 bins: the tolerance is 50 for an x and 100 for a y
PROBABILITIES = (
    {100: 0.5, 50: 0.1, 150: 0.2, 49: 0.1, 151: 0.1},  # 0.8 within the tolerance
    {200: 0.25, 100: 0.125, 300: 0.125, 99: 0.3, 301: 0.2},  # 0.5
    {300: 1.0},
    {600: 0.0, 601: 0.9},  # the generated bin itself is unlikely, as in sampling: 0.9
)
NO_LABEL = np.array([])


def test_the_score_of_a_box_equals_the_formula_computed_by_hand():
    score = instance_score(np.array([0.9, 0.5]), spread(*PROBABILITIES), BOX)
    assert score == pytest.approx(0.9 * 0.5 * 0.8 * 0.5 * 0.9)


def test_the_score_without_a_label_is_that_of_the_location():
    assert instance_score(NO_LABEL, spread(*PROBABILITIES), BOX) == pytest.approx(0.8 * 0.5 * 0.9)


@pytest.mark.parametrize("n", [8, 6, 30])
def test_a_quad_and_a_polygon_weigh_as_much_as_a_box(n):
    bins = [0, 0, 900, 0, 900, 900, *([450] * (n - 6))]
    assert instance_score(np.array([0.5]), spread(*[{b: 0.5} for b in bins]), bins) == pytest.approx(0.5**5)


def test_the_tolerance_is_at_least_one_bin():
    rows = [{7: 0.5, 8: 0.25, 6: 0.125, 9: 0.1, 5: 0.025}] * 4
    assert instance_score(NO_LABEL, spread(*rows), (7, 7, 7, 7)) == pytest.approx(0.875**4)
    assert instance_score(NO_LABEL, spread({0: 1.0}, {0: 0.5, 1: 0.5}, {1: 1}, {999: 1.0}), (0, 0, 0, 999)) == 1


def test_a_long_polygon_does_not_underflow():
    bins = np.resize([0, 0, 900, 900], 900)
    table = spread(*[{int(b): 0.01} for b in bins])
    assert np.prod(table.max(axis=1)) == 0  # the plain product does
    assert instance_score(NO_LABEL, table, bins) == pytest.approx(0.01**4)


def test_an_excluded_location_scores_zero_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert instance_score(np.array([1.0]), spread({500: 1.0}, *PROBABILITIES[1:]), BOX) == 0


def test_rounded_sums_never_exceed_one():
    score = instance_score(np.array([1.0], np.float32), spread(*[{b: 1 + 1e-6} for b in BOX]), BOX)
    assert score == 1
    assert isinstance(score, float)


def test_a_higher_probability_gives_a_higher_score():
    rng = np.random.default_rng(0)
    label, table = rng.uniform(0.1, 0.9, 3), spread(*[{b: rng.uniform(0.1, 0.9)} for b in BOX])
    before = instance_score(label, table, BOX)
    for i in range(3):
        assert instance_score(label + 0.1 * (np.arange(3) == i), table, BOX) > before
    for i, b in enumerate(BOX):
        higher = table.copy()
        higher[i, b] += 0.1
        assert instance_score(label, higher, BOX) > before
