"""`paint`: random numbers, colors and curves."""

import numpy as np
import pytest

from florence_lab.scenes.paint import RandomSource, mix, rotate, smooth_curve, word_extent


def test_the_random_stream_of_a_seed_never_changes():
    """Scenes are named by their seeds, so these values are part of the format."""
    rng = RandomSource(849)
    assert [rng.integer(0, 999) for _ in range(4)] == [2, 52, 660, 956]
    assert rng.seed() == 235487147098903


def test_weighted_choice_follows_the_weights():
    rng = RandomSource(1)
    drawn = [rng.weighted_choice({"a": 3, "b": 1, "never": 0}) for _ in range(2000)]
    assert drawn.count("a") / len(drawn) == pytest.approx(0.75, abs=0.03)
    assert "never" not in drawn


def test_integers_include_both_ends():
    rng = RandomSource(2)
    assert {rng.integer(3, 5) for _ in range(100)} == {3, 4, 5}


def test_mixing_interpolates_between_two_colors():
    assert mix((0, 100, 255), (100, 0, 255), 0.25) == (25, 75, 255)


def test_rotation_is_clockwise_on_the_screen():
    [(x, y)] = rotate([(2.0, 0.0)], 1.0, 0.0, 90)
    assert (x, y) == pytest.approx((1.0, 1.0))


def test_a_smooth_curve_passes_through_its_points():
    points = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)]
    assert smooth_curve(points, 5)[::5] == points


def test_capital_letters_have_the_same_height_in_all_words():
    assert word_extent("HI", "DejaVuSans")[1] == pytest.approx(1.0)
    assert np.greater(word_extent("HELLO", "DejaVuSans")[0], word_extent("HI", "DejaVuSans")[0])
