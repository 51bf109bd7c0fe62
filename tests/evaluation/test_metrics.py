"""The metrics, on predictions whose value is known."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from support import boxes

from florence_lab.evaluation import (
    METRIC_SUITES,
    Evaluation,
    pairwise_iou,
)
from florence_lab.evaluation.metrics import DEFAULT_METRICS, metric_suite, task_metrics
from florence_lab.evaluation.suites import SCENE_METRIC_SUITES
from florence_lab.exceptions import ArgumentError
from florence_lab.results import Polygons, Quads, Text
from florence_lab.tasks import FREE_QUESTION, TASKS, Task

CAT = ("cat", 0, 0, 10, 10)
NAN = pytest.approx(math.nan, nan_ok=True)


def text(content):
    return Text(raw=content, image_size=(100, 100), text=content)


def outlines(*rectangles):
    squares = [(np.array([(a, b), (c, b), (c, d), (a, d)], float),) for a, b, c, d in rectangles]
    return Polygons(raw="", image_size=(100, 100), labels=[""] * len(squares), polygons=tuple(squares))


def no_quads():
    return Quads(raw="", image_size=(100, 100), labels=[], quads=np.zeros((0, 4, 2)))


def sample_score(metric, prediction, ground_truth):
    return METRIC_SUITES[metric].per_sample(prediction, ground_truth)


def test_ground_truth_as_prediction_scores_one(scene_sample):
    evaluation = Evaluation("truth", scene_sample, [e.ground_truth for e in scene_sample], (), SCENE_METRIC_SUITES)
    metrics = evaluation.metrics
    assert list(metrics) == list(TASKS)
    for task, values in metrics.items():
        # a ground truth has no scores
        undefined = {name: NAN for name in ("ECE", "no_target_accuracy") if math.isnan(values.get(name, 0))}
        assert values == dict.fromkeys(values, pytest.approx(1)) | undefined, task


def test_predictions_of_other_images_score_low(scene_sample):
    predictions = []
    for example in scene_sample:
        same_task = [e for e in scene_sample if e.prompt.task == example.prompt.task]
        predictions.append(same_task[(same_task.index(example) + 1) % len(same_task)].ground_truth)
    metrics = Evaluation("shuffled", scene_sample, predictions, (), SCENE_METRIC_SUITES).metrics
    # a third of the scenes have no text, and so do those before them
    bounds = {"<OCR>": 0.35, "<REGION_TO_CATEGORY>": 0.25, "<REGION_PROPOSAL>": 0.35, "<REGION_TO_SEGMENTATION>": 0.2}
    for task, values in metrics.items():
        assert np.nanmax(list(values.values())) <= bounds.get(task, 0.15), (task, values)


def test_missing_objects_cost_recall_and_not_precision(scene_sample):
    ground_truths = [e.ground_truth for e in scene_sample if e.prompt.task.token == "<OD>"]
    rng = random.Random(0)
    predictions = [truth[[i for i in range(len(truth)) if rng.random() > 0.1]] for truth in ground_truths]
    values = METRIC_SUITES["detection"].aggregate(predictions, ground_truths)
    assert values["precision@0.5"] == 1
    assert values["recall@0.5"] == pytest.approx(sum(map(len, predictions)) / sum(map(len, ground_truths)))
    assert 0.75 < values["mAP@0.5"] < 1


def test_detection_counts_instances_of_all_images_together():
    predictions = [boxes(CAT, ("cat", 50, 50, 60, 60), ("cat", 70, 70, 80, 80)), boxes(CAT)]
    values = METRIC_SUITES["instances"].aggregate(predictions, [boxes(CAT), boxes(CAT)])
    assert values == {"precision@0.5": 0.5, "recall@0.5": 1, "F1@0.5": pytest.approx(2 / 3)}


def test_proposals_ignore_labels():
    assert sample_score("proposals", boxes(("", 0, 0, 10, 10)), boxes(CAT, ("dog", 50, 50, 60, 60))) == 0.5


def test_masks_are_compared_by_the_pixels_of_all_instances():
    assert sample_score("masks", outlines((0, 0, 10, 10)), outlines((0, 0, 10, 20))) == 0.5
    assert sample_score("masks", outlines((0, 0, 10, 10), (50, 0, 60, 10)), outlines((0, 0, 10, 10))) == 0.5


# undefined values


STOP = replace(no_quads(), labels=["A"], quads=np.eye(4)[None, :, :2] * 50)
SQUARE = outlines((0, 0, 10, 10))
NO_F1 = {"precision@0.5": 0, "recall@0.5": NAN, "F1@0.5": 0}
NO_MASKS = dict.fromkeys(("cIoU", *(f"P@{t}" for t in (0.5, 0.6, 0.7, 0.8, 0.9))), NAN)
OCR = ("word_accuracy", "character_accuracy", "exact_match")
NO_MAP = {"mAP@0.5": NAN, "mAP@[.5:.95]": NAN, "ECE": NAN}


@pytest.mark.parametrize(
    ("metric", "empty", "something", "right", "wrong"),
    [
        # COCO's mAP is undefined without ground truth
        ("detection", boxes(), boxes(CAT), {**NO_MAP, **dict.fromkeys(NO_F1, 1)}, NO_MAP | NO_F1),
        ("instances", boxes(), boxes(CAT), dict.fromkeys(NO_F1, 1), NO_F1),
        ("instances", no_quads(), STOP, dict.fromkeys(NO_F1, 1), NO_F1),
        ("proposals", boxes(), boxes(("", 0, 0, 10, 10)), {"recall@0.5": 1}, {"recall@0.5": 0}),
        ("masks", outlines(), SQUARE, {"mask_iou": 1, **NO_MASKS}, {"mask_iou": 0, **NO_MASKS}),
        ("ocr", text(""), text("STOP"), dict.fromkeys(OCR, 1), dict.fromkeys(OCR, 0)),
        ("ocr", text(" "), text("STOP"), dict.fromkeys(OCR, 1), dict.fromkeys(OCR, 0)),
        ("exact_match", text(""), text("STOP"), {"accuracy": 1}, {"accuracy": 0}),
    ],
)
def test_an_empty_ground_truth_is_answered_right_by_nothing(metric, empty, something, right, wrong):
    suite = METRIC_SUITES[metric]
    assert (suite.per_sample(empty, empty), suite.aggregate([empty], [empty])) == (1, right)
    assert (suite.per_sample(something, empty), suite.aggregate([something], [empty])) == (0, wrong)
    assert suite.per_sample(empty, something) == 0


def test_a_caption_without_words_is_not_measured():
    assert math.isnan(sample_score("caption", text(""), text("")))
    assert sample_score("caption", text("a cat"), text("")) == 0


def test_outlines_without_pixels_are_not_nothing():
    line = outlines((0, 0, 0, 0))
    assert sample_score("masks", line, outlines()) == 0
    assert math.isnan(sample_score("masks", line, line))


LOCATING = ["<CAPTION_TO_PHRASE_GROUNDING>", "<REFERRING_EXPRESSION_SEGMENTATION>", "<OPEN_VOCABULARY_DETECTION>"]


@pytest.mark.parametrize("token", LOCATING)
def test_the_accuracy_without_a_target_is_the_share_of_empty_predictions(token):
    nothing, something = (outlines(), SQUARE) if "SEGMENTATION" in token else (boxes(), boxes(CAT))
    ground_truths = [nothing, nothing, nothing, nothing, something]
    predictions = [nothing, something, nothing, nothing, nothing]
    assert task_metrics(TASKS[token], predictions, ground_truths)["no_target_accuracy"] == 0.75
    assert task_metrics(TASKS[token], [nothing], [something])["no_target_accuracy"] == NAN


def test_only_tasks_that_locate_a_phrase_are_measured_without_a_target():
    measured = [token for token, task in TASKS.items() if "no_target_accuracy" in task_metrics(task, [], [])]
    assert measured == LOCATING


def test_metrics_of_a_task_need_a_ground_truth_for_each_prediction():
    with pytest.raises(ArgumentError, match="1 predictions, but 0 ground truths"):
        task_metrics(TASKS["<OD>"], [boxes()], [])


@pytest.mark.parametrize("metric", METRIC_SUITES)
def test_metrics_of_no_samples_are_undefined(metric):
    values = METRIC_SUITES[metric].aggregate([], [])
    assert values == dict.fromkeys(values, NAN)


def test_recall_without_ground_truth_is_undefined_and_precision_is_zero():
    values = METRIC_SUITES["detection"].aggregate([boxes(CAT, scores=[0.5])], [boxes()])
    assert values["precision@0.5"] == values["F1@0.5"] == 0
    assert [values[name] for name in ("recall@0.5", "mAP@0.5", "mAP@[.5:.95]")] == [NAN] * 3


def test_precision_without_predictions_is_undefined_and_recall_is_zero():
    values = METRIC_SUITES["instances"].aggregate([boxes()], [boxes(CAT)])
    assert values == {"precision@0.5": NAN, "recall@0.5": 0, "F1@0.5": 0}


def test_means_leave_out_undefined_samples():
    predictions, ground_truths = [text(""), text("a cat")], [text(""), text("a dog")]
    assert METRIC_SUITES["caption"].aggregate(predictions, ground_truths) == {"rouge_l": 0.5}


def test_empty_masks_count_in_the_mean():
    predictions, ground_truths = [outlines(), outlines((0, 0, 10, 10))], [outlines(), outlines((0, 0, 10, 20))]
    assert METRIC_SUITES["masks"].aggregate(predictions, ground_truths)["mask_iou"] == 0.75


def test_masks_are_also_measured_over_all_pixels():
    predictions, ground_truths = [SQUARE, outlines()], [SQUARE, outlines((0, 0, 10, 30))]
    values = METRIC_SUITES["masks"].aggregate(predictions, ground_truths)
    assert (values["mask_iou"], values["cIoU"], values["P@0.9"]) == (0.5, 0.25, 0.5)


def test_masks_are_not_kept():
    """2,000 images of 640 x 480 pixels with two outlines took 1.2 GB."""
    prediction, ground_truth = outlines((0, 0, 10, 10)), outlines((0, 0, 10, 20))
    METRIC_SUITES["masks"].aggregate([prediction], [ground_truth])
    pairwise_iou(prediction, ground_truth)
    assert "masks" not in vars(prediction) | vars(ground_truth)


# tables


def test_every_task_has_a_suite():
    assert all(metric_suite(task) in METRIC_SUITES.values() for task in [*TASKS.values(), FREE_QUESTION])


def test_a_task_without_metric_has_the_default_of_its_result():
    task = Task("<COUNT>", "How many?", "none", "boxes", "")
    assert metric_suite(task) is METRIC_SUITES[DEFAULT_METRICS["boxes"]]
    assert metric_suite(replace(task, metric="proposals")) is METRIC_SUITES["proposals"]
