"""COCO annotation files."""

import json
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from florence_lab.data.readers import open_dataset
from florence_lab.data.spec import DatasetSpec
from florence_lab.exceptions import DatasetError, FlorenceLabWarning
from florence_lab.geometry import polygons_to_mask
from florence_lab.scenes import write_dataset
from florence_lab.tasks import TASKS, Task, register_task

SIZE = (200, 100)
IMAGE = {"id": 7, "file_name": "a.png", "width": 200, "height": 100}


def annotation(id_=31, **fields):
    polygon = [[20, 10, 120, 10, 120, 60, 20, 60]]
    return {"id": id_, "image_id": 7, "category_id": 1, "bbox": [20, 10, 100, 50], "segmentation": polygon} | fields


@pytest.fixture
def coco(tmp_path):
    """Write a COCO file of one image, 200 x 100, and return its name as a dataset."""
    Image.new("RGB", SIZE).save(tmp_path / "a.png")

    def write(*annotations, **sections):
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        data = {"images": [IMAGE], "annotations": list(annotations), "categories": categories} | sections
        (tmp_path / "coco.json").write_text(json.dumps(data))
        return f"coco:{tmp_path / 'coco.json'}"

    return write


@pytest.fixture
def locate_animals():
    """A registered 16th task."""
    task = Task("<LOCATE_ANIMALS>", "Locate the animals.", "none", "boxes", "animals", coco_label="category")
    yield register_task(task)
    del TASKS[task.token]


def test_a_file_written_from_scenes_gives_the_targets_of_the_scenes(tmp_path, read):
    folder = write_dataset(tmp_path, [1_000_003, 1_000_004], 200, ["<OD>"])
    examples, errors = read(f"coco:{folder / 'annotations.json'}")
    expected, _ = read(str(folder / "train.jsonl"))
    assert errors == []
    assert [(e.image, e.prompt, e.target) for e in examples] == [(e.image, e.prompt, e.target) for e in expected]


def test_objects_are_written_from_left_to_right_and_grouped_by_category(coco, read):
    name = coco(annotation(1, bbox=[100, 0, 50, 50]), annotation(2, category_id=2), annotation(3, bbox=[0, 0, 50, 50]))
    (example,), _ = read(name)
    assert example.target == (
        "cat<loc_0><loc_0><loc_250><loc_500><loc_500><loc_0><loc_750><loc_500>dog<loc_100><loc_100><loc_600><loc_600>"
    )


@pytest.mark.parametrize(
    ("task", "target"),
    [
        ("REGION_TO_CATEGORY", "cat{box}"),
        ("REGION_TO_DESCRIPTION", "a grey cat{box}"),
        ("DENSE_REGION_CAPTION", "a grey cat{box}"),
        ("REGION_PROPOSAL", "{box}"),
        ("REGION_TO_SEGMENTATION", "<loc_100><loc_100><loc_600><loc_100><loc_600><loc_600><loc_100><loc_600>"),
    ],
)
def test_each_task_takes_its_part_of_an_annotation(coco, read, task, target):
    box = "<loc_100><loc_100><loc_600><loc_600>"
    (example,), errors = read(f"{coco(annotation(caption='a grey cat'))}?tasks={task}")
    assert errors == []
    assert example.target == target.format(box=box)
    assert example.prompt.query == f"<{task}>" + (box if task.startswith("REGION_TO") else "")


def test_a_registered_task_is_read_without_other_changes(coco, read, locate_animals):
    (example,), errors = read(f"{coco(annotation())}?tasks=LOCATE_ANIMALS")
    assert errors == []
    assert example.prompt.prompt == "Locate the animals."
    assert example.target == "cat<loc_100><loc_100><loc_600><loc_600>"


def test_crowd_regions_are_no_instances(coco, read):
    examples, errors = read(coco(annotation(1), annotation(2, iscrowd=1, bbox=[0, 0, 20, 10])))
    assert ([len(example.ground_truth) for example in examples], errors) == ([1], [])


def test_an_image_of_crowd_regions_only_gives_no_row(coco, read):
    images = [IMAGE, IMAGE | {"id": 8}]
    examples, errors = read(coco(annotation(1), annotation(2, image_id=8, iscrowd=1), images=images))
    assert (len(examples), errors) == (1, [])


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_become_polygons(coco, read, compressed):
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[10:60, 20:120] = 1
    mask[20:30, 40:50] = 0  # a hole, which polygons do not have
    if compressed:
        encoded = rle.encode(np.asfortranarray(mask))
        segmentation = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    else:
        flat = mask.ravel(order="F")
        changes = np.flatnonzero(np.diff(np.concatenate([[0], flat]))) if flat[0] == 0 else None
        counts = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
        segmentation = {"size": list(mask.shape), "counts": counts}
    (example,), errors = read(f"{coco(annotation(segmentation=segmentation))}?tasks=REGION_TO_SEGMENTATION")
    assert errors == []
    (polygons,) = example.ground_truth.polygons
    mask[20:30, 40:50] = 1
    traced = polygons_to_mask(polygons, SIZE)
    assert len(polygons) == 1
    assert (traced & mask.astype(bool)).sum() / (traced | mask.astype(bool)).sum() > 0.97


