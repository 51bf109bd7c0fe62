"""Traces that the tests of the room share."""

import pytest

from florence_lab.interpret import trace
from florence_lab.scenes import draw_scene, sample_path


@pytest.fixture(scope="session")
def scene():
    return draw_scene(92, (320, 180))


@pytest.fixture(scope="session")
def caption(nano):
    return trace(nano, sample_path("street"), "<CAPTION>")


@pytest.fixture(scope="session")
def detection(nano, scene):
    return trace(nano, scene.image, "<OD>", top_k=3)
