"""`layout`: what is in a scene, and where."""

import dataclasses

import numpy as np

from florence_lab.scenes import BACKGROUNDS, CATEGORIES, HELD_OUT_SEEDS, TRAIN_SEEDS
from florence_lab.scenes.layout import plan_scene
from florence_lab.scenes.sprites import SIGN_WORDS, SPRITES

RASTER = (128, 128)


def test_training_and_held_out_seeds_are_disjoint():
    assert HELD_OUT_SEEDS.stop <= TRAIN_SEEDS.start
    assert len(HELD_OUT_SEEDS) >= 10_000


def test_every_category_and_background_occurs_and_none_dominates():
    plans = [plan_scene(seed, RASTER) for seed in range(250)]
    labels = [planned.label for plan in plans for planned in plan.objects]
    assert set(labels) == set(CATEGORIES)
    assert max(labels.count(label) for label in CATEGORIES if label != "sign") < 0.12 * len(labels)
    assert {plan.background for plan in plans} == set(BACKGROUNDS)
    assert {len(plan.objects) for plan in plans} == {1, 2, 3, 4, 5, 6}
    assert 0.25 < np.mean([any(planned.text for planned in plan.objects) for plan in plans]) < 0.5


def test_no_scene_has_more_than_max_objects():
    for limit in (1, 2, 3):
        for seed in range(25):
            assert 1 <= len(plan_scene(seed, RASTER, limit).objects) <= limit, (limit, seed)


def test_a_plan_is_independent_of_the_table_of_sprites(monkeypatch):
    """Planned objects keep the size of the drawing that they were planned with."""
    planned = plan_scene(849, RASTER, categories=("sheep",)).objects[0]
    monkeypatch.setitem(SPRITES, "sheep", dataclasses.replace(SPRITES["sheep"], size=(1, 1)))
    assert planned.design_size == (122, 98)
    assert planned.extent((200, 100))[2] == planned.width * 100


def test_signs_are_planned_with_the_size_of_their_word():
    signs = [p for seed in range(8) for p in plan_scene(seed, RASTER, categories=("sign",)).objects]
    assert all(sign.design_size == sign.sign_layout.size for sign in signs)
    assert all(sign.text.lower() in SIGN_WORDS for sign in signs)


def test_objects_only_appear_on_their_backgrounds():
    for seed in range(60):
        plan = plan_scene(seed, RASTER)
        for planned in plan.objects:
            allowed = SPRITES[planned.label].backgrounds or BACKGROUNDS
            assert plan.background in allowed, (seed, planned.label)
