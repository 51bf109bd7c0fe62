"""The cartoon world: the same everywhere, everything visible, every answer true."""

import dataclasses
import json
import random
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw

from florence_lab.images import GENERATOR_TAG, load_image
from florence_lab.scenes import (
    BACKGROUNDS,
    CATEGORIES,
    HELD_OUT_SEEDS,
    SAMPLES,
    TRAIN_SEEDS,
    caption_counts,
    draw_scene,
    object_counts,
    sample_path,
    write_dataset,
)
from florence_lab.scenes.answers import WRITERS
from florence_lab.scenes.captions import description, referring
from florence_lab.scenes.layout import plan_scene
from florence_lab.scenes.paint import PALETTE
from florence_lab.scenes.phrases import phrases, plural
from florence_lab.scenes.sprites import WORDS
from florence_lab.tasks import TASKS
from florence_lab.template.locations import bins_to_pixels, pixels_to_bins

SIDE = 192
SEEDS = range(60)
FOUR_SHEEP = 849  # four white sheep in a field before mountains, as in the issue
CAPTIONS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")


@cache
def scene_of(seed):
    return draw_scene(seed, SIDE)


@pytest.fixture(params=SEEDS[:24], ids=str)
def scene(request):
    return scene_of(request.param)


def things_of(seeds):
    return [(scene_of(seed), thing) for seed in seeds for thing in scene_of(seed).objects]


def drawn(polygons, size):
    """Polygons in pixels as an H x W bool mask, drawn at four times the size."""
    canvas = Image.new("L", (size[0] * 4, size[1] * 4))
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon([tuple(point * 4) for point in polygon], fill=255)
    return np.asarray(canvas.reduce(4)) > 127


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


# ---------------------------------------------------------------- the world


def test_there_is_enough_of_everything():
    assert len(CATEGORIES) == len(set(CATEGORIES)) >= 18
    assert len(BACKGROUNDS) >= 6
    assert len(WORDS) == len(set(WORDS)) >= 120


def test_training_and_held_out_seeds_never_meet():
    assert len(HELD_OUT_SEEDS) >= 10_000
    assert HELD_OUT_SEEDS.stop <= TRAIN_SEEDS.start


def test_everything_occurs_and_nothing_dominates():
    plans = [plan_scene(seed, (128, 128)) for seed in range(300)]
    seen = [item.label for plan in plans for item in plan.items]
    assert set(seen) == set(CATEGORIES)
    assert max(seen.count(label) for label in CATEGORIES if label != "sign") < 0.12 * len(seen)
    assert {plan.background for plan in plans} == set(BACKGROUNDS)
    assert {len(plan.items) for plan in plans} == {1, 2, 3, 4, 5, 6}
    assert 0.25 < np.mean([any(item.word for item in plan.items) for plan in plans]) < 0.5


def test_four_sheep_in_a_field():
    scene = draw_scene(FOUR_SHEEP, SIDE)
    assert FOUR_SHEEP in HELD_OUT_SEEDS
    assert scene.background == "field"
    assert object_counts(scene) == {"sheep": 4}
    assert scene.answer("<CAPTION>").text == "A cartoon picture of four white sheep in a field."


@pytest.mark.parametrize("most", [1, 2, 3])
def test_max_objects(most):
    assert all(1 <= len(plan_scene(seed, (128, 128), most).items) <= most for seed in range(60))


# ---------------------------------------------------------------- the same everywhere


@pytest.mark.parametrize("seed", [0, 7, TRAIN_SEEDS.start, TRAIN_SEEDS[-1]])
def test_the_same_seed_is_the_same_scene(seed):
    one, two = draw_scene(seed, SIDE), draw_scene(seed, SIDE)
    assert one == two
    assert one.image.tobytes() == two.image.tobytes()


