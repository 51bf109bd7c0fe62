"""`rendering`: pixels and the ground truth of what is visible."""

import dataclasses

import numpy as np
from PIL import Image

from florence_lab.images import GENERATOR_TAG, load_image
from florence_lab.scenes import draw_scene
from florence_lab.scenes.layout import plan_scene
from florence_lab.scenes.paint import PALETTE
from florence_lab.scenes.rendering import render, save_image


def test_boxes_are_the_extents_of_the_masks(scenes):
    for scene in scenes:
        for scene_object in scene.objects:
            mask = scene_object.mask
            assert (mask.shape, mask.dtype) == (scene.size[::-1], bool), scene.seed
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            extent = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert scene_object.box == extent, (scene.seed, scene_object)


def test_masks_do_not_overlap(scenes):
    for scene in scenes:
        assert np.sum([scene_object.mask for scene_object in scene.objects], axis=0).max() <= 1, scene.seed


def test_every_object_is_large_enough_and_visible(many_scenes):
    for scene in many_scenes:
        for scene_object in scene.objects:
            x0, y0, x1, y1 = scene_object.box
            assert min(x1 - x0, y1 - y0) >= 0.07 * scene.size[0], (scene.seed, scene_object)
            assert 0.45 <= scene_object.visible_fraction <= 1, (scene.seed, scene_object)


def test_visibility_is_a_mask_a_fraction_and_an_area(scenes):
    """D14: `visible` used to mean a mask as an attribute and a fraction as a dictionary entry."""
    for scene in scenes:
        for depth, scene_object in enumerate(scene.objects):
            assert scene_object.depth == depth, scene.seed
            assert scene_object.area == scene_object.visible_mask.sum() == scene_object.mask.sum(), scene.seed
            x0, y0, x1, y1 = scene_object.box
            assert scene_object.mask_origin == (x0, y0), scene.seed
            assert scene_object.visible_mask.shape == (y1 - y0, x1 - x0), scene.seed


def test_masks_cover_the_pixels_that_an_object_changes():
    """Without its last object a plan gives the same image, except for the pixels near that object."""
    size = (192, 192)
    plan = plan_scene(1, (128, 128))
    full = render(plan, size)
    fewer = render(dataclasses.replace(plan, objects=plan.objects[:-1]), size)
    changed = np.any(np.asarray(full.image) != np.asarray(fewer.image), axis=-1)
    last = full.objects[-1]
    assert changed[last.mask].mean() > 0.95
    x0, y0, x1, y1 = map(int, last.box)
    margin = 20  # for the shadow
    ys, xs = np.nonzero(changed)
    assert x0 - margin <= xs.min() <= xs.max() <= x1 + margin
    assert y0 - margin <= ys.min() <= ys.max() <= y1 + margin


def test_the_quad_box_of_a_word_lies_inside_its_sign(many_scenes):
    signs = [(scene.seed, o) for scene in many_scenes for o in scene.objects if o.label == "sign"]
    assert len(signs) > 15
    for seed, sign in signs:
        x0, y0, x1, y1 = sign.box
        assert (sign.quad >= (x0 - 0.5, y0 - 0.5)).all(), seed
        assert (sign.quad <= (x1 + 0.5, y1 + 0.5)).all(), seed


def test_quad_boxes_are_rectangles_read_from_the_left(many_scenes):
    angles = set()
    for scene in many_scenes:
        for sign in scene.objects:
            if sign.quad is not None:
                along, down = sign.quad[1] - sign.quad[0], sign.quad[3] - sign.quad[0]
                assert along[0] > 0, scene.seed
                assert down[1] > 0, scene.seed
                assert abs(along @ down) < 0.01 * np.hypot(*along) * np.hypot(*down), scene.seed
                angles.add(round(np.degrees(np.arctan2(along[1], along[0]))))
    assert len(angles) > 3, "some signs are rotated"


def test_only_signs_have_text(many_scenes):
    for scene in many_scenes:
        for scene_object in scene.objects:
            is_sign = scene_object.label == "sign"
            assert (scene_object.text is not None, scene_object.quad is not None) == (is_sign, is_sign), scene.seed


def test_objects_have_the_color_that_they_are_named_after(many_scenes):
    """Most pixels of a car or balloon are nearer to its color than to any other of the palette."""
    names = [name for name in PALETTE if name not in ("black", "gray", "white")]
    for scene in many_scenes:
        for scene_object in scene.objects:
            if (
                scene_object.label in ("car", "balloon", "mushroom")
                and scene.background != "night"
                and scene_object.color in names
            ):
                pixels = np.asarray(scene.image)[scene_object.mask].astype(float)
                distance = np.stack([np.abs(pixels - PALETTE[name]).sum(1) for name in names])
                votes = np.bincount(distance.argmin(0)[distance.min(0) < 120], minlength=len(names))
                assert names[votes.argmax()] == scene_object.color, (scene.seed, scene_object)


def test_images_name_their_generator_and_seed(tmp_path):
    scene = draw_scene(7, 64)
    save_image(scene, tmp_path / "scene.png")
    for source in (scene.image, scene.image.resize((32, 32)), scene.image.copy(), tmp_path / "scene.png"):
        assert load_image(source).info["Source"] == f"{GENERATOR_TAG} 7"
    assert "Source" not in load_image(Image.new("RGB", (8, 8))).info
