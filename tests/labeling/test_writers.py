"""Datasets are read back by the tools of their formats, and compared with the labels."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from stand_in import NAMES, labels_of

from florence_lab.data.datasets import load_examples
from florence_lab.data.readers import open_dataset
from florence_lab.data.spec import DatasetSpec
from florence_lab.images import load_image
from florence_lab.labeling.writers import WRITERS
from florence_lab.labeling.writers.yolo import join_polygons

SPLIT = {"train": 0.5, "val": 0.3, "test": 0.2}


def expected(images, masks=False):
    """Stem of an image -> its labels by the stand-in."""
    return {path.stem: labels_of(load_image(path), masks) for path in images.iterdir()}


def boxes_of(labels, ids=False):
    return sorted((item.class_id if ids else item.label, *item.box) for item in labels.objects)


def assert_close(found, wanted, tolerance=0.01):
    found, wanted = sorted(found), sorted(wanted)
    assert [row[0] for row in found] == [row[0] for row in wanted]
    assert (
        np.abs(np.array([row[1:] for row in found]) - np.array([row[1:] for row in wanted])).max(initial=0) < tolerance
    )


@pytest.fixture
def detections():
    """Return supervision's dataset as stem -> rows (class name, x0, y0, x1, y1)."""

    def read(load, **paths):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import supervision as sv

            dataset = getattr(sv.DetectionDataset, load)(**{name: str(path) for name, path in paths.items()})
        rows = {}
        for path, _, found in dataset:
            rows[path.rpartition("/")[2].rpartition(".")[0]] = [
                (dataset.classes[i], *box) for i, box in zip(found.class_id, found.xyxy.tolist(), strict=True)
            ]
        return dataset.classes, rows

    return read


def test_pycocotools_reads_the_same_boxes_and_scores(images, run, tmp_path, capsys):
    from pycocotools.coco import COCO

    run(images, split=SPLIT)
    wanted, image_ids, annotation_ids, num_images = expected(images), set(), set(), 0
    for split in SPLIT:
        coco = COCO(str(tmp_path / "data" / split / "_annotations.coco.json"))
        assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == list(enumerate(NAMES, 1))
        for image in coco.loadImgs(coco.getImgIds()):
            num_images += 1
            found = coco.loadAnns(coco.getAnnIds(image["id"]))
            labels = wanted[image["file_name"][:-4]]
            rows = [
                (NAMES[a["category_id"] - 1], *a["bbox"][:2], a["bbox"][0] + a["bbox"][2], a["bbox"][1] + a["bbox"][3])
                for a in found
            ]
            assert_close(rows, boxes_of(labels), 0.002)
            assert sorted(a["score"] for a in found) == sorted(item.score for item in labels.objects)
            image_ids.add(image["id"])
            annotation_ids |= {a["id"] for a in found}
    assert num_images == len(image_ids) == 23
    assert len(annotation_ids) == sum(len(labels.objects) for labels in wanted.values())


def test_pycocotools_rasterizes_the_masks(images, run, tmp_path, capsys):
    from pycocotools.coco import COCO

    run(images, has_masks=True)
    coco = COCO(str(tmp_path / "data" / "train" / "_annotations.coco.json"))
    for annotation in coco.loadAnns(coco.getAnnIds()):
        area = annotation["area"]
        assert abs(float(coco.annToMask(annotation).sum()) - area) < 0.2 * area


@pytest.mark.parametrize("format", ["coco", "yolo", "voc"])
def test_supervision_reads_the_same_boxes(images, run, tmp_path, detections, format):
    run(images, format=format)
    data = tmp_path / "data"
    load, paths, tolerance = {
        "coco": ("from_coco", {"images_directory_path": data / "train", "annotations_path": data / "train/_annotations.coco.json"}, 0.01),
        "yolo": ("from_yolo", {"images_directory_path": data / "images/train", "annotations_directory_path": data / "labels/train", "data_yaml_path": data / "data.yaml"}, 0.01),
        "voc": ("from_pascal_voc", {"images_directory_path": data / "JPEGImages", "annotations_directory_path": data / "Annotations"}, 0.51),
    }[format]  # fmt: skip
    classes, rows = detections(load, **paths)
    if format != "voc":  # which has no list of classes
        assert list(classes) == list(NAMES)
    wanted = expected(images)
    assert rows.keys() == wanted.keys()
    for stem, labels in wanted.items():
        assert_close(rows[stem], boxes_of(labels), tolerance)