def test_another_seed_is_another_scene():
    assert len({scene_of(seed).image.tobytes() for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("sizes", [((96, 96), (384, 384)), ((160, 120), (640, 480)), ((120, 200), (300, 500))])
def test_the_same_scene_at_another_size(sizes):
    for seed in range(8):
        small, large = (draw_scene(seed, size) for size in sizes)
        assert small.size == sizes[0]
        assert [description(t) for t in small.objects] == [description(t) for t in large.objects]
        scale = sizes[1][0] / sizes[0][0]
        for a, b in zip(small.objects, large.objects, strict=True):
            np.testing.assert_allclose(np.array(a.box) * scale, b.box, atol=1.7 * scale)


def test_pictures_at_every_size_are_alike():
    small, large = draw_scene(3, 128).image, draw_scene(3, 512).image
    difference = np.abs(np.asarray(small, float) - np.asarray(large.reduce(4), float))
    assert difference.mean() < 6


# ---------------------------------------------------------------- everything visible, everything true


def test_picture(scene):
    assert scene.image.mode == "RGB"
    assert scene.size == (SIDE, SIDE)
    assert 1 <= len(scene.objects) <= 6


def test_boxes_are_the_extents_of_masks(scene):
    for thing in scene.objects:
        assert thing.mask.shape == (SIDE, SIDE)
        assert thing.mask.dtype == bool
        rows, columns = np.flatnonzero(thing.mask.any(1)), np.flatnonzero(thing.mask.any(0))
        assert thing.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert thing.mask.sum() == thing.attributes["area"]


def test_masks_share_no_pixel(scene):
    assert np.sum([thing.mask for thing in scene.objects], axis=0).max() <= 1


def test_everything_is_large_enough_and_seen():
    for scene, thing in things_of(SEEDS):
        x0, y0, x1, y1 = thing.box
        assert min(x1 - x0, y1 - y0) >= 0.07 * SIDE, (scene.seed, thing)
        assert thing.attributes["visible"] >= 0.45, (scene.seed, thing)


def test_masks_show_where_the_thing_was_drawn():
    """Without its last thing the plan draws the same picture, but for the pixels near that thing."""
    from florence_lab.scenes.rendering import render

    plan = plan_scene(1, (128, 128))
    full = render(plan, (SIDE, SIDE))
    fewer = render(dataclasses.replace(plan, items=plan.items[:-1]), (SIDE, SIDE))
    changed = np.any(np.asarray(full.image) != np.asarray(fewer.image), axis=-1)
    mask = full.objects[-1].mask
    assert changed[mask].mean() > 0.95
    x0, y0, x1, y1 = map(int, full.objects[-1].box)
    margin = 0.1 * SIDE  # for its shadow
    ys, xs = np.nonzero(changed)
    assert xs.min() >= x0 - margin
    assert xs.max() <= x1 + margin
    assert ys.min() >= y0 - margin
    assert ys.max() <= y1 + margin


def test_polygons_are_few_vertices_and_the_truth():
    agreements = []
    for _, thing in things_of(range(30)):
        assert 3 <= sum(map(len, thing.polygons)) <= 24
        agreements.append(iou(drawn(thing.polygons, (SIDE, SIDE)), thing.mask))
    assert np.mean(agreements) > 0.94
    assert min(agreements) > 0.75


def test_polygons_run_clockwise_from_the_top():
    for _, thing in things_of(SEEDS[:20]):
        for polygon in thing.polygons:
            x, y = polygon.T
            assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0
            assert tuple(polygon[0][::-1]) == min(map(tuple, polygon[:, ::-1]))


def test_a_split_thing_has_several_polygons():
    from florence_lab.scenes.contours import outlines

    mask = np.ones((40, 60), bool)
    mask[:, 25:40] = False
    parts = outlines(mask)
    assert len(parts) == 2
    np.testing.assert_allclose(parts[0].max(axis=0), (25, 40))
    assert iou(drawn(parts, (60, 40)), mask) > 0.98


def test_signs():
    signs = [(scene, thing) for scene, thing in things_of(SEEDS) if thing.label == "sign"]
    assert len(signs) > 15
    for _, sign in signs:
        assert sign.text.lower() in WORDS
        x0, y0, x1, y1 = sign.box
        assert (sign.quad >= (x0 - 0.5, y0 - 0.5)).all()
        assert (sign.quad <= (x1 + 0.5, y1 + 0.5)).all()
        along, down = sign.quad[1] - sign.quad[0], sign.quad[3] - sign.quad[0]
        assert along[0] > 0
        assert down[1] > 0
        assert abs(along @ down) < 0.01 * np.hypot(*along) * np.hypot(*down)
    assert len({round(np.degrees(np.arctan2(*(s.quad[1] - s.quad[0])[::-1]))) for _, s in signs}) > 3
    assert all(thing.text is None and thing.quad is None for _, thing in things_of(SEEDS) if thing.label != "sign")


def test_colours_are_seen():
    """The most of a car's or balloon's pixels are nearer to the colour it is named after than to any other."""
    for scene, thing in things_of(SEEDS):
        if thing.label in ("car", "balloon", "mushroom") and scene.background != "night":
            pixels = np.asarray(scene.image)[thing.mask].astype(float)
            names = [n for n in PALETTE if n not in ("black", "gray", "white")]
            if thing.color in names:
                distance = np.stack([np.abs(pixels - PALETTE[n]).sum(1) for n in names])
                votes = np.bincount(distance.argmin(0)[distance.min(0) < 120], minlength=len(names))
                assert names[votes.argmax()] == thing.color, (scene.seed, thing)


# ---------------------------------------------------------------- answers


def test_every_task_is_answered():
    assert set(WRITERS) == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_answers_parse_to_their_own_kind(task, scene):
    for text in scene.queries(task, random.Random(1)):
        result = scene.answer(task, text)
        assert result.task == task
        assert result.image is scene.image
        assert result.to_dict()[task] is not None
        if task not in ("<OCR>", "<OCR_WITH_REGION>"):
            assert result.raw, (scene.seed, text)


def test_detection_is_the_truth(scene):
    result = scene.answer("<OD>")
    truth = sorted((thing.label, *pixels_to_bins(thing.box, scene.size)) for thing in scene.objects)
    found = [(label, *pixels_to_bins(box, scene.size)) for label, box in zip(result.labels, result.boxes, strict=True)]
    assert sorted(found) == truth
    firsts = [result.boxes[result.labels.index(label)][0] for label in dict.fromkeys(result.labels)]
    assert firsts == sorted(firsts)


def test_dense_captions_and_proposals_are_the_truth(scene):
    dense, proposals = scene.answer("<DENSE_REGION_CAPTION>"), scene.answer("<REGION_PROPOSAL>")
    assert sorted(dense.labels) == sorted(description(thing) for thing in scene.objects)
    np.testing.assert_array_equal(dense.boxes, proposals.boxes)
    assert list(proposals.boxes[:, 0]) == sorted(proposals.boxes[:, 0])
    assert set(proposals.labels) == {""}


@pytest.mark.parametrize("task", CAPTIONS)
def test_captions_count_everything(task):
    wordings = set()
    for seed in range(200):
        scene = draw_scene(seed, 64)
        for variant in range(6):
            text = scene.answer(task, variant=variant).text
            assert caption_counts(text) == object_counts(scene), text
            wordings.add(text[:12])
            if task == "<MORE_DETAILED_CAPTION>":
                assert all(thing.text in text for thing in scene.objects if thing.text)
    assert len(wordings) >= 3


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("A cartoon picture of four white sheep and a red car in a field.", {"sheep": 4, "car": 1}),
        ("Two people, an umbrella and three buses on a beach", {"person": 2, "umbrella": 1, "bus": 3}),
        ("one cactus and 2 cacti under the sun", {"cactus": 3, "sun": 1}),
        ("a sign that says CAT and a lighthouse", {"sign": 1, "lighthouse": 1}),
        ("a white sheep and another black sheep. The sheep stand in a field.", {"sheep": 2}),
        ("two bikes, a plane and a hot air balloon", {"bicycle": 2, "airplane": 1, "balloon": 1}),
        ("cats and a pair of dogs", {"cat": 2, "dog": 2}),
        ("nothing that we know", {}),
    ],
)
def test_caption_counts(text, counts):
    assert caption_counts(text) == counts


