"""`export`: scenes as COCO files and JSON lines."""

import json

import pytest
from PIL import Image

from florence_lab.scenes import CATEGORIES, draw_scene, write_dataset
from florence_lab.scenes.export import coco_annotation, scene_rows
from florence_lab.tasks import TASKS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Six scenes of 96 pixels."""
    return write_dataset(tmp_path_factory.mktemp("scenes"), range(6), size=96)


def test_annotations_have_the_categories_and_every_object(dataset):
    coco = json.loads((dataset / "annotations.json").read_text())
    assert [category["name"] for category in coco["categories"]] == list(CATEGORIES)
    assert [image["file_name"] for image in coco["images"]] == [f"images/scene_{seed:08d}.png" for seed in range(6)]
    assert len(coco["annotations"]) == sum(len(draw_scene(seed, 96).objects) for seed in range(6))
    assert len({annotation["id"] for annotation in coco["annotations"]}) == len(coco["annotations"])


def test_boxes_and_polygons_lie_inside_the_image(dataset):
    coco = json.loads((dataset / "annotations.json").read_text())
    for annotation in coco["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= 96, annotation
        assert 0 <= y < y + height <= 96, annotation
        assert 0 < annotation["area"] <= width * height, annotation
        assert all(len(flat) >= 6 and len(flat) % 2 == 0 for flat in annotation["segmentation"]), annotation


def test_annotations_are_readable_by_pycocotools(dataset, capsys):
    from pycocotools.coco import COCO

    coco = COCO(str(dataset / "annotations.json"))
    annotation = coco.loadAnns(coco.getAnnIds(imgIds=1))[0]
    scene_object = draw_scene(0, 96).objects[0]
    assert coco.loadCats(annotation["category_id"])[0]["name"] == scene_object.label
    assert coco.annToMask(annotation).astype(bool).sum() == pytest.approx(scene_object.area, rel=0.3)


def test_a_sign_is_annotated_with_its_word_and_quad_box():
    sign = draw_scene(0, 96, categories=["sign"]).objects[0]
    annotation = coco_annotation(sign)
    assert annotation["text"] == sign.text
    assert annotation["quad"] == pytest.approx(sign.quad.ravel(), abs=0.01)


def test_rows_cover_every_task_and_point_to_the_images(dataset):
    rows = [json.loads(line) for line in (dataset / "train.jsonl").read_text().splitlines()]
    assert {row["query"].split(">")[0] + ">" for row in rows} == set(TASKS)
    for row in rows:
        assert set(row) == {"query", "response", "images"}
        assert Image.open(dataset / row["images"][0]).size == (96, 96)


def test_rows_without_an_answer_are_omitted(many_scenes):
    plain = next(scene for scene in many_scenes if not any(o.text for o in scene.objects))
    assert list(scene_rows(plain, "a.png", ["<OCR>", "<REGION_TO_OCR>"])) == []


def test_tasks_may_be_named_without_brackets(tmp_path):
    write_dataset(tmp_path, [3], size=64, tasks=["open_vocabulary_detection"])
    assert (tmp_path / "train.jsonl").read_text().startswith('{"query": "<OPEN_VOCABULARY_DETECTION>')


def test_an_unknown_task_is_rejected_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="unknown task"):
        write_dataset(tmp_path / "new", [3], size=64, tasks=["<ODD>"])
    assert not (tmp_path / "new").exists()


def test_a_dataset_is_reproducible(tmp_path):
    first = write_dataset(tmp_path / "a", [3, 4], size=64, tasks=["<OD>"])
    second = write_dataset(tmp_path / "b", [3, 4], size=64, tasks=["<OD>"])
    assert (first / "train.jsonl").read_bytes() == (second / "train.jsonl").read_bytes()
    assert len((first / "train.jsonl").read_text().splitlines()) == 2
