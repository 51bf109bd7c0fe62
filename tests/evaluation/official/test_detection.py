"""Detection on a COCO file, beside pycocotools called directly."""

import contextlib
import io
import json
import math
import random

import numpy as np
import pytest
from support import boxes

from florence_lab.evaluation.official import (
    COCO_METRICS,
    NameTable,
    bootstrap_interval,
    coco_scores,
    read_coco,
    to_detections,
)
from florence_lab.exceptions import DatasetError

CATEGORIES = [{"id": i, "name": name} for i, name in ((1, "person"), (3, "dog"), (18, "tv"))]


@pytest.fixture(scope="module")
def coco_file(tmp_path_factory):
    """A file of 14 images with crowds, tiny boxes, images without objects, and one with more than 100 objects."""
    rng = random.Random(1)
    images = [{"id": 7 * i + 5, "file_name": f"{i}.png", "width": 640, "height": 480} for i in range(14)]
    annotations = []

    def add(image, box, category, iscrowd=0):
        x, y, w, h = box
        outline = (
            {"counts": [0, 640 * 480], "size": [480, 640]} if iscrowd else [[x, y, x + w, y, x + w, y + h, x, y + h]]
        )
        annotations.append(
            {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category, "bbox": list(box)}
            | {"area": w * h, "iscrowd": iscrowd, "segmentation": outline}
        )

    for image in images[:9]:
        for _ in range(rng.randint(1, 9)):
            side = rng.choice([5, 8, 20, 60, 200])
            add(
                image,
                (rng.uniform(0, 400), rng.uniform(0, 250), side * rng.uniform(0.8, 1.2), side),
                rng.choice([1, 3, 18]),
            )
    for image in images[9:11]:
        add(image, (10, 10, 400, 300), 1, iscrowd=1)
        add(image, (450, 20, 100, 200), 1)
    for i in range(130):
        add(images[11], (6 * (i % 50), 40 * (i // 50), 5, 30), 3)
    path = tmp_path_factory.mktemp("coco") / "instances.json"  # the last two images have no objects
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path


def perfect(data, change=lambda box, rng: box, seed=0):
    rng = random.Random(seed)
    return [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": change(a["bbox"], rng),
            "score": rng.random(),
        }
        for a in data["annotations"]
        if not a["iscrowd"]
    ]


def shifted(box, rng):
    x, y, w, h = box
    return [x + w * rng.uniform(0, 0.4), y, w, h]


def answers(name, data):
    """Answers of a known kind."""
    found = perfect(data)
    if name == "shuffled":
        for detection in found:
            detection["category_id"] = {1: 3, 3: 18, 18: 1}[detection["category_id"]]
    if name == "shifted":
        found = perfect(data, shifted)
    if name == "twice":
        found += [{**detection, "score": detection["score"] * 0.9} for detection in found]
    if name == "in the crowds":
        crowds = [a for a in data["annotations"] if a["iscrowd"]]
        found += [
            {"image_id": a["image_id"], "category_id": 1, "bbox": [20, 20, 50, 50], "score": 0.99} for a in crowds
        ]
    if name == "in empty images":
        found += [
            {"image_id": image["id"], "category_id": 1, "bbox": [20, 20, 50, 50], "score": 0.99}
            for image in data["images"][-2:]
        ]
    return [] if name == "nothing" else found


def pycocotools_stats(path, detections, image_ids=None):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        if image_ids:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [math.nan if value < 0 else value for value in evaluation.stats]


KINDS = ["perfect", "shuffled", "shifted", "twice", "in the crowds", "in empty images"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_are_those_of_pycocotools(coco_file, kind):
    found = answers(kind, read_coco(coco_file))
    scores = coco_scores(coco_file, found)
    assert list(scores.values) == list(COCO_METRICS)
    assert list(scores.values.values()) == pytest.approx(pycocotools_stats(coco_file, found), nan_ok=True)


def test_crowds_are_ignored_and_images_without_objects_are_not(coco_file):
    """Crowds were taken for ordinary objects, and images without objects were never asked about."""
    data = read_coco(coco_file)
    ap = {kind: coco_scores(data, answers(kind, data)).values["AP"] for kind in KINDS}
    assert ap["in the crowds"] == ap["perfect"] > ap["in empty images"]
    assert ap["shuffled"] < 0.02 < ap["shifted"] < ap["perfect"]


def test_a_perfect_answer_loses_by_the_limit_of_100_only(coco_file):
    data = read_coco(coco_file)
    scores = coco_scores(data, answers("perfect", data))
    assert scores.by_category["person"]["AP"] == scores.by_category["tv"]["AP"] == pytest.approx(1)
    assert scores.by_category["dog"]["AP"] < 0.9
    assert scores.to_dataframe().category.tolist() == ["person", "dog", "tv"]


def test_no_answer_at_all_has_an_average_precision_of_zero(coco_file):
    scores = coco_scores(coco_file, [])
    assert scores.values["AP"] == scores.values["AR@100"] == scores.average_precision.resample(np.ones(14)) == 0


def test_part_of_the_images_can_be_evaluated(coco_file):
    data = read_coco(coco_file)
    chosen = [image["id"] for image in data["images"][:6]]
    found = answers("shifted", data)
    scores = coco_scores(data, found, chosen)
    assert list(scores.values.values()) == pytest.approx(pycocotools_stats(coco_file, found, chosen), nan_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_resampling_starts_from_the_official_value(coco_file, kind):
    data = read_coco(coco_file)
    estimate = coco_scores(data, answers(kind, data)).average_precision
    assert estimate.resample(np.ones(len(data["images"]))) == pytest.approx(estimate.value, abs=1e-9)


def test_a_weight_is_a_number_of_copies(coco_file):
    """An image with weight 2 counts as two images with the same objects and answers."""
    data = read_coco(coco_file)
    found = answers("shifted", data)
    double, images = data["images"][0], [*data["images"], {**data["images"][0], "id": 999}]
    copies = [
        {**a, "id": 5000 + i, "image_id": 999}
        for i, a in enumerate(data["annotations"])
        if a["image_id"] == double["id"]
    ]
    more = [{**d, "image_id": 999} for d in found if d["image_id"] == double["id"]]
    expected = coco_scores(
        {**data, "images": images, "annotations": data["annotations"] + copies}, found + more
    ).values["AP"]
    weights = np.ones(len(data["images"]))
    weights[0] = 2
    assert coco_scores(data, found).average_precision.resample(weights) == pytest.approx(expected, abs=2e-3)


def test_the_interval_contains_the_value(coco_file):
    """The average precision of resamples is biased."""
    data = read_coco(coco_file)
    estimate = coco_scores(data, answers("shifted", data)).average_precision
    low, high = bootstrap_interval(estimate, range(len(data["images"])), 200)
    assert low < estimate.value < high


def test_labels_are_mapped_to_categories_by_a_table_that_is_shown():
    names = NameTable(CATEGORIES)
    found = to_detections({5: boxes(("Man", 0, 0, 10, 20), ("television", 5, 5, 9, 9), ("zebra", 1, 1, 2, 2))}, names)
    assert [(d["image_id"], d["category_id"], d["bbox"], d["score"]) for d in found] == [
        (5, 1, [0, 0, 10, 20], 1),
        (5, 18, [5, 5, 4, 4], 1),
    ]
    assert names.num_unmapped == 1
    assert names.to_dataframe().values.tolist() == [["man", "person", 1], ["television", "tv", 1], ["zebra", "", 1]]


def test_the_name_of_a_category_is_not_a_synonym_of_another():
    names = NameTable([{"id": 1, "name": "person"}, {"id": 2, "name": "woman"}])
    assert [names.lookup(label) for label in ("woman", "man")] == [2, 1]


def test_a_detection_in_an_unknown_image_is_refused(coco_file):
    with pytest.raises(DatasetError, match="image 'x', which the COCO file lacks"):
        coco_scores(coco_file, [{"image_id": "x", "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}])


@pytest.mark.parametrize("content", ["{}", "[", '{"images": [], "annotations": []}'])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "coco.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"coco\.json"):
        coco_scores(path, [])
