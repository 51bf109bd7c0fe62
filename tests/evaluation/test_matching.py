"""Intersection over union, and the matching of predictions with ground truth."""

import numpy as np
import pytest
from support import boxes

from florence_lab.evaluation import match_instances, pairwise_iou, scored_matches
from florence_lab.evaluation.matching import mask_iou
from florence_lab.results import Polygons, Quads

CAT = ("cat", 0, 0, 10, 10)


def rectangle(x0, y0, x1, y1):
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def quads(*rows):
    """`Quads` of rows (label, x0, y0, x1, y1)."""
    corners = np.array([rectangle(*row[1:]) for row in rows], float).reshape(-1, 4, 2)
    return Quads(raw="", image_size=(100, 100), labels=[row[0] for row in rows], quads=corners)


def test_a_match_names_its_ground_truth():
    ground_truth = boxes(("cat", 50, 50, 60, 60), CAT)
    assert match_instances(boxes(CAT, ("cat", 80, 80, 90, 90)), ground_truth).tolist() == [1, -1]


def test_an_iou_below_one_half_is_no_match():
    assert match_instances(boxes(CAT), boxes(("cat", 0, 0, 10, 20))).tolist() == [0]
    assert match_instances(boxes(CAT), boxes(("cat", 0, 0, 10, 20.1))).tolist() == [-1]


def test_labels_count_only_if_class_aware():
    assert match_instances(boxes(CAT), boxes(("dog", 0, 0, 10, 10))).tolist() == [-1]
    assert match_instances(boxes(CAT), boxes(("dog", 0, 0, 10, 10)), class_aware=False).tolist() == [0]


def test_two_predictions_do_not_share_a_ground_truth():
    assert sorted(match_instances(boxes(CAT, CAT), boxes(CAT)).tolist()) == [-1, 0]


def test_the_number_of_matches_is_maximal():
    """The first ground truth would do for both predictions, but the second prediction matches no other."""
    ground_truth = boxes(CAT, ("cat", 0, 0, 10, 18))
    prediction = boxes(("cat", 0, 0, 10, 12), ("cat", 0, 0, 10, 8))
    assert match_instances(prediction, ground_truth).tolist() == [1, 0]


def test_nothing_matches_an_empty_ground_truth():
    assert match_instances(boxes(CAT), boxes()).tolist() == [-1]
    assert match_instances(boxes(), boxes(CAT)).tolist() == []


@pytest.mark.parametrize("inverted", [(30, 10, 10, 30), (30, 30, 10, 10), (10, 10, 10, 10)])
def test_inverted_and_empty_boxes_overlap_nothing(inverted):
    assert pairwise_iou(boxes(("cat", *inverted)), boxes(("cat", 10, 10, 30, 30))).tolist() == [[0]]


def test_quad_boxes_are_matched_by_place_and_text():
    ground_truth = quads(("STOP", 0, 0, 40, 10), ("CAFE", 50, 0, 90, 10))
    prediction = quads(("CAFE", 50, 50, 90, 60), ("STOP", 2, 0, 40, 10), ("Cafe", 50, 0, 90, 10))
    assert match_instances(prediction, ground_truth).tolist() == [-1, 0, -1]


def test_the_iou_of_rotated_quad_boxes_is_that_of_their_areas():
    square = quads(("A", 0, 0, 20, 20))
    diamond = Quads(raw="", image_size=(100, 100), labels=["A"], quads=[[(10, 0), (20, 10), (10, 20), (0, 10)]])
    diamond = Quads(raw="", image_size=(100, 100), labels=["A"], quads=np.array(diamond.quads, float))
    assert pairwise_iou(square, diamond).item() == pytest.approx(0.5)


def test_quad_boxes_with_crossing_or_equal_corners_are_compared():
    crossing = np.array([[(0, 0), (20, 20), (20, 0), (0, 20)], [(5, 5)] * 4], float)
    prediction = Quads(raw="", image_size=(100, 100), labels=["A", "B"], quads=crossing)
    assert pairwise_iou(prediction, quads(("A", 0, 0, 20, 20)))[:, 0] == pytest.approx([0.5, 0])


def test_segmentations_are_compared_by_their_pixels():
    def polygons(*rows):
        return Polygons(
            raw="", image_size=(100, 100), labels=[""] * len(rows), polygons=[(rectangle(*r),) for r in rows]
        )

    iou = pairwise_iou(polygons((0, 0, 10, 10)), polygons((0, 0, 10, 20), (50, 50, 60, 60)))
    assert iou.tolist() == [[0.5, 0]]


def test_empty_masks_overlap_nothing():
    assert mask_iou(np.zeros((1, 4, 4), bool), np.ones((2, 4, 4), bool)).tolist() == [[0, 0]]


def test_scored_matches_leave_out_predictions_without_scores():
    scores, is_correct = scored_matches(
        [boxes(CAT, ("cat", 50, 50, 60, 60), scores=(0.9, 0.3)), boxes(CAT)], [boxes(CAT), boxes(CAT)]
    )
    assert scores.tolist() == [0.9, 0.3]
    assert is_correct.tolist() == [True, False]
