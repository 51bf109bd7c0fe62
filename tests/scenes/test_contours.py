"""`contours`: masks -> polygons."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from florence_lab.scenes.contours import MAX_VERTICES, mask_to_polygons


def rasterize(polygons, size):
    """Draw polygons in pixels as an H x W bool mask, at four times the size."""
    canvas = Image.new("L", (size[0] * 4, size[1] * 4))
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon([tuple(point * 4) for point in polygon], fill=255)
    return np.asarray(canvas.reduce(4)) > 127


def mask_iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_a_rectangle_becomes_its_four_corners():
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    [polygon] = mask_to_polygons(mask)
    # the corners of a contour through pixel borders are cut by half a pixel
    np.testing.assert_allclose(polygon.min(axis=0), (20, 10), atol=0.5)
    np.testing.assert_allclose(polygon.max(axis=0), (50, 30), atol=0.5)
    assert mask_iou(rasterize([polygon], (60, 40)), mask) > 0.98


def test_each_part_of_a_mask_becomes_a_polygon_largest_first():
    mask = np.ones((40, 60), bool)
    mask[:, 25:40] = False
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 2
    np.testing.assert_allclose(polygons[0].max(axis=0), (25, 40))
    assert mask_iou(rasterize(polygons, (60, 40)), mask) > 0.98


def test_holes_and_small_parts_are_omitted():
    mask = np.ones((60, 60), bool)
    mask[20:40, 20:40] = False
    mask[:, 50:] = False
    mask[0:3, 55:58] = True
    assert len(mask_to_polygons(mask)) == 1


def test_polygons_of_objects_are_close_to_their_masks(many_scenes):
    ious = {}
    for scene in many_scenes[:30]:
        for index, scene_object in enumerate(scene.objects):
            where = (scene.seed, index)
            assert 3 <= sum(map(len, scene_object.polygons)) <= MAX_VERTICES, where
            ious[where] = mask_iou(rasterize(scene_object.polygons, scene.size), scene_object.mask)
    assert np.mean(list(ious.values())) > 0.94
    assert min(ious.values()) > 0.75, min(ious, key=ious.get)


def test_polygons_run_clockwise_from_the_topmost_vertex(scenes):
    for scene in scenes[:12]:
        for scene_object in scene.objects:
            for polygon in scene_object.polygons:
                x, y = polygon.T
                assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0, scene.seed
                assert tuple(polygon[0][::-1]) == min(map(tuple, polygon[:, ::-1])), scene.seed


@pytest.mark.parametrize("radius", [6, 25])
def test_a_circle_needs_few_vertices(radius):
    y, x = np.mgrid[: 2 * radius + 1, : 2 * radius + 1] - radius
    mask = x**2 + y**2 <= radius**2
    [polygon] = mask_to_polygons(mask)
    assert 6 <= len(polygon) <= MAX_VERTICES
    assert mask_iou(rasterize([polygon], mask.shape), mask) > 0.9