def test_ultralytics_finds_images_labels_and_names(images, run, tmp_path):
    import yaml

    run(images, format="yolo", split=SPLIT)
    config = yaml.safe_load((tmp_path / "data" / "data.yaml").read_text())
    assert config["names"] == dict(enumerate(NAMES))
    assert config["nc"] == 4
    wanted, num_images = expected(images), 0
    for split in SPLIT:
        for image in (tmp_path / "data" / config[split]).iterdir():
            num_images += 1
            parts = str(image).rpartition("/images/")  # as `img2label_paths` of ultralytics
            label = f"{parts[0]}/labels/{parts[2].rpartition('.')[0]}.txt"
            rows = np.array(Path(label).read_text().split(), float).reshape(-1, 5)
            centers, sides = rows[:, 1:3] * (40, 30), rows[:, 3:] * (40, 30)
            found = np.concatenate([rows[:, :1], centers - sides / 2, centers + sides / 2], axis=1)
            assert_close(found.tolist(), boxes_of(wanted[image.stem], ids=True), 0.001)
    assert num_images == 23


def test_a_dataset_without_a_split_still_has_the_val_that_trainers_need(images, run, tmp_path):
    import yaml

    run(images, format="yolo")
    assert yaml.safe_load((tmp_path / "data" / "data.yaml").read_text())["val"] == "images/train"


def test_datasets_loads_the_parquet_files(images, run, tmp_path):
    from datasets import load_dataset

    run(images, format="parquet", split=SPLIT, tasks=("<CAPTION>",))
    table = load_dataset(str(tmp_path / "data"))
    assert set(table) == {*SPLIT}
    rows = [row for part in table.values() for row in part]
    names = table["train"].features["objects"]["categories"].feature.names
    assert names == list(NAMES)
    assert len(rows) == 23
    for row in rows:
        labels = labels_of(row["image"])
        objects = row["objects"]
        found = [
            (names[i], x, y, x + w, y + h)
            for i, (x, y, w, h) in zip(objects["categories"], objects["bbox"], strict=True)
        ]
        assert_close(found, boxes_of(labels), 0.002)
        assert objects["score"] == [item.score for item in labels.objects]
        assert row["caption_text"] == f"{len(found)} objects"


@pytest.fixture
def validator(tiny):
    from florence_lab.data.validation import RowValidator

    return RowValidator.for_model(tiny.model, tiny.processor)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("format", WRITERS)
def test_fine_tuning_reads_the_folder(images, run, tmp_path, validator, format, masks, recwarn):
    run(images, format=format, has_masks=masks)
    examples = load_examples(str(tmp_path / "data"), validator).require_valid()
    assert len(examples) == 23
    for example in examples:
        truth = example.ground_truth
        rows = [(label, *box) for label, box in zip(truth.labels.tolist(), truth.boxes.tolist(), strict=True)]
        # the answer grammar has 1,000 bins, and VOC whole pixels
        assert_close(rows, boxes_of(labels_of(example.load_image())), 0.6 if format == "voc" else 0.05)


@pytest.mark.parametrize("format", WRITERS)
def test_a_split_is_chosen_by_the_option_of_the_readers(images, run, tmp_path, format):
    report = run(images, format=format, split=SPLIT)
    for split in SPLIT:
        reader = open_dataset(DatasetSpec.parse(f"{tmp_path / 'data'}/?split={split}"))
        assert len(reader) == report.num_images[split]


def test_further_answers_are_rows_for_fine_tuning(images, run, tmp_path, validator):
    run(images, format="yolo", tasks=("<CAPTION>",), split={"train": 1.0})
    examples = load_examples(str(tmp_path / "data" / "texts_train.jsonl"), validator).require_valid()
    assert len(examples) == 23
    assert {example.prompt.task.token for example in examples} == {"<CAPTION>"}


@pytest.mark.parametrize("format", WRITERS)
def test_labels_jsonl_keeps_scores_and_how_boxes_were_found(images, run, tmp_path, format):
    run(images, format=format)
    rows = [json.loads(line) for line in (tmp_path / "data" / "labels.jsonl").read_text().splitlines()]
    wanted = expected(images)
    for row in rows:
        objects = wanted[row["name"][:-4]].objects
        assert [(item["score"], item["found_by"]) for item in row["objects"]] == [(o.score, "regions") for o in objects]


def test_outlines_of_an_object_in_two_parts_are_joined_between_their_nearest_vertices():
    left, right = np.array([(0, 0), (2, 0), (2, 2), (0, 2)]), np.array([(5, 0), (7, 0), (7, 2), (5, 2)])
    joined = join_polygons([left, right])
    x, y = joined.T
    assert abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2 == 8
    assert joined.min(0).tolist() == [0, 0]
    assert joined.max(0).tolist() == [7, 2]


def test_an_object_without_mask_is_its_box_in_a_file_of_outlines(tmp_path, ontology):
    from florence_lab.labeling.records import LabelledObject
    from florence_lab.labeling.writers.yolo import YoloWriter

    writer = YoloWriter(tmp_path, ontology, ["train"], has_masks=True)
    line = writer._to_line(LabelledObject(2, "boat", (1, 2, 3, 4), 0.5, "od"), (10, 10))
    assert [float(word) for word in line.split()] == [2, 0.1, 0.2, 0.3, 0.2, 0.3, 0.4, 0.1, 0.4]
