"""`florence_lab.label` with a real model."""

import json

import numpy as np
import pytest
from stand_in import draw_images

from florence_lab import label
from florence_lab.exceptions import ArgumentError, ImageError
from florence_lab.template.locations import format_location_tokens

FAST = {"strategy": "open_vocabulary", "verify": False, "max_new_tokens": 12}


@pytest.fixture
def three(tmp_path):
    return draw_images(tmp_path / "images", 3)


def read_labels(folder):
    return [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]


def test_the_labels_are_those_of_detect(three, tmp_path, small):
    label(three, ["cat", "dog"], tmp_path / "data", model=small, threshold=0.0, **FAST)
    for row in read_labels(tmp_path / "data"):
        found = small.detect(row["source"], ["cat", "dog"], threshold=0.0, **FAST)
        assert [item["class_id"] for item in row["objects"]] == found.class_ids.tolist()
        assert [item["found_by"] for item in row["objects"]] == found.found_by.tolist()
        for item, box, score in zip(row["objects"], found.boxes.tolist(), found.scores.tolist(), strict=True):
            assert item["box"] == pytest.approx(box, abs=0.001)
            assert item["score"] == pytest.approx(score, abs=1e-6)


def test_further_answers_are_those_of_predict(three, tmp_path, small):
    label(three, ["cat"], tmp_path / "data", model=small, captions=["CAPTION", "<OCR>"], ocr=True, **FAST)
    row = read_labels(tmp_path / "data")[0]
    assert list(row["answers"]) == ["<CAPTION>", "<OCR>", "<OCR_WITH_REGION>"]
    caption = small.predict(row["source"], "<CAPTION>", max_new_tokens=12)
    assert row["answers"]["<CAPTION>"] == {"response": caption.raw, "content": caption.text}
    lines = (tmp_path / "data" / "texts_train.jsonl").read_text().splitlines()
    assert len(lines) == 9


def test_attributes_are_the_answers_about_each_box(three, tmp_path, small):
    tasks = ["<REGION_TO_DESCRIPTION>", "<REGION_TO_OCR>"]
    options = {"model": small, "captions": True, "attributes": tasks, "threshold": 0.0}
    label(three, ["cat"], tmp_path / "data", "jsonl", **options, **FAST)
    rows = read_labels(tmp_path / "data")
    objects = [(row["source"], item) for row in rows for item in row["objects"]]
    assert objects
    for source, item in objects:
        region = format_location_tokens(np.array(item["box"]), (40, 30))
        expected = {task: small.predict(source, task, region, max_new_tokens=12).text for task in tasks}
        assert item["attributes"] == expected
    texts = [json.loads(line) for line in (tmp_path / "data" / "texts_train.jsonl").read_text().splitlines()]
    assert {row["query"] for row in texts} == {"<CAPTION>"}


def read_attributes(folder, format):
    """The descriptions of all objects of a dataset, as its format has them."""
    if format == "parquet":
        from datasets import load_dataset

        rows = load_dataset(str(folder), split="train").remove_columns("image")
        return [text for row in rows for text in row["objects"]["region_to_description_text"]]
    if format == "coco":
        content = json.loads((folder / "train" / "_annotations.coco.json").read_text())
        return [annotation["region_to_description_text"] for annotation in content["annotations"]]
    lines = (folder / "train" / "metadata.jsonl").read_text().splitlines()
    return [text for line in lines for text in json.loads(line)["objects"]["region_to_description_text"]]


@pytest.mark.parametrize("format", ["jsonl", "parquet", "coco"])
def test_a_format_with_columns_has_the_attributes(three, tmp_path, small, format):
    label(three, ["cat"], tmp_path / "data", format, small, attributes=True, threshold=0.0, **FAST)
    objects = [item for row in read_labels(tmp_path / "data") for item in row["objects"]]
    expected = [item["attributes"]["<REGION_TO_DESCRIPTION>"] for item in objects]
    assert read_attributes(tmp_path / "data", format) == expected
    assert any(expected)


@pytest.mark.parametrize(("attributes", "expected"), [(True, ["<REGION_TO_DESCRIPTION>"]), (False, []), ([], [])])
def test_attributes_alone_write_no_file_of_texts(three, tmp_path, small, attributes, expected):
    label(three, ["cat"], tmp_path / "data", model=small, attributes=attributes, **FAST)
    settings = json.loads((tmp_path / "data" / ".parts" / "settings.json").read_text())
    assert settings["tasks"] == expected
    assert not (tmp_path / "data" / "texts_train.jsonl").exists()


