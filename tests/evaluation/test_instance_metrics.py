"""COCO's mean average precision and its curve, on predictions whose value is known."""

import numpy as np
import pytest
from support import boxes

from florence_lab.evaluation import mean_average_precision, precision_recall_curve

CAT = ("cat", 0, 0, 10, 10)


def test_average_precision_ranks_by_score():
    """A wrong box costs more if its score is the highest."""
    ground_truth = [boxes(CAT)]
    rows = CAT, ("cat", 50, 50, 60, 60)
    assert mean_average_precision([boxes(*rows, scores=(0.9, 0.2))], ground_truth)["mAP@0.5"] == pytest.approx(1)
    assert mean_average_precision([boxes(*rows, scores=(0.2, 0.9))], ground_truth)["mAP@0.5"] == pytest.approx(0.5)


def test_the_precision_recall_curve_belongs_to_map():
    """COCO matches greedily by score: the duplicate with the higher score is the match, whichever comes first."""
    other = ("cat", 80, 0, 90, 10)
    ground_truths = [boxes(CAT, other, ("dog", 40, 40, 90, 90)), boxes(("cat", 20, 20, 40, 40))]
    predictions = [
        boxes(CAT, ("cat", 0, 0, 10, 16), other, ("dog", 40, 40, 90, 92), scores=(0.4, 0.9, 0.5, 0.3)),
        boxes(("cat", 50, 50, 60, 60), scores=[0.8]),
    ]
    recalls, precisions = precision_recall_curve(predictions, ground_truths)
    assert precisions.mean() == pytest.approx(mean_average_precision(predictions, ground_truths)["mAP@0.5"])
    assert (recalls[0], recalls[-1], len(precisions)) == (0, 1, 101)
    assert precisions[0] == pytest.approx(1)


def test_the_precision_recall_curve_without_ground_truth_is_undefined():
    assert np.isnan(precision_recall_curve([boxes(CAT)], [boxes()])[1]).all()
