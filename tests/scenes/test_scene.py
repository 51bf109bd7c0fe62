"""`draw_scene`: a seed gives one scene, at any size."""

import numpy as np
import pytest

from florence_lab.images import load_image
from florence_lab.scenes import CATEGORIES, SAMPLES, TRAIN_SEEDS, draw_scene, object_counts, sample_path, sample_scene
from florence_lab.scenes.captions import description


@pytest.mark.parametrize("seed", [0, TRAIN_SEEDS.start, TRAIN_SEEDS[-1]])
def test_the_same_seed_gives_the_same_scene(seed):
    first, second = draw_scene(seed, 96), draw_scene(seed, 96)
    assert first == second
    assert first.image.tobytes() == second.image.tobytes()


def test_different_seeds_give_different_images(many_scenes):
    assert len({scene.image.tobytes() for scene in many_scenes}) == len(many_scenes)


def test_images_are_rgb_of_the_requested_size(scenes):
    assert {(scene.image.mode, scene.size) for scene in scenes} == {("RGB", (192, 192))}
    assert draw_scene(0, (80, 60)).size == (80, 60)


@pytest.mark.parametrize("sizes", [((96, 96), (288, 288)), ((120, 90), (320, 240)), ((90, 150), (180, 300))])
def test_a_seed_gives_the_same_objects_at_every_size(sizes):
    scale = sizes[1][0] / sizes[0][0]
    for seed in range(6):
        small, large = (draw_scene(seed, size) for size in sizes)
        assert [description(o) for o in small.objects] == [description(o) for o in large.objects], seed
        for a, b in zip(small.objects, large.objects, strict=True):
            np.testing.assert_allclose(np.array(a.box) * scale, b.box, atol=1.7 * scale, err_msg=f"seed {seed}")


def test_images_of_different_sizes_are_alike():
    small, large = draw_scene(3, 128).image, draw_scene(3, 512).image
    difference = np.abs(np.asarray(small, float) - np.asarray(large.reduce(4), float))
    assert difference.mean() < 6


def test_a_scene_can_be_limited_to_categories():
    for seed in range(12):
        assert set(object_counts(draw_scene(seed, 64, categories=("cat", "tree")))) <= {"cat", "tree"}, seed
        assert draw_scene(seed, 64, categories=CATEGORIES).objects == draw_scene(seed, 64).objects, seed


def test_a_scene_can_consist_of_signs():
    scenes = [draw_scene(seed, 128, categories=["sign"]) for seed in range(12)]
    assert all(o.label == "sign" and o.text for scene in scenes for o in scene.objects)
    assert max(len(scene.objects) for scene in scenes) >= 4


def test_an_unknown_category_is_rejected_with_the_nearest_name():
    with pytest.raises(ValueError, match="unknown category 'cats'; did you mean 'cat'"):
        draw_scene(0, 64, categories=["cats"])


def test_max_objects_must_be_positive():
    with pytest.raises(ValueError, match="max_objects must be at least 1, got 0"):
        draw_scene(0, 64, max_objects=0)


def test_scenes_are_drawn_down_to_the_smallest_size():
    for seed in range(20):
        assert draw_scene(seed, 16).size == (16, 16), seed
    with pytest.raises(ValueError, match="size 8 is too small: scenes have at least 16 x 16 pixels"):
        draw_scene(0, 8)


@pytest.mark.parametrize("name", ["sheep", "night"])
def test_the_shipped_samples_are_what_their_seeds_draw(name):
    """Fails if a change of the drawing code changes the scene of a seed. Releases of Pillow may differ by a few levels."""
    shipped, drawn = np.asarray(load_image(sample_path(name)), float), np.asarray(sample_scene(name).image, float)
    assert np.abs(shipped - drawn).mean() < 0.5


def test_an_unknown_sample_is_rejected_with_the_known_names():
    for function in (sample_path, sample_scene):
        with pytest.raises(ValueError, match="unknown sample 'sheeps'; did you mean 'sheep'"):
            function("sheeps")
    assert all(sample_path(name).is_file() for name in SAMPLES)
