"""`florence_lab.label` with a real model."""

import json

import pytest
from stand_in import draw_images

from florence_lab import label
from florence_lab.exceptions import ArgumentError, ImageError

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