def test_images_without_annotations_are_counted(coco, read):
    name = coco(annotation(), images=[IMAGE, IMAGE | {"id": 8}])
    with pytest.warns(FlorenceLabWarning, match="1 of 2 images"):
        examples, errors = read(name)
    assert (len(examples), errors) == (1, [])


@pytest.mark.parametrize(
    ("fault", "kind", "detail"),
    [
        ({"category_id": 9}, "unknown category_id", "9"),
        ({"category_id": []}, "missing or invalid fields", "category_id"),
        ({"image_id": 9}, "unknown image_id", "9"),
        ({"bbox": None}, "invalid box", "None"),
        ({"bbox": []}, "invalid box", "[]; expected x, y, width, height"),
        ({"bbox": [1, 2, 3]}, "invalid box", "[1, 2, 3]"),
        ({"bbox": ["a", 2, 3, 4]}, "invalid box", "'a'"),
        ({"bbox": [float("nan"), 2, 3, 4]}, "invalid box", "nan"),
        ({"bbox": [10**400, 2, 3, 4]}, "invalid box", "x, y, width"),
        ({"bbox": [True, 2, 3, 4]}, "invalid box", "True"),
        ({"bbox": {"x": 1}}, "invalid box", "x"),
        ({"bbox": [20, 10, 0, 50]}, "box without area", "(20, 10, 20, 60)"),
        ({"bbox": [20, 10, 300, 50]}, "box outside the image", "200 x 100"),
        ({"caption": 5}, "missing or invalid fields", "caption is 5"),
    ],
)
def test_one_bad_annotation_leaves_the_others_of_its_image(coco, read, fault, kind, detail):
    bad = annotation(32) | fault
    (example,), (error,) = read(coco(annotation(31), bad))
    assert len(example.ground_truth) == 1
    assert error.kind == kind
    assert detail in error.details
    assert error.source.endswith(f"image {bad['image_id']}, annotation 32")


def test_a_bad_annotation_is_reported_once_for_several_tasks(coco, read):
    name = coco(annotation(31), annotation(32, bbox=[20, 10, 0, 50]))
    examples, errors = read(f"{name}?tasks=OD,REGION_PROPOSAL")
    assert len(examples) == 2
    assert [error.kind for error in errors] == ["box without area"]


