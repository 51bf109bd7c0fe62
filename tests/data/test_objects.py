"""Boxes of annotated objects. Other values are covered by `test_validation_of_values.py`."""

import numpy as np
import pytest

from florence_lab.data.objects import parse_boxes, validate_box
from florence_lab.data.rows import InvalidRow


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [0.2, 0.2, 0.9, 1.0]])
def test_a_box_in_fractions_is_refused_in_all_but_the_smallest_images(box):
    with pytest.raises(InvalidRow, match="norm_1"):
        validate_box(np.array(box, float), (200, 100))
    assert validate_box(np.array(box, float), (1, 1)).tolist() == box


def test_boxes_are_returned_in_pixels():
    (box,) = parse_boxes([100, 100, 600, 600], "norm_1000", (200, 100))
    assert box.tolist() == [20, 10, 120, 60]
