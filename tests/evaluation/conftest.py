"""Fixtures of the tests of evaluation."""

import pytest

from florence_lab.evaluation import scene_examples
from florence_lab.scenes import HELD_OUT_SEEDS


@pytest.fixture(scope="session")
def scene_sample():
    """Examples of all tasks about 25 held-out scenes."""
    return list(scene_examples(HELD_OUT_SEEDS[:25], size=192))