@pytest.mark.parametrize(
    ("segmentation", "kind", "detail"),
    [
        (None, "no polygon", ""),
        ([], "no polygon", ""),
        ([[1, 2, 3, 4]], "invalid polygon", "at least three vertices, but got 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "invalid polygon", "7 numbers"),
        ([1, 2], "invalid polygon", "flat list"),
        ("text", "invalid polygon", "'text'"),
        ([[1, 2, 3, 4, 5, "6"]], "invalid polygon", "'6'"),
        ([[1, 2, 3, 4, 5, float("inf")]], "invalid polygon", "inf"),
        ([[0, 0, 300, 0, 300, 90]], "polygon outside the image", "200 x 100"),
        ([[-9, 0, 30, 0, 30, 90]], "polygon outside the image", "200 x 100"),
        ({"counts": "?"}, "invalid polygon", "size"),
        ({"size": [100, 200]}, "invalid polygon", "counts"),
        ({"size": [100, 200], "counts": 5}, "invalid polygon", "counts"),
        ({"size": [100, 200], "counts": [1]}, "invalid polygon", "add up to 1, not to 100 x 200"),
        ({"size": [2, 2], "counts": [2, 2]}, "invalid polygon", "[2, 2] in an image of 100 x 200"),
        ({"size": [100, 200], "counts": [5, -1]}, "invalid polygon", "counts"),
        ({"size": [100, 200], "counts": "?"}, "invalid polygon", "add up"),
        ({"size": [100, 200], "counts": "~" * 10_000}, "invalid polygon", "run lengths"),
        ({"size": [0, 200], "counts": []}, "invalid polygon", "[0, 200]"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "invalid polygon", "1000000000"),
    ],
)
def test_a_malformed_segmentation_is_reported(coco, read, segmentation, kind, detail):
    name = coco(annotation(segmentation=segmentation), annotation(32))
    (_,), (error,) = read(f"{name}?tasks=REGION_TO_SEGMENTATION")
    assert error.kind == kind
    assert detail in error.details
    assert error.source.endswith("annotation 31")


@pytest.mark.parametrize("segmentation", [None, [[1, 2, 3]], {"counts": "?"}])
def test_tasks_with_boxes_need_no_segmentation(coco, read, segmentation):
    (_,), errors = read(coco(annotation(segmentation=segmentation)))
    assert errors == []


@pytest.mark.parametrize("missing", ["bbox", "category_id", "image_id", "id"])
def test_a_missing_field_is_reported(coco, read, missing):
    broken = annotation(32)
    del broken[missing]
    examples, (error,) = read(coco(annotation(31), broken))
    assert len(examples) == 1
    assert (error.kind, error.details) == ("missing or invalid fields", missing)


def test_an_entry_that_is_no_object_is_reported(coco, read):
    examples, errors = read(coco(annotation(31), annotation(image_id=[7]), "text", images=[IMAGE, {"id": 8}]))
    assert len(examples) == 1
    assert [error.details for error in errors] == ["file_name", "image_id", "id, image_id"]


@pytest.mark.parametrize(
    ("section", "entry", "source", "kind", "detail"),
    [
        ("images", IMAGE, "image 7", "repeated id", ""),
        ("images", {"id": 8}, "image 8", "missing or invalid fields", "file_name"),
        ("images", {"id": 8, "file_name": None}, "image 8", "missing or invalid fields", "file_name"),
        ("images", {"file_name": "a.png"}, "image without an id", "missing or invalid fields", "id"),
        ("images", IMAGE | {"id": [8]}, "image [8]", "missing or invalid fields", "id"),
        ("images", 5, "image that is 5", "missing or invalid fields", "id, file_name"),
        ("categories", {"id": 1, "name": "cow"}, "category 1", "repeated id", ""),
        ("categories", {"id": 3}, "category 3", "missing or invalid fields", "name"),
        ("categories", {"id": 3, "name": " "}, "category 3", "missing or invalid fields", "name"),
        ("categories", {"name": "cow"}, "category without an id", "missing or invalid fields", "id"),
        ("annotations", annotation(31), "annotation 31", "repeated id", ""),
        ("annotations", "text", "annotation that is 'text'", "missing or invalid fields", "id, image_id"),
    ],
)
def test_a_bad_entry_is_reported_and_leaves_the_others(coco, read, section, entry, source, kind, detail):
    entries = {"images": [IMAGE], "categories": [{"id": 1, "name": "cat"}], "annotations": [annotation(31)]}
    (example,), (error,) = read(coco(**(entries | {section: [*entries[section], entry]})))
    assert len(example.ground_truth) == 1
    assert (error.source.rpartition(", ")[2], error.kind, error.details) == (source, kind, detail)


@pytest.mark.parametrize("missing", ["images", "categories"])
def test_what_refers_to_a_bad_entry_is_no_error_of_its_own(coco, read, missing):
    bad = {"images": [{"id": 7}], "categories": [{"id": 1}]}[missing]
    examples, (error,) = read(coco(annotation(), annotation(32), **{missing: bad}))
    assert (examples, error.kind) == ([], "missing or invalid fields")


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        ({"width": "200"}, "invalid image size"),
        ({"width": float("nan")}, "invalid image size"),
        ({"width": 0}, "invalid image size"),
        ({"height": -1}, "invalid image size"),
        ({"width": 200.5}, "invalid image size"),
        ({"width": 10**400}, "invalid image size"),
        ({"width": 10**30}, "wrong image size"),
        ({"width": 400, "height": 200}, "wrong image size"),
    ],
)
def test_an_impossible_size_is_reported(coco, read, size, kind):
    examples, (error,) = read(coco(annotation(), images=[IMAGE | size]))
    assert (examples, error.kind) == ([], kind)
    assert error.source.endswith("image 7")


def test_the_stated_size_is_compared_with_the_image(coco, read):
    name = coco(annotation(), images=[IMAGE | {"width": 400, "height": 200}])
    examples, (error,) = read(name)
    assert examples == []
    assert error.kind == "wrong image size"
    assert "400 x 200" in error.details
    assert "200 x 100" in error.details


def test_an_image_may_lack_a_size(coco, read):
    examples, errors = read(coco(annotation(), images=[{"id": 7, "file_name": "a.png"}]))
    assert (len(examples), errors) == (1, [])


