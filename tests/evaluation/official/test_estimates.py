"""Bootstrap intervals and paired comparisons."""

import math

import numpy as np
import pytest

from florence_lab.evaluation.official import bootstrap_interval, mean_estimate, paired_difference, ratio_estimate

RNG = np.random.default_rng(0)
VALUES = RNG.random(400)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    estimate = mean_estimate(VALUES)
    low, high = bootstrap_interval(estimate, range(400))
    margin = 1.96 * VALUES.std() / math.sqrt(400)
    assert estimate.value == pytest.approx(VALUES.mean())
    assert (low, high) == pytest.approx((VALUES.mean() - margin, VALUES.mean() + margin), abs=0.004)


def test_questions_about_one_image_are_drawn_together():
    """Ten copies of each sample carry no more information than one."""
    copies = mean_estimate(np.repeat(VALUES, 10))
    low, high = bootstrap_interval(copies, np.repeat(np.arange(400), 10).tolist())
    narrow_low, narrow_high = bootstrap_interval(copies, range(4000))
    assert high - low > 2.5 * (narrow_high - narrow_low)


def test_undefined_values_are_left_out():
    assert mean_estimate([1, math.nan, 0]).value == 0.5
    assert math.isnan(mean_estimate([]).value)


def test_a_ratio_divides_sums():
    assert ratio_estimate([1, 90], [10, 100]).value == 91 / 110


def test_one_image_has_no_interval():
    assert bootstrap_interval(mean_estimate([1, 0]), ["a", "a"]) is None


def test_equal_runs_do_not_differ():
    difference = paired_difference(mean_estimate(VALUES), mean_estimate(VALUES), range(400))
    assert difference == (0, (0, 0), 1)


def test_a_small_but_constant_gain_is_found_by_pairing():
    better = VALUES + 0.02 + 0.01 * RNG.standard_normal(400)
    difference = paired_difference(mean_estimate(VALUES), mean_estimate(better), range(400))
    assert difference.value == pytest.approx(0.02, abs=0.003)
    assert difference.interval.low > 0.015
    assert difference.p_value < 0.01
    # without pairing the two intervals overlap
    assert (
        bootstrap_interval(mean_estimate(VALUES), range(400)).high
        > bootstrap_interval(mean_estimate(better), range(400)).low
    )


def test_noise_is_not_significant():
    other = VALUES + 0.1 * RNG.standard_normal(400)
    difference = paired_difference(mean_estimate(VALUES), mean_estimate(other), range(400))
    assert difference.interval.low < 0 < difference.interval.high
    assert difference.p_value > 0.05