def test_grounding_of_a_caption_finds_everything(scene):
    caption = scene.answer("<CAPTION>").text
    result = scene.answer("<CAPTION_TO_PHRASE_GROUNDING>", caption)
    assert len(result) == len(scene.objects)
    assert all(label in caption for label in result.labels)


def test_grounding_of_phrases():
    scene = draw_scene(FOUR_SHEEP, SIDE)
    for text in ("the sheeps", "sheep", "four white sheep", "White sheep", "all the sheep"):
        result = scene.answer("<CAPTION_TO_PHRASE_GROUNDING>", text)
        assert result.labels == (text,) * 4
        assert sorted(map(tuple, pixels_to_bins(result.boxes, scene.size))) == sorted(
            tuple(pixels_to_bins(thing.box, scene.size)) for thing in scene.objects
        )
    for text in ("the bus", "the black sheep", "happiness"):
        assert len(scene.answer("<CAPTION_TO_PHRASE_GROUNDING>", text)) == 0
    assert len(scene.answer("<OPEN_VOCABULARY_DETECTION>", "the largest sheep")) == 1


def test_open_vocabulary_detection_finds_every_label(scene):
    for label, count in object_counts(scene).items():
        assert len(scene.answer("<OPEN_VOCABULARY_DETECTION>", label)) == count
        assert len(scene.answer("<OPEN_VOCABULARY_DETECTION>", f"the {plural(label)}")) == count