@pytest.mark.parametrize(
    ("sections", "options", "message"),
    [
        ({"images": None}, "", "not a COCO file"),
        ({"images": {}}, "", "not a COCO file"),
        ({"categories": None}, "", "not a COCO file"),
        ({"annotations": 5}, "", "not a COCO file"),
        ({}, "?tasks=CAPTION", "have no answers for <CAPTION>; supported: <OD>"),
        ({}, "?tasks=ODD", "<ODD>"),
        ({}, "?task=OD", "did you mean 'tasks'"),
    ],
)
def test_another_file_or_task_is_an_error(coco, read, sections, options, message):
    with pytest.raises(DatasetError, match=message):
        read(coco(annotation(), **sections) + options)


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        (
            "OPEN_VOCABULARY_DETECTION",
            [("dog", "dog<loc_0><loc_0><loc_100><loc_100>"), ("cat", "cat{0}<loc_500><loc_0><loc_750><loc_500>")],
        ),
        (
            "CAPTION_TO_PHRASE_GROUNDING",
            [("dog, cat", "dog<loc_0><loc_0><loc_100><loc_100>cat{0}<loc_500><loc_0><loc_750><loc_500>")],
        ),
        (
            "REFERRING_EXPRESSION_SEGMENTATION",
            [
                ("dog", "<loc_0><loc_0><loc_100><loc_0><loc_100><loc_100><loc_0><loc_100>"),
                ("a grey cat", "<loc_100><loc_100><loc_600><loc_100><loc_600><loc_600><loc_100><loc_600>"),
                ("cat", "<loc_500><loc_0><loc_750><loc_0><loc_750><loc_500><loc_500><loc_500>"),
            ],
        ),
    ],
)
def test_phrases_are_the_categories_or_descriptions(coco, read, task, rows):
    name = coco(
        annotation(1, caption="a grey cat"),
        annotation(2, bbox=[100, 0, 50, 50], segmentation=[[100, 0, 150, 0, 150, 50, 100, 50]]),
        annotation(3, category_id=2, bbox=[0, 0, 20, 10], segmentation=[[0, 0, 20, 0, 20, 10, 0, 10]]),
    )
    examples, errors = read(f"{name}?tasks={task}")
    assert errors == []
    box = "<loc_100><loc_100><loc_600><loc_600>"
    assert [(example.prompt.text, example.target) for example in examples] == [
        (phrase, target.format(box)) for phrase, target in rows
    ]


@pytest.mark.parametrize(("options", "token"), [("", "<CAPTION>"), ("?tasks=DETAILED_CAPTION", "<DETAILED_CAPTION>")])
def test_a_file_of_captions_is_read(coco, read, options, token):
    captions = [{"id": i, "image_id": 7, "caption": text} for i, text in enumerate(["a cat\n", "the cat"])]
    name = coco(*captions)
    path = Path(name.removeprefix("coco:"))
    data = json.loads(path.read_text())
    del data["categories"]  # as in captions_train2017.json
    path.write_text(json.dumps(data))
    examples, errors = read(name + options)
    assert errors == []
    assert [(example.prompt.query, example.target) for example in examples] == [(token, "a cat"), (token, "the cat")]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ({"id": 2, "image_id": 7, "caption": None}, "missing or invalid fields"),
        ({"id": 2, "image_id": 7, "caption": " "}, "missing or invalid fields"),
        ({"id": 2, "image_id": 7}, "missing or invalid fields"),
        ({"id": 2, "image_id": 9, "caption": "a"}, "unknown image_id"),
    ],
)
def test_a_bad_caption_is_reported(coco, read, bad, kind):
    (_,), (error,) = read(coco({"id": 1, "image_id": 7, "caption": "a cat"}, bad))
    assert (error.kind, error.source.rpartition(", ")[2]) == (kind, "annotation 2")


def test_a_file_of_captions_has_no_boxes(coco, read):
    name = coco({"id": 1, "image_id": 7, "caption": "a cat"})
    with pytest.raises(DatasetError, match="have no answers for <OD>; supported: <CAPTION>, <DETAILED_CAPTION>"):
        read(f"{name}?tasks=OD")


def test_bytes_that_are_not_utf8_are_an_error(coco, read):
    name = coco(annotation())
    path = Path(name.removeprefix("coco:"))
    path.write_bytes(path.read_bytes().replace(b"cat", b"c\xe4t"))
    with pytest.raises(DatasetError, match=r"coco\.json: not UTF-8: byte 0xe4"):
        read(name)


@pytest.mark.slow
def test_a_large_file_is_read_in_seconds(tmp_path):
    data = {
        "images": [IMAGE | {"id": i} for i in range(10_000)],
        "annotations": [annotation(i) | {"image_id": i // 10} for i in range(100_000)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(data))
    start = process_time()
    reader = open_dataset(DatasetSpec.parse(f"coco:{tmp_path / 'coco.json'}?tasks=OD,REGION_TO_SEGMENTATION"))
    assert len(reader) == 110_000
    assert process_time() - start < 10


def test_a_mask_that_is_too_large_is_not_decoded(coco, read):
    mask = {"size": [10**9, 10**9], "counts": [10**18]}
    name = coco(annotation(segmentation=mask), annotation(32), images=[{"id": 7, "file_name": "a.png"}])
    (_,), (error,) = read(f"{name}?tasks=REGION_TO_SEGMENTATION")
    assert (error.kind, "too large" in error.details) == ("invalid polygon", True)
