"""Boxes and polygons: areas, bounding boxes, intersections and masks."""

import numpy as np
import pytest
import shapely
import torch
import torchvision
from skimage.draw import polygon2mask

from florence_lab.geometry import box_corners, box_intersections, polygon_area, polygons_to_mask, polygons_to_xyxy


def polygon(*vertices: tuple[float, float]) -> np.ndarray:
    return np.array(vertices, np.float64)


def circle(x: float, y: float, radius: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


SHAPES = {
    "rectangle": (polygon((10, 20), (60, 20), (60, 50), (10, 50)), 50 * 30),
    "triangle": (polygon((10, 20), (60, 20), (10, 80)), 50 * 60 / 2),
    "diamond": (polygon((50, 10), (90, 50), (50, 90), (10, 50)), 80 * 80 / 2),
    "circle": (circle(50, 50, 40), np.pi * 40**2),
    "concave": (polygon((10, 10), (90, 10), (90, 90), (50, 30), (10, 90)), 80 * 80 - 80 * 60 / 2),
    "line": (polygon((10, 10), (90, 10)), 0),
}
"""Polygons and their areas."""


def random_polygons(count: int) -> list[np.ndarray]:
    """Star-shaped polygons, some of which reach over the edge of 40 x 30 pixels."""
    rng = np.random.default_rng(0)
    angles = [np.sort(rng.uniform(0, 2 * np.pi, 9)) for _ in range(count)]
    return [
        rng.uniform((0, 0), (40, 30)) + rng.uniform(3, 18, (9, 1)) * np.stack([np.cos(a), np.sin(a)], axis=1)
        for a in angles
    ]


def test_corners_of_a_box_are_clockwise_from_the_top_left():
    assert box_corners(np.array([1.0, 2, 3, 4])).tolist() == [[1, 2], [3, 2], [3, 4], [1, 4]]


def test_intersections_of_boxes():
    a = np.array([[0.0, 0, 4, 4], [10, 10, 12, 13]])
    b = np.array([[2.0, 1, 8, 3], [4, 4, 5, 5], [-1, -1, 20, 20]])
    assert box_intersections(a, b).tolist() == [[4, 0, 16], [0, 0, 6]]
    assert box_intersections(a, b[:0]).shape == (2, 0)


def test_intersections_agree_with_torchvision():
    boxes = np.sort(np.random.default_rng(0).uniform(0, 9, (20, 2, 2)), axis=1).reshape(-1, 4)
    shared = box_intersections(boxes, boxes)
    areas = np.diag(shared)
    iou = torchvision.ops.box_iou(torch.tensor(boxes), torch.tensor(boxes)).numpy()
    np.testing.assert_allclose(shared / (areas[:, None] + areas - shared), iou)


def test_the_bounding_box_covers_all_polygons():
    outlines = (SHAPES["triangle"][0], polygon((0, 90), (5, 91), (2, 95)))
    assert polygons_to_xyxy(outlines).tolist() == [0, 20, 60, 95]


@pytest.mark.parametrize("name", SHAPES)
def test_area_of_a_polygon(name):
    outline, area = SHAPES[name]
    assert polygon_area(outline) == pytest.approx(area, rel=1e-3)
    for same in (outline[::-1], np.roll(outline, 1, axis=0)):
        assert polygon_area(same) == pytest.approx(polygon_area(outline))


def test_areas_agree_with_shapely():
    for outline in random_polygons(20):
        assert polygon_area(outline) == pytest.approx(shapely.Polygon(outline).area)


@pytest.mark.parametrize("name", SHAPES)
def test_a_mask_covers_the_area_of_its_polygon(name):
    outline, area = SHAPES[name]
    for same in (outline, outline[::-1], np.roll(outline, 1, axis=0)):
        assert polygons_to_mask((same,), (100, 100)).sum() == pytest.approx(area, rel=0.01)


def test_masks_agree_with_skimage():
    for outline in random_polygons(20):
        # skimage: (row, column), and the center of the first pixel is at (0, 0)
        expected = polygon2mask((30, 40), outline[:, ::-1] - 0.5)
        np.testing.assert_array_equal(polygons_to_mask((outline,), (40, 30)), expected)


def test_a_mask_has_the_pixels_whose_center_lies_inside():
    mask = polygons_to_mask((polygon((2.4, 1.6), (5.6, 1.6), (5.6, 3.4), (2.4, 3.4)),), (8, 5))
    assert (mask.shape, mask.dtype) == ((5, 8), bool)
    assert np.argwhere(mask).tolist() == [[2, 2], [2, 3], [2, 4], [2, 5]]


@pytest.mark.parametrize("edge", [4, 4.5, 4.75])
def test_adjacent_polygons_share_no_pixel_and_leave_none_out(edge):
    """Also where their common edge passes through the centers of pixels."""
    left = polygon((0, 0), (edge, 0), (edge, 8), (0, 8))
    right = polygon((edge, 0), (8, 0), (8, 8), (edge, 8))
    for halves in ((left, right), (left[:, ::-1], right[:, ::-1])):
        first, second = (polygons_to_mask((half,), (8, 8)) for half in halves)
        assert (first ^ second).all()


def test_a_mask_is_the_union_of_its_polygons_within_the_image():
    one, other = polygon((-5, -5), (4, -5), (4, 4), (-5, 4)), polygon((2, 2), (99, 2), (99, 99), (2, 99))
    assert polygons_to_mask((one, other), (10, 10)).sum() == 4 * 4 + 8 * 8 - 2 * 2


def test_the_mask_of_no_polygon_is_empty():
    mask = polygons_to_mask((), (10, 7))
    assert mask.shape == (7, 10)
    assert not mask.any()
