"""Results without the instances that have a low score."""

from dataclasses import replace

import pytest

from florence_lab.results import Boxes, Text
from florence_lab.viewer.records import answer_record
from florence_lab.viewer.threshold import filter_result, num_hidden

BOXES = Boxes(raw="", image_size=(64, 48), labels=["a", "b"], boxes=[[1, 2, 30, 40]] * 2, scores=[0.9, 0.39996])


@pytest.mark.parametrize(("threshold", "count"), [(0, 2), (0.3, 2), (0.4, 1), (0.9, 1), (1, 0)])
def test_a_threshold_hides_instances_with_a_lower_score(threshold, count):
    assert len(filter_result(BOXES, threshold)) == count
    assert num_hidden(BOXES, threshold) == 2 - count
    # the front end compares the scores of the records
    assert sum(instance["score"] >= threshold for instance in answer_record(BOXES)["instances"]) == count


@pytest.mark.parametrize("result", [Text(raw="two", text="two", image_size=(64, 48)), replace(BOXES, scores=None)])
def test_a_result_without_scores_is_not_filtered(result):
    assert filter_result(result, 1) is result
