"""Target texts: what is written is parsed back."""

import numpy as np
import pytest

from florence_lab.tasks import TASKS, Task
from florence_lab.template import FlorenceTemplate
from florence_lab.template.prompts import Prompt
from florence_lab.template.targets import Instance, format_target, to_instances

LABELS = ("sheep", "red apple", "wheel of a car", "Ünïcode 犬", "a < b", "it's 50%")
ROUNDS = 60


@pytest.fixture
def rng():
    return np.random.default_rng(17)


def random_size(rng):
    return int(rng.integers(1, 3000)), int(rng.integers(1, 3000))


def random_box(rng, size):
    corners = np.sort(rng.random((2, 2)) * size, axis=0)
    return corners.ravel()


def random_polygon(rng, size, vertices=None):
    return rng.random((vertices or int(rng.integers(3, 9)), 2)) * size


def parse(task, text, size, phrase=""):
    return FlorenceTemplate().parse_text(text, Prompt.from_task(task, phrase), size)


def assert_near(actual, expected, size):
    """Assert that pixel coordinates agree up to half a location bin."""
    actual, expected = np.reshape(actual, (-1, 2)), np.reshape(expected, (-1, 2))
    assert actual.shape == expected.shape
    assert (np.abs(actual - expected) <= np.array(size) / 2000 + 1e-9).all()


def assert_same_polygons(actual, expected, size):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert_near(a, b, size)


@pytest.mark.parametrize("token", ["<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>"])
def test_boxes_are_parsed_back(rng, token):
    for _ in range(ROUNDS):
        size, n = random_size(rng), int(rng.integers(1, 8))
        labels = [""] * n if token == "<REGION_PROPOSAL>" else [str(rng.choice(LABELS)) for _ in range(n)]
        instances = [Instance(label, random_box(rng, size)) for label in labels]
        result = parse(token, format_target(TASKS[token], instances, size), size)
        if token == "<OD>":  # categories are grouped in the order in which they first appear
            instances.sort(key=lambda i: labels.index(i.label))
        assert result.labels.tolist() == [instance.label for instance in instances]
        assert_near(result.boxes, [instance.box for instance in instances], size)


def test_boxes_of_phrases_are_parsed_back(rng):
    for _ in range(ROUNDS):
        size, phrases = random_size(rng), rng.permutation(LABELS)[: int(rng.integers(1, 4))].tolist()
        instances = [Instance(p, random_box(rng, size)) for p in phrases for _ in range(int(rng.integers(1, 4)))]
        text = format_target(TASKS["<CAPTION_TO_PHRASE_GROUNDING>"], instances, size)
        result = parse("<CAPTION_TO_PHRASE_GROUNDING>", text, size, " and ".join(phrases))
        assert result.labels.tolist() == [instance.label for instance in instances]
        assert_near(result.boxes, [instance.box for instance in instances], size)
        assert all(text.count(phrase) == 1 for phrase in phrases), "consecutive instances share one label"


def test_boxes_mixed_with_polygons_are_parsed_back(rng):
    for _ in range(ROUNDS):
        size = random_size(rng)
        instances = [
            Instance(str(rng.choice(LABELS)), random_box(rng, size))
            if rng.random() < 0.5
            else Instance(
                str(rng.choice(LABELS)),
                polygons=tuple(random_polygon(rng, size) for _ in range(int(rng.integers(1, 4)))),
            )
            for _ in range(int(rng.integers(1, 6)))
        ]
        text = format_target(TASKS["<OPEN_VOCABULARY_DETECTION>"], instances, size)
        result = parse("<OPEN_VOCABULARY_DETECTION>", text, size, "anything")
        assert result.labels.tolist() == [instance.label for instance in instances]
        for i, instance in enumerate(instances):
            assert_same_polygons(result.contours[i], instance.polygons, size)
            if instance.box is not None:
                assert_near(result.boxes[i], instance.box, size)


