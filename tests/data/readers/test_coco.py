"""COCO annotation files."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

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
    examples, errors = read(coco(annotation(1, iscrowd=1)))
    assert (examples, errors) == ([], [])


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
    ("fault", "kind"),
    [
        ({"category_id": 9}, "unknown category_id"),
        ({"image_id": 9}, "unknown image_id"),
        ({"bbox": [1, 2, 3]}, "invalid box"),
        ({"bbox": ["a", 2, 3, 4]}, "invalid box"),
        ({"bbox": [20, 10, 0, 50]}, "box without area"),
        ({"bbox": [20, 10, 300, 50]}, "box outside the image"),
    ],
)
def test_one_bad_annotation_leaves_the_others_of_its_image(coco, read, fault, kind):
    bad = annotation(32) | fault
    (example,), (error,) = read(coco(annotation(31), bad))
    assert len(example.ground_truth) == 1
    assert error.kind == kind
    assert error.source.endswith(f"image {bad['image_id']}, annotation 32")


def test_a_bad_annotation_is_reported_once_for_several_tasks(coco, read):
    name = coco(annotation(31), annotation(32, bbox=[20, 10, 0, 50]))
    examples, errors = read(f"{name}?tasks=OD,REGION_PROPOSAL")
    assert len(examples) == 2
    assert [error.kind for error in errors] == ["box without area"]


@pytest.mark.parametrize("segmentation", [None, [], [[1, 2, 3, 4]], {"counts": "?"}, [1, 2], {"size": [2, 2]}])
def test_a_missing_segmentation_is_reported(coco, read, segmentation):
    name = coco(annotation(segmentation=segmentation))
    examples, (error,) = read(f"{name}?tasks=REGION_TO_SEGMENTATION")
    assert examples == []
    assert "polygon" in error.kind
    assert error.source.endswith("annotation 31")


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
    assert [error.details for error in errors] == ["file_name", "image_id", "id, image_id, category_id, bbox"]


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
        ({}, "?tasks=CAPTION", "no answers for <CAPTION>; supported: <OD>"),
        ({}, "?tasks=ODD", "<ODD>"),
        ({}, "?task=OD", "did you mean 'tasks'"),
    ],
)
def test_another_file_or_task_is_an_error(coco, read, sections, options, message):
    with pytest.raises(DatasetError, match=message):
        read(coco(annotation(), **sections) + options)