def test_expressions_mean_one_thing_and_show_its_outline():
    told = 0
    for scene, thing in things_of(range(30)):
        for words in referring(thing, scene.objects)[:4]:
            result = scene.answer("<REFERRING_EXPRESSION_SEGMENTATION>", words)
            assert len(result) == 1
            assert iou(result.masks[0], thing.mask) > 0.7, (scene.seed, words)
        told += bool(referring(thing, scene.objects))
    assert told > 0.6 * len(things_of(range(30)))


def test_segments_of_regions(scene):
    for thing in scene.objects:
        result = scene.answer("<REGION_TO_SEGMENTATION>", thing.box)
        assert len(result) == 1
        assert iou(result.masks[0], thing.mask) > 0.7


def test_words_of_regions(scene):
    for thing in scene.objects:
        region = "".join(f"<loc_{n}>" for n in pixels_to_bins(thing.box, scene.size))
        category = scene.answer("<REGION_TO_CATEGORY>", region)
        assert category.text == thing.label
        assert category.raw == thing.label + region
        assert scene.answer("<REGION_TO_DESCRIPTION>", thing.box).text.startswith(description(thing))
        if thing.text:
            assert scene.answer("<REGION_TO_OCR>", thing.box).text == thing.text
            word = (*thing.quad.min(axis=0), *thing.quad.max(axis=0))
            assert scene.answer("<REGION_TO_OCR>", word).text == thing.text


def test_reading():
    for seed in SEEDS:
        scene = scene_of(seed)
        signs = [thing for thing in scene.objects if thing.text]
        text, quads = scene.answer("<OCR>"), scene.answer("<OCR_WITH_REGION>")
        assert sorted(text.text.split()) == sorted(sign.text for sign in signs)
        assert list(quads.labels) == text.text.split()
        for sign in signs:
            expected = bins_to_pixels(pixels_to_bins(sign.quad.ravel(), scene.size), scene.size).reshape(4, 2)
            assert min(np.abs(quad - expected).max() for quad in quads.quads) < 1e-9
        if not signs:
            assert text.raw == quads.raw == ""
            assert scene.queries("<REGION_TO_OCR>", random.Random(0)) == []


