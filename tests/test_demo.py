"""The sample pictures, what florence-2-nano says about them, and the demo that shows it."""

import numpy as np
import pytest
from PIL import Image

from florence_lab.cli import main
from florence_lab.predictor import load
from florence_lab.scenes import HELD_OUT_SEEDS, SAMPLES, caption_counts, object_counts, sample_path, sample_scene
from florence_lab.tasks import TASKS


@pytest.fixture(scope="module")
def nano():
    return load("florence-2-nano")


def iou(a, b):
    shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def assert_right(result, truth):
    """Every instance of the truth found once, by its name, at IoU 0.5 or more, and nothing else."""
    assert sorted(result.labels) == sorted(truth.labels)
    free = set(range(len(truth)))
    for label, box in zip(result.labels, result.boxes, strict=True):
        match = max((i for i in free if truth.labels[i] == label), key=lambda i: iou(box, truth.boxes[i]))
        assert iou(box, truth.boxes[match]) >= 0.5, (label, box, truth.boxes[match])
        free.remove(match)


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
def test_nano_finds_what_is_there(nano, name):
    assert_right(nano.predict(sample_path(name), "<OD>"), sample_scene(name).answer("<OD>"))


@pytest.mark.parametrize("name", SAMPLES)
def test_nano_says_what_is_there(nano, name):
    assert caption_counts(nano.predict(sample_path(name), "<CAPTION>").text) == object_counts(sample_scene(name))


@pytest.mark.parametrize("name", SAMPLES)
def test_nano_grounds_a_caption(nano, name):
    scene = sample_scene(name)
    caption = scene.answer("<CAPTION>").text
    result = nano.predict(sample_path(name), "<CAPTION_TO_PHRASE_GROUNDING>", caption)
    assert_right(result, scene.answer("<CAPTION_TO_PHRASE_GROUNDING>", caption))


def test_the_demo_answers_every_task_and_draws_them(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for task in TASKS.values():
        assert f"\n{task.token}" in f"\n{printed}"
        assert task.prompt.split("{input}")[0] in printed
    assert str(tmp_path / "gallery.png") in printed
    with Image.open(tmp_path / "gallery.png") as gallery:
        assert min(gallery.size) > 800
