"""The suite of cartoon scenes."""

import math

import pytest

from florence_lab.data.examples import SceneReference
from florence_lab.evaluation import evaluate_scenes, scene_examples
from florence_lab.evaluation.suites import object_accuracy
from florence_lab.results import Text
from florence_lab.scenes import HELD_OUT_SEEDS, draw_scene
from florence_lab.tasks import TASKS


def caption(text):
    return Text(raw=text, image_size=(64, 64), text=text)


def test_each_task_is_asked_once_about_each_scene_that_has_an_input_for_it(scene_sample):
    counts = {task: sum(e.prompt.task.token == task for e in scene_sample) for task in TASKS}
    num_scenes_with_text = sum(e.prompt.task.token == "<OCR>" and e.target != "" for e in scene_sample)
    assert 0 < num_scenes_with_text < 25
    assert counts == dict.fromkeys(TASKS, 25) | {"<REGION_TO_OCR>": num_scenes_with_text}


def test_examples_are_the_same_each_time(scene_sample):
    first = list(scene_examples(HELD_OUT_SEEDS[:5], size=192))
    assert first == scene_sample[: len(first)]


def test_examples_refer_to_scenes_and_hold_no_images():
    example = next(scene_examples([HELD_OUT_SEEDS[3]], ["<OD>"], size=96))
    scene = draw_scene(HELD_OUT_SEEDS[3], 96)
    assert example.image == SceneReference(HELD_OUT_SEEDS[3], 96)
    assert example.load_image() == scene.image
    assert example.ground_truth.to_dict() == scene.answer("<OD>").to_dict()


def test_registered_tasks_without_answers_of_scenes_are_left_out(sixteenth_task):
    tasks = {e.prompt.task.token for e in scene_examples(HELD_OUT_SEEDS[:1], size=64)}
    assert tasks
    assert sixteenth_task.token not in tasks


def test_captions_of_scenes_are_compared_by_the_objects_that_they_name():
    ground_truth = caption("Four white sheep in a field.")
    assert object_accuracy(caption("There are three white sheep and a sheep in a field."), ground_truth) == 1
    assert object_accuracy(caption("There are three white sheep in a field."), ground_truth) == 0
    assert object_accuracy(caption("Four white sheep and a cow in a field."), ground_truth) == 0


def test_object_accuracy_is_undefined_for_captions_of_other_images():
    assert math.isnan(object_accuracy(caption("a zebra eats grass"), caption("two giraffes stand near a fence")))


def test_evaluating_scenes_compares_captions_by_objects(small):
    evaluation = evaluate_scenes(small, HELD_OUT_SEEDS[:1], ["<CAPTION>"], max_new_tokens=4)
    assert evaluation.flat_metrics() == {"CAPTION/object_accuracy": 0}


# The README gives the values of 500 scenes; the bounds leave room for the variance of fewer scenes.
LOWER_BOUNDS = {
    "<CAPTION>": {"object_accuracy": 0.84},
    "<DETAILED_CAPTION>": {"object_accuracy": 0.84},
    "<MORE_DETAILED_CAPTION>": {"object_accuracy": 0.84},
    "<OD>": {"mAP@0.5": 0.90, "mAP@[.5:.95]": 0.80},
    "<DENSE_REGION_CAPTION>": {"F1@0.5": 0.92},
    "<REGION_PROPOSAL>": {"recall@0.5": 0.93},
    "<OCR>": {"word_accuracy": 0.85},
    "<CAPTION_TO_PHRASE_GROUNDING>": {"F1@0.5": 0.90},
    "<OPEN_VOCABULARY_DETECTION>": {"F1@0.5": 0.90},
    "<REFERRING_EXPRESSION_SEGMENTATION>": {"mask_iou": 0.71},
    "<REGION_TO_SEGMENTATION>": {"mask_iou": 0.74},
    "<REGION_TO_CATEGORY>": {"accuracy": 0.95},
    "<REGION_TO_DESCRIPTION>": {"accuracy": 0.90},
}


@pytest.mark.slow
def test_florence_2_nano_is_as_accurate_as_documented(nano):
    metrics = evaluate_scenes(nano, HELD_OUT_SEEDS[-80:], list(LOWER_BOUNDS)).metrics
    for task, bounds in LOWER_BOUNDS.items():
        for name, bound in bounds.items():
            assert metrics[task][name] >= bound, (task, name, metrics[task])
    assert metrics["<OD>"]["ECE"] <= 0.12
