"""`dense_targets`: what each image token shows."""

import random
from itertools import groupby

import numpy as np
import pytest
import torch

from florence_lab.pretraining.dataset import RENDER_SIZES, SEEDS_PER_SAMPLE, render_sample
from florence_lab.pretraining.dense_targets import (
    CHARACTERS,
    COLOR_NAMES,
    DENSE_TARGET_FIELDS,
    DENSE_TARGET_WIDTH,
    TARGET_MAP_SIZE,
    build_dense_targets,
    split_dense_targets,
)
from florence_lab.scenes import CATEGORIES, TRAIN_SEEDS, draw_scene
from florence_lab.scenes.phrases import column_index

SAMPLE = 9  # odd multiple of four plus one: the first of its seeds with text


@pytest.fixture(scope="module")
def sample():
    return render_sample(SAMPLE, 6)


@pytest.fixture(scope="module")
def scene():
    """The scene that `sample` shows."""
    seeds = TRAIN_SEEDS[SEEDS_PER_SAMPLE * SAMPLE : SEEDS_PER_SAMPLE * (SAMPLE + 1)]
    return next(s for s in (draw_scene(seed, 192) for seed in seeds) if any(o.text for o in s.objects))


@pytest.fixture(params=[8, 12, 16])
def targets(request, sample):
    """Fields of the dense targets as side x side x width arrays, for three numbers of image tokens."""
    side = request.param
    built = build_dense_targets(sample.instance_map, sample.instances, sample.letter_map, side)
    fields = split_dense_targets(torch.from_numpy(built.reshape(side, side, DENSE_TARGET_WIDTH)))
    return {name: field.numpy() for name, field in fields.items()}


def tokens_of(targets, index):
    return targets["instance_index"][..., 0] == 1 + index


def test_tokens_inside_a_box_show_its_object(targets, scene):
    side = len(targets["category"])
    for scene_object in scene.objects:
        x0, y0, x1, y1 = (round(v * side / 192) for v in scene_object.box)
        shows = targets["category"][y0:y1, x0:x1, 0] == 1 + CATEGORIES.index(scene_object.label)
        assert shows.mean() > 0.4
        color = 1 + COLOR_NAMES.index(scene_object.color) if scene_object.color else 0
        assert (targets["color"][y0:y1, x0:x1][shows] == color).any()


def test_group_sizes_and_the_leftmost_of_each_group(targets, scene):
    for index, scene_object in enumerate(scene.objects):
        same_category = [o for o in scene.objects if o.label == scene_object.label]
        same_look = [o for o in same_category if o.color == scene_object.color]
        same_column = [o for o in same_look if column_index(o) == column_index(scene_object)]
        groups = [same_category, same_look, same_column]
        here = tokens_of(targets, index)
        assert (targets["group_sizes"][here] == [len(group) for group in groups]).all()
        leftmost = [min(group, key=lambda o: o.box) is scene_object for group in groups]
        assert (targets["is_leftmost"][here] == leftmost).all()
        assert (targets["column"][here] == column_index(scene_object)).all()


def test_each_object_has_one_center_token_nearest_to_its_middle(targets, scene):
    for index in range(len(scene.objects)):
        here = tokens_of(targets, index)
        is_center = here & (targets["is_center"][..., 0] > 0)
        assert is_center.sum() == here.any()
        if here.any():
            positions = np.argwhere(here)
            distances = np.linalg.norm(positions - positions.mean(0), axis=1)
            assert np.linalg.norm(np.argwhere(is_center)[0] - positions.mean(0)) == pytest.approx(distances.min())


def test_the_background_has_no_attributes(targets):
    background = targets["category"][..., 0] == 0
    for name in DENSE_TARGET_FIELDS:
        if name not in ("letters", "quadrant_categories", "coverage"):
            assert not targets[name][background].any(), name


def test_coverage_tells_the_part_of_a_token_that_shows_the_object(targets):
    is_object = targets["category"][..., 0] > 0
    coverage = targets["coverage"][is_object]
    assert (coverage.mean(-1) >= 0.1).all()
    assert 0.5 < coverage.mean() < 1, "objects fill tokens at their edges in part"
    assert 0.5 < (targets["quadrant_categories"][is_object] == targets["category"][is_object]).mean() < 1


def test_boxes_are_fractions_of_the_image(targets):
    boxes = targets["box"][targets["category"][..., 0] > 0]
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.min() >= 0
    assert boxes.max() <= 1


def test_letters_are_sampled_at_the_centers_of_the_quadrants():
    side, size = 8, TARGET_MAP_SIZE
    fine = np.arange(4 * side * side).reshape(2 * side, 2 * side) % 60
    letters = fine.repeat(size // side // 2, 0).repeat(size // side // 2, 1).astype(np.uint8)
    built = build_dense_targets(np.zeros((size, size), np.uint8), np.zeros((1, 6), np.float32), letters, side)
    token = split_dense_targets(torch.from_numpy(built[1:2]))["letters"]
    assert token[0].tolist() == fine[:2, 2:4].flatten().tolist()


def test_the_letter_map_spells_the_words_along_their_quad_boxes():
    for index in (3, 11, 19):
        sample = render_sample(index, 6)
        size = random.Random(index).choice(RENDER_SIZES)
        scene = draw_scene(TRAIN_SEEDS[SEEDS_PER_SAMPLE * index], size, 6, ["sign"])
        assert scene.objects
        for sign in scene.objects:
            left, right = (sign.quad[ends].mean(0) / scene.size for ends in ([0, 3], [1, 2]))
            line = left + (right - left) * np.linspace(0.02, 0.98, 200)[:, None]
            values = (sample.letter_map[y, x] for x, y in (line * TARGET_MAP_SIZE).astype(int))
            spelled = "".join(CHARACTERS[value - 1] for value, _ in groupby(int(v) for v in values) if value)
            assert spelled == "".join(letter for letter, _ in groupby(sign.text)), (index, sign.text)
