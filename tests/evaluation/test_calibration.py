"""`calibrate`: reading labelled images, the report, and its use in detection."""

import json

import matplotlib
import numpy as np
import pytest

from florence_lab.detection.calibration import FEATURES, Calibration
from florence_lab.evaluation import calibration as module
from florence_lab.evaluation.calibration import calibrate
from florence_lab.exceptions import ArgumentError, DatasetError
from florence_lab.results import Boxes
from florence_lab.scenes import CATEGORIES, HELD_OUT_SEEDS, draw_scene

SEEDS = HELD_OUT_SEEDS[700:704]
CLASSES = ["sheep", "tree", "dog", "boat", "car"]


@pytest.fixture(scope="module")
def pairs():
    return [(scene.image, scene.answer("<OD>")) for scene in map(draw_scene, SEEDS)]


@pytest.fixture(scope="module")
def report(nano, pairs):
    """A fit to the boxes of all categories, of which most are absent and some get a box."""
    return calibrate(nano, pairs, CATEGORIES, strategy="open_vocabulary", num_beams=1)


def test_a_report_compares_plain_verified_and_calibrated_scores(report):
    frame = report.to_dataframe()
    assert list(frame.index) == ["own", "verified", "calibrated"]
    assert list(frame.columns) == ["precision", "recall", "AUROC"]
    assert report.num_images == len(SEEDS)
    assert "verified" in repr(report)
    assert frame.loc["verified", "AUROC"] >= frame.loc["own", "AUROC"]
    assert all(len(scores) == len(report.is_right) for scores in report.scores.values())


def test_a_report_is_drawn_and_saved(report, tmp_path):
    ax = matplotlib.figure.Figure().subplots()
    assert report.plot_precision_recall(ax) is ax
    assert [line.get_label() for line in ax.get_lines()] == list(report.scores)
    assert Calibration.load(report.save(tmp_path)) == report.calibration


def test_a_calibration_is_used_by_detect(nano, pairs, report, tmp_path):
    path = report.save(tmp_path / "mine.json")
    image = nano.encode_image(pairs[0][0])
    by_object = nano.detect(image, ["sheep", "tree"], calibration=report.calibration, threshold=0.0)
    by_path = nano.detect(image, ["sheep", "tree"], calibration=path, threshold=0.0)
    np.testing.assert_array_equal(by_object.scores, by_path.scores)


def write_rows(folder, pairs):
    rows = []
    for i, (image, truth) in enumerate(pairs):
        image.save(folder / f"{i}.png")
        objects = [{"caption": n, "bbox": b.tolist()} for n, b in zip(truth.labels.tolist(), truth.boxes, strict=True)]
        response = truth.raw if objects else ""
        rows.append({"query": "<OD>", "response": response, "images": [f"{i}.png"]})
        rows.append({"query": "<CAPTION>", "response": "a scene", "images": [f"{i}.png"]})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("form", [str, lambda p: p, lambda p: [str(p)]])
def test_rows_of_a_file_are_read_like_pairs(nano, pairs, tmp_path, form):
    read = module._read_pairs(nano, form(write_rows(tmp_path, pairs)))
    assert len(read) == len(pairs)
    for (_, expected), (_, found) in zip(pairs, read, strict=True):
        assert found.labels.tolist() == expected.labels.tolist()
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1)


@pytest.mark.parametrize(
    ("dataset", "error"),
    [
        (3, ArgumentError),
        ("missing.jsonl", DatasetError),
        ([], DatasetError),
        ([(1, 2)], (DatasetError, ArgumentError)),
    ],
)
def test_what_is_no_labelled_set_is_refused(nano, dataset, error):
    with pytest.raises(error):
        calibrate(nano, dataset)


def test_images_without_objects_are_refused(nano, pairs):
    empty = Boxes(raw="", image_size=(512, 512), labels=[], boxes=np.zeros((0, 4)))
    with pytest.raises(DatasetError, match="0 classes"):
        calibrate(nano, [(image, empty) for image, _ in pairs])
    with pytest.raises(DatasetError, match="got 1"):
        calibrate(nano, pairs[:1])


def test_scores_are_cross_validated_by_image():
    rng = np.random.default_rng(0)
    features, image_of = rng.random((100, len(FEATURES))), np.repeat(np.arange(10), 10)
    is_right = rng.random(100) < 0.5
    held_out = module._cross_validate(features, is_right, image_of)
    expected = Calibration.fit(features[image_of % 5 != 2], is_right[image_of % 5 != 2]).predict(features)
    np.testing.assert_allclose(held_out[image_of % 5 == 2], expected[image_of % 5 == 2])
    assert module._cross_validate(features[:20], np.arange(20) < 10, image_of[:20]) is None


def test_a_model_that_finds_nothing_cannot_be_calibrated(small, pairs):
    with pytest.raises(ArgumentError, match="0 of"):
        calibrate(small, pairs[:2], ["sheep", "red car"], max_new_tokens=9, num_beams=1)