@pytest.mark.filterwarnings("ignore:.*of another kind")
@pytest.mark.parametrize("out", ["", "data"])
def test_the_dataset_below_the_images_is_not_labelled(three, small, out):
    for _ in range(2):
        report = label(three, ["cat"], three / out, "coco", small, recursive=True, **FAST)
        assert report.num_images == {"train": 3}
    with pytest.raises(ImageError, match="an earlier run has written"):
        label(three / out / "train", ["cat"], three / out, "coco", small, **FAST)


def test_florence_outlines_the_boxes(three, tmp_path, small):
    label(three, ["cat"], tmp_path / "data", "coco", small, masks=True, threshold=0.0, **FAST)
    settings = json.loads((tmp_path / "data" / ".parts" / "settings.json").read_text())
    assert settings["masks"] == "florence"


def test_the_lower_score_of_review_is_the_threshold(three, tmp_path, small):
    label(three, ["cat"], tmp_path / "data", model=small, review=(0.25, 0.75), **FAST)
    assert json.loads((tmp_path / "data" / ".parts" / "settings.json").read_text())["threshold"] == 0.25


def test_another_model_or_threshold_is_noticed(three, tmp_path, small, tiny):
    label(three, ["cat"], tmp_path / "data", model=small, **FAST)
    with pytest.raises(ArgumentError, match=r"threshold was 0\.0, now 0\.5"):
        label(three, ["cat"], tmp_path / "data", model=small, threshold=0.5, **FAST)
    with pytest.raises(ArgumentError, match="image_size"):
        label(three, ["cat"], tmp_path / "data", model=tiny, **FAST)
    with pytest.raises(ArgumentError, match="classes was"):
        label(three, ["dog"], tmp_path / "data", model=small, **FAST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": []}, "at least one class"),
        ({"format": "tfrecord"}, "tfrecord"),
        ({"split": "0.5/0.6"}, "sum up to 1"),
        ({"review": (0.7, 0.3)}, r"0\.7"),
        ({"review": (0.3,)}, "two scores"),
        ({"captions": "<REGION_TO_CATEGORY>"}, "takes a region"),
        ({"attributes": "<CAPTION>"}, "got <CAPTION>"),
        ({"attributes": ["<REGION_TO_SEGMENTATION>"]}, "got <REGION_TO_SEGMENTATION>"),
        ({"out": "~no_such_user/data"}, "no_such_user"),
        ({"strategy": "magic"}, "magic"),
        ({"batch_size": 0}, "batch_size"),
        ({"engine": "spark"}, "spark"),
        ({"images": "/nowhere"}, "/nowhere"),
    ],
)
def test_invalid_arguments_are_named_before_anything_is_written(three, tmp_path, small, options, message):
    arguments = {"images": three, "classes": ["cat"], "out": tmp_path / "data", "model": small} | options
    with pytest.raises((ArgumentError, ImageError, ValueError), match=message):
        label(**arguments)
    assert not list((tmp_path / "data").glob("*.jsonl"))


@pytest.mark.slow
def test_quality_on_scenes_with_a_class_that_never_occurs(tmp_path, nano):
    from florence_lab.scenes import draw_scene

    names, truth = ["sign", "dog", "boat", "rocket"], {}
    (tmp_path / "images").mkdir()
    for i in range(20):
        scene = draw_scene(987_800_000 + i)
        scene.image.save(tmp_path / "images" / f"{i}.png")
        truth[f"{i}.png"] = [(item.label, item.box) for item in scene.objects if item.label in names]
    label(tmp_path / "images", names, tmp_path / "data", "coco", nano)
    rights = labels = 0
    for row in read_labels(tmp_path / "data"):
        labels += len(row["objects"])
        rights += sum(
            any(name == item["label"] and iou(box, item["box"]) >= 0.5 for name, box in truth[row["name"]])
            for item in row["objects"]
        )
    assert rights / labels >= 0.95
    assert rights / sum(map(len, truth.values())) >= 0.9


def iou(a, b):
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)
