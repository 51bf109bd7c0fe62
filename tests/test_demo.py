"""The sample pictures, what florence-2-nano says about them, and the demo that shows it."""

import numpy as np
import pytest
from PIL import Image

from florence_lab.cli import main
from florence_lab.cli.demo import question
from florence_lab.evaluation.metrics import metric_suite
from florence_lab.evaluation.suites import SCENE_METRIC_SUITES
from florence_lab.predictor import load
from florence_lab.scenes import HELD_OUT_SEEDS, SAMPLES, sample_path, sample_scene
from florence_lab.tasks import TASKS

WHOLE = [task for task in TASKS if TASKS[task].input == "none"] + ["<CAPTION_TO_PHRASE_GROUNDING>"]


@pytest.fixture(scope="module")
def nano():
    return load("florence-2-nano")


def score(answer, ground_truth):
    """How well an answer agrees with the ground truth, 0..1."""
    per_sample = metric_suite(TASKS[answer.task], SCENE_METRIC_SUITES).per_sample
    if answer.raw == ground_truth.raw == "":  # undefined
        return 1
    return per_sample(answer, ground_truth)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_its_scene(name):
    shipped = np.asarray(Image.open(sample_path(name)).convert("RGB"), int)
    drawn = np.asarray(sample_scene(name).image, int)
    assert SAMPLES[name] in HELD_OUT_SEEDS
    # other releases of Pillow and FreeType may smooth an edge differently
    assert np.abs(shipped - drawn).mean() < 1


def test_an_unknown_sample_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'sheep'"):
        sample_path("sheeps")


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("task", WHOLE)
def test_nano_is_right_about_whole_samples(nano, name, task):
    scene = sample_scene(name)
    text = scene.answer("<CAPTION>").text if TASKS[task].input == "phrase" else None
    assert score(nano.predict(sample_path(name), task, text), scene.answer(task, text)) == 1


@pytest.mark.parametrize("task", TASKS)
def test_the_demo_is_right(nano, task):
    name, text = question(task)
    answer = nano.predict(sample_path(name), task, text)
    least = 0.75 if "SEGMENTATION" in task else 1
    assert score(answer, sample_scene(name).answer(task, text)) >= least, answer.raw


def test_the_demo_answers_every_task_and_draws_them(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for task in TASKS.values():
        assert f"\n{task.token}" in f"\n{printed}"
        assert task.prompt.split("{input}")[0] in printed
    assert str(tmp_path / "gallery.png") in printed
    with Image.open(tmp_path / "gallery.png") as gallery:
        assert min(gallery.size) > 800
