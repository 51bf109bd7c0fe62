"""Fixtures of the tests of evaluation."""

import pytest

from florence_lab.data.examples import Example, SceneReference
from florence_lab.evaluation import scene_examples
from florence_lab.scenes import HELD_OUT_SEEDS
from florence_lab.tasks import TASKS, Task, register_task
from florence_lab.template.prompts import build_prompt

SCENE = SceneReference(seed=7, size=64)


@pytest.fixture(scope="session")
def scene_sample():
    """Examples of all tasks about 25 held-out scenes."""
    return list(scene_examples(HELD_OUT_SEEDS[:25], size=192))


@pytest.fixture
def make_example():
    """Return an example about an image, by default a scene of 64 x 64 pixels."""

    def make(query, target="", image=SCENE, source="row 1"):
        return Example(image, build_prompt(query), target, source, (64, 64))

    return make


@pytest.fixture
def sixteenth_task():
    """A registered task that the package does not know."""
    task = register_task(Task("<COUNT_BOXES>", "Count the boxes of {input}.", "phrase", "boxes", "", example="cars"))
    yield task
    del TASKS[task.token]
