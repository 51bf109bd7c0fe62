"""The demo: every task on a sample image."""

import dataclasses

import pytest
from PIL import Image

from florence_lab.cli.demo import demo_input, predict_demo, run_demo
from florence_lab.evaluation.metrics import metric_suite
from florence_lab.evaluation.suites import SCENE_METRIC_SUITES
from florence_lab.scenes import sample_scene
from florence_lab.tasks import TASKS, Task, get_task

COUNT = Task("<COUNT>", "How many {input} are there?", "phrase", "text", "the number of objects", example="sheep")


def test_a_task_without_an_entry_takes_its_example_on_the_first_sample():
    assert demo_input(COUNT) == ("sheep", "sheep")
    assert demo_input(get_task("<OD>")) == ("sheep", None)


def test_a_region_task_takes_the_box_of_an_object_of_its_sample():
    sample, region = demo_input(get_task("<REGION_TO_OCR>"))
    assert sample == "snow"
    assert region in [item.box for item in sample_scene("snow").objects if item.label == "sign"]


def test_every_task_is_answered_once(nano, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TASKS, COUNT.token, COUNT)
    without_example = dataclasses.replace(COUNT, token="<COUNT_AGAIN>", example=None)
    monkeypatch.setitem(TASKS, without_example.token, without_example)
    expected = [token for token in TASKS if token != "<COUNT_AGAIN>"]
    path = run_demo(nano, tmp_path)
    printed = capsys.readouterr().out
    lines = [line.split()[0] for line in printed.splitlines() if line.startswith("<")]
    assert lines == expected
    assert str(path) in printed
    with Image.open(path) as image:
        assert min(image.size) > 800


@pytest.mark.slow
def test_nano_answers_the_demo_correctly(nano):
    for result in predict_demo(nano):
        task = get_task(result.task)
        sample, text = demo_input(task)
        truth = sample_scene(sample).answer(task.token, text)
        minimum = 0.75 if task.result == "polygons" else 0.99
        assert metric_suite(task, SCENE_METRIC_SUITES).per_sample(result, truth) >= minimum, result.raw
