"""Grounding and segmentation, on boxes and masks whose value is known."""

import numpy as np
import pytest

from florence_lab.evaluation.official import box_iou, grounding_recall, mask_areas, merge_boxes, segmentation_metrics

LEFT, RIGHT, BOTH = (0, 0, 10, 10), (20, 0, 30, 10), (0, 0, 30, 10)


def array(*boxes):
    return np.array(boxes, float).reshape(-1, 4)


def mask(*columns):
    result = np.zeros((10, 10), bool)
    result[:, slice(*columns)] = True
    return result


def test_boxes_without_area_overlap_nothing():
    assert box_iou(array(LEFT, (5, 5, 5, 5)), array(LEFT, (5, 5, 5, 5))).tolist() == [[1, 0], [0, 0]]


def test_any_box_of_a_phrase_can_be_found():
    truth = array(LEFT, RIGHT)
    assert [grounding_recall(array(box), truth, 1) for box in (LEFT, RIGHT, BOTH)] == [1, 1, 0]


def test_in_the_merged_protocol_the_box_around_all_is_meant():
    truth = merge_boxes(array(LEFT, RIGHT))
    assert truth.tolist() == [[0, 0, 30, 10]]
    assert [grounding_recall(array(box), truth, 1) for box in (LEFT, RIGHT, BOTH)] == [0, 0, 1]


def test_the_first_boxes_count():
    ranked = array(*[(50, 50, 60 + i, 60) for i in range(5)], LEFT)
    assert [grounding_recall(ranked, array(LEFT), rank) for rank in (1, 5, 10)] == [0, 0, 1]


def test_a_phrase_without_a_box_is_missed():
    assert grounding_recall(array(), array(LEFT), 10) == 0


def test_an_iou_of_one_half_is_enough():
    assert grounding_recall(array((0, 0, 10, 5)), array(LEFT), 1) == 1
    assert grounding_recall(array((0, 0, 10, 4.99)), array(LEFT), 1) == 0


def test_segmentation_is_measured_per_expression_and_over_all_pixels():
    """One large and right, one small and missed: the mean is one half, and the sums hardly notice."""
    large, small = mask(0, 9), mask(9, 10)
    metrics = segmentation_metrics([mask_areas(large, large), mask_areas(np.zeros_like(small), small)])
    assert metrics == {"mIoU": 0.5, "cIoU": 0.9} | {f"P@{t}": 0.5 for t in (0.5, 0.6, 0.7, 0.8, 0.9)}


def test_two_empty_masks_have_an_iou_of_zero_as_published():
    nothing = np.zeros((10, 10), bool)
    assert segmentation_metrics([mask_areas(nothing, nothing)])["mIoU"] == 0


@pytest.mark.parametrize(("columns", "precision"), [((0, 5), [1, 0, 0, 0, 0]), ((0, 8), [1, 1, 1, 1, 0])])
def test_the_thresholds_are_inclusive(columns, precision):
    metrics = segmentation_metrics([mask_areas(mask(*columns), mask(0, 10))])
    assert [metrics[f"P@{t}"] for t in (0.5, 0.6, 0.7, 0.8, 0.9)] == precision
