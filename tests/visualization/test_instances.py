"""Instances as they are drawn."""

from dataclasses import replace

import numpy as np
from drawing import BOXES, REGION, example, parse

from florence_lab.visualization.instances import drawable_instances, region_boxes
from florence_lab.visualization.style import PALETTE


def styles(result):
    return [(instance.color, instance.line_style) for instance in drawable_instances(result)]


def test_equal_labels_share_a_style():
    assert styles(parse(BOXES)) == [(PALETTE[0], "solid"), (PALETTE[0], "solid"), (PALETTE[1], "solid")]


def test_instances_without_labels_differ():
    first, second = styles(example("<REGION_PROPOSAL>"))
    assert first != second


def test_the_style_of_a_class_is_the_same_in_all_images():
    result = replace(parse(BOXES), class_ids=[4, 4, 1])
    assert [color for color, _ in styles(result)] == [PALETTE[4], PALETTE[4], PALETTE[1]]
    assert styles(result[2]) == [(PALETTE[1], "solid")]


def test_labels_and_scores():
    instances = drawable_instances(parse(BOXES, scores=(0.5, 0.25, 1)))
    assert [(instance.label, instance.score) for instance in instances] == [
        ("sheep", 0.5),
        ("sheep", 0.25),
        ("tree", 1),
    ]
    assert [instance.score for instance in drawable_instances(parse(BOXES))] == [None] * 3


def test_an_empty_label_is_replaced_by_the_phrase():
    (instance,) = drawable_instances(example("<REFERRING_EXPRESSION_SEGMENTATION>"))
    assert instance.label == "a sheep"
    (instance,) = drawable_instances(example("<REGION_TO_SEGMENTATION>"))
    assert instance.label == ""


def test_labels_are_printable():
    result = parse(BOXES).with_labels("a\nb\x07")
    assert drawable_instances(result)[0].label == "a b\u25a1"


def test_polygons_are_filled_and_boxes_and_quads_are_not():
    filled = {
        task: [i.is_filled for i in drawable_instances(example(task))]
        for task in ("<OCR_WITH_REGION>", "<REGION_TO_SEGMENTATION>")
    }
    assert filled["<OCR_WITH_REGION>"] == [False]
    assert filled["<REGION_TO_SEGMENTATION>"] == [True]
    assert [i.is_filled for i in drawable_instances(parse(BOXES))] == [False] * 3
    mixed = drawable_instances(example("<OPEN_VOCABULARY_DETECTION>"))
    assert sorted(i.is_filled for i in mixed) == [False, True]


def test_the_outline_of_a_box_is_its_corners():
    result = parse(BOXES)
    x0, y0, x1, y1 = result.boxes[0]
    (outline,) = drawable_instances(result)[0].outlines
    assert outline.tolist() == [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def test_the_outline_of_a_quad_is_the_quad():
    result = example("<OCR_WITH_REGION>")
    np.testing.assert_array_equal(drawable_instances(result)[0].outlines[0], result.quads[0])


def test_the_region_of_a_prompt_in_pixels():
    result = parse("cat" + REGION, "<REGION_TO_CATEGORY>", phrase=REGION)
    np.testing.assert_allclose(region_boxes(result), [[40, 30, 200, 150]], atol=0.2)
    assert region_boxes(parse(BOXES)).shape == (0, 4)
