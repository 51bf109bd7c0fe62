"""`Predictor.detect` and `Predictor.detect_each`."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support import PHOTO, boxes

import florence_lab
from florence_lab.detection import detection_mixin
from florence_lab.detection import detector as detector_module
from florence_lab.detection.detector import Detector
from florence_lab.detection.ontology import Ontology
from florence_lab.detection.strategies import STRATEGIES, resolve_strategies
from florence_lab.detection.suppression import suppress_overlaps
from florence_lab.exceptions import ArgumentError, ImageError, PromptError
from florence_lab.results import Boxes
from florence_lab.scenes import draw_scene
from florence_lab.template.prompts import build_prompt
from florence_lab.template.template import FlorenceTemplate

pytestmark = pytest.mark.filterwarnings("ignore:.*truncated at max_new_tokens")

CLASSES = ["sheep", "dog", "car", "giraffe", "person", "sun"]
FEW_TOKENS = {"max_new_tokens": 12, "num_beams": 1}
"""Of random weights, whose answers do not end."""


def as_rows(result):
    return [result.labels.tolist(), result.class_ids.tolist(), result.boxes.tolist(), result.scores.tolist()]


@pytest.fixture(scope="module")
def scene():
    return draw_scene(610)


# ---------------------------------------------------------------------- suppression


def numbered(*rows, scores):
    names = ["a", "b"]
    return replace(boxes(*rows, scores=scores), class_ids=[names.index(row[0]) for row in rows], classes=names)


NEAR = numbered(
    ("a", 0, 0, 10, 10), ("b", 0, 0, 10, 9), ("a", 1, 0, 10, 10), ("a", 50, 50, 60, 60), scores=[0.5, 0.9, 0.6, 0.7]
)


@pytest.mark.parametrize(
    ("iou", "across_classes", "kept"),
    [
        (0.5, True, [0.9, 0.7]),
        (0.5, False, [0.9, 0.7, 0.6]),
        (1.0, True, [0.9, 0.7, 0.6, 0.5]),
        (0.89, True, [0.9, 0.7, 0.6]),
    ],
)
def test_boxes_that_overlap_a_better_one_are_suppressed(iou, across_classes, kept):
    result = suppress_overlaps(NEAR, iou, across_classes)
    assert result.scores.tolist() == kept
    assert [result.classes[i] for i in result.class_ids] == result.labels.tolist()


def test_boxes_without_area_and_no_boxes_are_no_problem():
    flat = numbered(("a", 5, 5, 5, 5), ("b", 5, 5, 5, 5), scores=[0.5, 0.4])
    assert len(suppress_overlaps(flat, 0.5, True)) == 2
    assert len(suppress_overlaps(flat[:0], 0.5, True)) == 0


# ---------------------------------------------------------------------- one image


def test_classes_and_their_ids(nano, scene):
    found = nano.detect(scene.image, CLASSES, strategy="od", verify=False)
    present = {o.label for o in scene.objects}
    assert set(found.labels.tolist()) == present.intersection(CLASSES)
    assert [CLASSES[i] for i in found.class_ids] == found.labels.tolist()
    assert found.classes == tuple(CLASSES)
    assert found.scores.tolist() == sorted(found.scores, reverse=True)
    assert (found.task, found.image, found.prompt) == (
        "<OD>",
        scene.image,
        "Locate the objects with category name in the image.",
    )


@pytest.mark.parametrize(
    ("strategy", "verify"),
    [(name, True) for name in ("auto", *STRATEGIES)]
    + [(name, False) for name in ("auto", "open_vocabulary", ["od", "grounding"])],
)
def test_each_strategy_works_with_the_published_layout(small, strategy, verify):
    found = small.detect(PHOTO, ["cat", "a dog"], strategy=strategy, verify=verify, threshold=0, **FEW_TOKENS)
    assert isinstance(found, Boxes)
    assert set(found.labels.tolist()) <= {"cat", "a dog"}
    assert len(found.raw.split("\n")) >= len(found.prompt.split("\n")) >= 1
    assert found.image_size == (451, 300)


def test_an_encoded_image_gives_the_same(small):
    options = {"strategy": "open_vocabulary", "verify": False, **FEW_TOKENS}
    encoded = small.encode_image(PHOTO)
    assert as_rows(small.detect(encoded, ["cat"], **options)) == as_rows(small.detect(PHOTO, ["cat"], **options))


def test_the_image_is_encoded_once_and_the_questions_are_decoded_together(nano, scene, monkeypatch):
    calls = []
    predict_prompts = nano.predict_prompts

    def counting(images, prompts, batch_size, **kwargs):
        calls.append((len({id(image) for image in images}), len(prompts), batch_size, kwargs))
        return predict_prompts(images, prompts, batch_size, **kwargs)

    monkeypatch.setattr(nano, "predict_prompts", counting)
    nano.detect(scene.image, CLASSES, verify=False, batch_size=5, num_beams=1)
    assert calls == [(1, len(CLASSES) + 1, 5, {"num_beams": 1})]


class Asker:
    """Answers prompts with given boxes and scores: text of the prompt -> (answer, scores)."""

    def __init__(self, answers):
        self.answers = answers

    def build_prompt(self, image_size, task, text=None, region_format="xyxy"):
        return build_prompt(task, text, image_size)

    def predict_prompts(self, images, prompts, batch_size, **kwargs):
        answers = [self.answers.get(prompt.text, ("", [])) for prompt in prompts]
        parsed = [FlorenceTemplate().parse_text(a, p, SIZE) for (a, _), p in zip(answers, prompts, strict=True)]
        return [replace(result, scores=scores) for result, (_, scores) in zip(parsed, answers, strict=True)]


SIZE = (1000, 1000)
LEFT, RIGHT = "<loc_0><loc_0><loc_300><loc_300>", "<loc_600><loc_600><loc_900><loc_900>"
TWO_NAMES_OF_ONE_BOX = {"sheep": (f"sheep{LEFT}", [0.9]), "dog": (f"dog{LEFT}{RIGHT}", [0.8, 0.4])}


def detect_with(monkeypatch, answers, verified=None, threshold=0.0):
    """Detect with given answers, and with the verified scores of (label, left edge) if there are any."""

    def verify(asker, image, candidates, *options):
        keys = zip(candidates.labels.tolist(), candidates.boxes[:, 0].astype(int).tolist(), strict=True)
        return SimpleNamespace(scores=np.array([verified[key] for key in keys]))

    monkeypatch.setattr(detector_module, "verify", verify)
    ontology = Ontology.from_classes(["sheep", "dog"])
    strategies = resolve_strategies("open_vocabulary", verify=False)
    detector = Detector(Asker(answers), ontology, strategies, verified is not None, threshold, 0.5, None, 16, {})
    (found,) = detector.detect(["image"], detector.questions())
    return list(zip(found.labels.tolist(), found.scores.tolist(), strict=True))


def test_of_boxes_of_several_classes_the_one_with_the_highest_score_stays(monkeypatch):
    assert detect_with(monkeypatch, TWO_NAMES_OF_ONE_BOX) == [("sheep", 0.9), ("dog", 0.4)]


def test_boxes_of_several_classes_compete_by_their_verified_scores(monkeypatch):
    verified = {("sheep", 0): 0.3, ("dog", 0): 0.7, ("dog", 600): 0.8}
    assert detect_with(monkeypatch, TWO_NAMES_OF_ONE_BOX, verified) == [("dog", 0.8), ("dog", 0.7)]


def test_boxes_below_the_threshold_are_dropped_by_their_verified_scores(monkeypatch):
    verified = {("sheep", 0): 0.5, ("dog", 0): 0.1, ("dog", 600): 0.49}
    assert detect_with(monkeypatch, TWO_NAMES_OF_ONE_BOX, verified, threshold=0.5) == [("sheep", 0.5)]


def test_without_verification_the_threshold_is_for_the_score_of_the_answer(monkeypatch):
    assert detect_with(monkeypatch, TWO_NAMES_OF_ONE_BOX, threshold=0.5) == [("sheep", 0.9)]


def test_answers_without_boxes_give_an_empty_result(monkeypatch):
    assert detect_with(monkeypatch, {}) == []


@pytest.mark.parametrize(("verify", "threshold"), [(True, 0.5), (False, 0.0)])
def test_the_default_threshold(small, monkeypatch, verify, threshold):
    seen = []
    monkeypatch.setattr(detection_mixin.Detector, "detect", lambda self, images, questions: seen.append(self) or [None])
    small.detect(Image.new("RGB", (9, 9)), ["cat"], verify=verify)
    assert seen[0].threshold == threshold


def test_a_calibration_without_verification_is_refused(small):
    with pytest.raises(ArgumentError, match="verify=True"):
        small.detect(PHOTO, ["cat"], verify=False, calibration="calibration.json")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"classes": []}, "none"),
        ({"classes": "cat"}, "'cat'"),
        ({"classes": ["cat", "cat"]}, "'cat'"),
        ({"phrases": {"dog": "x"}}, "'dog'"),
        ({"strategy": "best"}, "'best'"),
        ({"strategy": 3}, "3"),
        ({"verify": "yes"}, "'yes'"),
        ({"strategy": ["od", "regions"], "verify": False}, "verify=True"),
        ({"threshold": 1.5}, "1.5"),
        ({"threshold": "high"}, "'high'"),
        ({"nms_iou": -1}, "-1"),
        ({"nms_iou": None}, "None"),
        ({"batch_size": 0}, "0"),
        ({"calibration": 3}, "3"),
        ({"num_beams": 0}, "0"),
        ({"beams": 3}, "'beams'"),
    ],
)
def test_invalid_arguments_are_refused_before_the_image_is_read(small, arguments, named):
    for method in (small.detect, small.detect_each):
        with pytest.raises(ArgumentError, match=re.escape(named)):
            method("no such file.png", **{"classes": ["cat"], **arguments})


def test_a_class_that_is_too_long_for_the_model_is_refused_before_the_image_is_read(small):
    with pytest.raises(PromptError, match="tokens"):
        small.detect("no such file.png", ["cat", "very " * 600 + "long"])


def test_an_image_that_does_not_exist(small):
    with pytest.raises(ImageError, match=r"no such file\.png"):
        small.detect("no such file.png", ["cat"])


@pytest.mark.slow
def test_hundreds_of_classes(small):
    classes = [f"thing {i}" for i in range(300)]
    found = small.detect(PHOTO, classes, strategy=["grounding", "od"], verify=False, max_new_tokens=2, num_beams=1)
    assert found.classes == tuple(classes)
    assert len(found.prompt.split("\n")) == 38 + 1


# ---------------------------------------------------------------------- many images


def test_many_images_give_the_same_as_one_by_one(nano):
    images = [draw_scene(seed, 256).image for seed in (611, 612)]
    options = {"classes": CLASSES, "strategy": ["od", "grounding"], "verify": False}
    each = list(nano.detect_each(images, batch_size=4, **options))
    alone = [nano.detect(image, **options) for image in images]
    for one, other in zip(each, alone, strict=True):
        assert (one.labels.tolist(), one.raw, one.image) == (other.labels.tolist(), other.raw, other.image)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    assert [c["name"] for c in florence_lab.to_coco(each)["categories"]] == CLASSES


def test_errors_of_images_come_in_place(small, tmp_path):
    for name in ("a.png", "c.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    (tmp_path / "b.png").write_text("no image")
    results = small.detect_each(tmp_path, ["cat"], strategy="od", verify=False, keep_images=False, **FEW_TOKENS)
    first, error, last = results
    assert isinstance(error, ImageError)
    assert [result.image for result in (first, last)] == [None, None]
    assert first.image_size == (40, 30)


def test_the_answers_before_an_iterator_fails_are_yielded(small):
    def images():
        yield PHOTO
        raise RuntimeError("camera unplugged")

    results = small.detect_each(images(), ["cat"], strategy="od", verify=False, **FEW_TOKENS)
    assert isinstance(next(results), Boxes)
    with pytest.raises(RuntimeError, match="unplugged"):
        next(results)


def test_sources_are_checked_at_the_call(small, tmp_path):
    with pytest.raises(ImageError, match="no image files"):
        small.detect_each(tmp_path, ["cat"])


# ---------------------------------------------------------------------- quality


@pytest.mark.slow
def test_the_default_finds_what_is_there_and_nothing_else(nano):
    import measure_detection

    scenes = [draw_scene(seed) for seed in range(700, 740)]
    precision, recall, empty, decoded, *_ = measure_detection.measure(nano, scenes)
    assert (precision >= 0.95, recall >= 0.9, empty >= 0.95) == (True, True, True)
    assert decoded == measure_detection.NUM_CLASSES + 2
