"""The same scenes as COCO, YOLO and Pascal VOC, written by supervision, have the same answers."""

import numpy as np
import pytest

from florence_lab.scenes import write_dataset


@pytest.mark.slow
@pytest.mark.parametrize("task", ["OD", "OPEN_VOCABULARY_DETECTION", "REGION_TO_CATEGORY"])
def test_the_formats_agree(tmp_path, read, task):
    import supervision as sv

    folder = write_dataset(tmp_path / "coco", [1_000_003, 1_000_004, 1_000_005], 200, ["<OD>"])
    dataset = sv.DetectionDataset.from_coco(str(folder), str(folder / "annotations.json"))
    yolo, voc = tmp_path / "yolo", tmp_path / "voc"
    dataset.as_yolo(str(yolo / "images" / "train"), str(yolo / "labels" / "train"), str(yolo / "data.yaml"))
    (yolo / "data.yaml").write_text((yolo / "data.yaml").read_text() + "\ntrain: images/train\n")
    dataset.as_pascal_voc(str(voc / "JPEGImages"), str(voc / "Annotations"))
    expected, errors = read(f"coco:{folder / 'annotations.json'}?tasks={task}")
    assert errors == []
    assert expected
    for name in (f"yolo:{yolo}?tasks={task}", f"voc:{voc}?tasks={task}"):
        examples, errors = read(name)
        assert errors == []
        assert [describe(example)[:3] for example in examples] == [describe(example)[:3] for example in expected]
        for example, known in zip(examples, expected, strict=True):
            # supervision's Pascal VOC files count pixels from 1 at both corners
            assert np.allclose(describe(example)[3], describe(known)[3], atol=1.5)


def describe(example):
    """Return the image, the phrase, the labels, and the boxes of the answer."""
    truth = example.ground_truth
    is_text = not hasattr(truth, "boxes")
    phrase = "" if example.prompt.text.startswith("<loc_") else example.prompt.text
    boxes = np.zeros((0, 4)) if is_text else truth.boxes
    return example.image.stem, phrase, [truth.text] if is_text else truth.labels.tolist(), boxes