def test_quad_boxes_are_parsed_back(rng):
    for _ in range(ROUNDS):
        size = random_size(rng)
        instances = [
            Instance(str(rng.choice(LABELS)), polygons=(random_polygon(rng, size, 4),))
            for _ in range(int(rng.integers(1, 6)))
        ]
        result = parse("<OCR_WITH_REGION>", format_target(TASKS["<OCR_WITH_REGION>"], instances, size), size)
        assert result.labels.tolist() == [instance.label for instance in instances]
        assert_near(result.quads, [instance.polygons[0] for instance in instances], size)


@pytest.mark.parametrize("with_labels", [True, False])
def test_polygons_are_parsed_back(rng, with_labels):
    task = TASKS["<REFERRING_EXPRESSION_SEGMENTATION>"]
    for _ in range(ROUNDS):
        size = random_size(rng)
        instances = [
            Instance(
                str(rng.choice(LABELS)) if with_labels else "",
                polygons=tuple(random_polygon(rng, size) for _ in range(int(rng.integers(1, 4)))),
            )
            for _ in range(int(rng.integers(1, 5)))
        ]
        result = parse(task, format_target(task, instances, size), size, "anything")
        assert result.labels.tolist() == [instance.label for instance in instances]
        for polygons, instance in zip(result.polygons, instances, strict=True):
            assert_same_polygons(polygons, instance.polygons, size)


@pytest.mark.parametrize("token", ["<CAPTION>", "<OCR>", "<REGION_TO_CATEGORY>"])
def test_a_text_is_parsed_back(token):
    region = "<loc_1><loc_2><loc_3><loc_4>" if TASKS[token].input == "region" else ""
    for label in LABELS:
        text = format_target(TASKS[token], [Instance(label)], (10, 10), region)
        assert text.endswith(region)
        assert parse(token, text, (10, 10), region).text == label


def test_equal_categories_share_a_label_in_object_detection_only():
    boxes = [Instance("cat", [0, 0, 1, 1]), Instance("dog", [1, 1, 2, 2]), Instance("cat", [2, 2, 3, 3])]
    assert format_target(TASKS["<OD>"], boxes, (10, 10)).count("cat") == 1
    assert format_target(TASKS["<DENSE_REGION_CAPTION>"], boxes, (10, 10)).count("cat") == 2


@pytest.mark.parametrize("token", [t for t, task in TASKS.items() if task.result != "text"])
def test_a_result_can_be_written_as_a_target_again(rng, token):
    task, size = TASKS[token], (640, 480)
    polygons = (random_polygon(rng, size, 4),)
    label = "" if token in ("<REGION_PROPOSAL>", "<REGION_TO_SEGMENTATION>") else "a cat"
    text = format_target(task, [Instance(label, random_box(rng, size), polygons)], size)
    assert format_target(task, to_instances(parse(task, text, size, "a cat")), size) == text


@pytest.mark.parametrize(
    ("token", "instances", "message"),
    [
        ("<CAPTION>", [], "0 instances"),
        ("<OD>", [Instance("cat")], "'cat' without a box"),
        ("<OD>", [Instance("cat", [0, 0, 1])], "'cat' without a box"),
        ("<OD>", [Instance("cat<loc_1>", [0, 0, 1, 1])], "'cat<loc_1>'"),
        ("<OD>", [Instance("cat", [0, 0, 1, 1]), Instance("", [0, 0, 1, 1])], "either all"),
        ("<OCR_WITH_REGION>", [Instance("cat", polygons=(np.ones((3, 2)),))], "four corners"),
        ("<REGION_TO_SEGMENTATION>", [Instance(polygons=(np.ones((2, 2)),))], "three vertices"),
    ],
)
def test_instances_that_the_grammar_cannot_express_are_refused(token, instances, message):
    with pytest.raises(ValueError, match=message):
        format_target(TASKS[token], instances, (10, 10))


def test_a_registered_task_is_formatted_by_its_result_kind():
    task = Task("<LOCATE_ANIMALS>", "Locate the animals.", "none", "boxes", "animals", coco_label="category")
    assert format_target(task, [Instance("cat", [0, 0, 10, 10])], (10, 10)) == "cat<loc_0><loc_0><loc_999><loc_999>"
