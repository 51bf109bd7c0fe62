"""Scenes that the tests of this room share. They are frozen; drawing them takes most of the time."""

import pytest

from florence_lab.scenes import draw_scene

SIDE = 192


@pytest.fixture(scope="session")
def many_scenes():
    """The scenes of 60 held-out seeds at 192 x 192 pixels."""
    return [draw_scene(seed, SIDE) for seed in range(60)]


@pytest.fixture(scope="session")
def scenes(many_scenes):
    """The first 24 of them."""
    return many_scenes[:24]


@pytest.fixture(scope="session")
def four_sheep():
    """A held-out scene of four white sheep in a field."""
    return draw_scene(849, SIDE)