def test_queries_take_either_kind_of_dice_and_repeat():
    scene = scene_of(1)
    for task in TASKS:
        assert scene.queries(task, random.Random(5)) == scene.queries(task, random.Random(5))
        assert bool(scene.queries(task, np.random.default_rng(5))) == (task != "<REGION_TO_OCR>")
    assert scene.queries("<OD>", random.Random(0)) == [None]


def test_wrong_questions_are_told_so():
    scene = scene_of(0)
    with pytest.raises(ValueError, match="no free question"):
        scene.answer("")
    with pytest.raises(ValueError, match="takes no input"):
        scene.answer("<OD>", "the cat")
    with pytest.raises(ValueError, match="needs"):
        scene.answer("<REFERRING_EXPRESSION_SEGMENTATION>")
    with pytest.raises(ValueError, match="no thing in the region"):
        scene.answer("<REGION_TO_CATEGORY>", "<loc_0><loc_998><loc_1><loc_999>")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the red car on the left", ("car", "red", None, "on the left")),
        ("two people in blue", ("person", "blue", None, None)),
        ("the grey cat", ("cat", "gray", None, None)),
        ("a yellow sign that says STOP in the middle", ("sign", "yellow", "STOP", "in the middle")),
    ],
)
def test_phrases_are_understood(text, expected):
    (phrase,) = phrases(text)
    assert phrase.span == text
    assert (phrase.label, phrase.color, phrase.word, phrase.position) == expected


# ---------------------------------------------------------------- a dataset


def test_dataset(tmp_path):
    folder = write_dataset(tmp_path / "scenes", range(6), size=128)
    coco = json.loads((folder / "annotations.json").read_text())
    assert [c["name"] for c in coco["categories"]] == list(CATEGORIES)
    assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"])
    by_image = {image["id"]: image for image in coco["images"]}
    for annotation in coco["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= 128
        assert 0 <= y < y + height <= 128
        assert 0 < annotation["area"] <= width * height
        assert annotation["image_id"] in by_image
        assert all(len(flat) >= 6 and len(flat) % 2 == 0 for flat in annotation["segmentation"])
    assert sum(len(draw_scene(seed, 64).objects) for seed in range(6)) == len(coco["annotations"])

    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert {row["query"].split(">")[0] + ">" for row in rows} == set(TASKS)
    for row in rows:
        assert set(row) == {"query", "response", "images"}
        assert Image.open(folder / row["images"][0]).size == (128, 128)


def test_dataset_of_one_task_is_repeatable(tmp_path):
    one = write_dataset(tmp_path / "a", [3, 4], size=64, tasks=["<OD>"])
    two = write_dataset(tmp_path / "b", [3, 4], size=64, tasks=["<OD>"])
    assert (one / "train.jsonl").read_bytes() == (two / "train.jsonl").read_bytes()
    assert len((one / "train.jsonl").read_text().splitlines()) == 2


def test_a_scene_says_where_it_comes_from(tmp_path):
    """In memory, after the usual handling, and in the files; a photograph says nothing of the kind."""
    scene = draw_scene(7, 64)
    files = [write_dataset(tmp_path, [7], 64) / "images" / "scene_00000007.png", *map(sample_path, SAMPLES)]
    for source in (scene.image, scene.image.resize((32, 32)), scene.image.copy(), *files):
        assert load_image(source).info["Source"].startswith(GENERATOR_TAG)
    assert "Source" not in load_image(Image.new("RGB", (8, 8))).info


def test_a_scene_can_be_limited_to_some_kinds_of_things():
    for seed in range(12):
        assert {thing.label for thing in draw_scene(seed, 64, categories=("cat", "tree")).objects} <= {"cat", "tree"}
        assert draw_scene(seed, 64, categories=CATEGORIES).objects == draw_scene(seed, 64).objects
    signs = [draw_scene(seed, 128, categories=["sign"]).objects for seed in range(12)]
    assert all(thing.label == "sign" and thing.text for objects in signs for thing in objects)
    assert max(map(len, signs)) >= 4
    with pytest.raises(ValueError, match="unknown category 'cats'; did you mean 'cat'"):
        draw_scene(0, 64, categories=["cats"])
