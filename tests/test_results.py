"""Results and their conversions: the published form, supervision, COCO, data frames, masks, the overlay in a notebook."""

import io
import json
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pandas as pd
import pytest
import supervision as sv
from PIL import Image

from florence_lab.geometry import polygon_area, polygons_to_mask
from florence_lab.results import Boxes, Polygons, Quads, Text
from florence_lab.tasks import TASKS
from florence_lab.template.locations import format_location_tokens
from florence_lab.template.template import FlorenceTemplate

SIZE = (640, 480)
SEGMENTATION, OPEN = "<REFERRING_EXPRESSION_SEGMENTATION>", "<OPEN_VOCABULARY_DETECTION>"
CAT, HAT = format_location_tokens((100, 100, 300, 200), SIZE), format_location_tokens((400, 50, 500, 350), SIZE)
QUAD = format_location_tokens((100, 100, 300, 120, 290, 200, 90, 180), SIZE)
TRIANGLE = format_location_tokens((100, 100, 300, 100, 100, 300), SIZE)
SQUARE = format_location_tokens((400, 200, 500, 200, 500, 300, 400, 300), SIZE)

ANSWERS = {
    "": "Four sheep in a field. ",
    "<CAPTION>": "Four sheep in a field. ",
    "<DETAILED_CAPTION>": "Four sheep.",
    "<MORE_DETAILED_CAPTION>": "Four sheep. They stand.",
    "<OD>": f"cat{CAT}hat{HAT}cat{HAT}",
    "<DENSE_REGION_CAPTION>": f"a grey cat{CAT}a red hat{HAT}",
    "<REGION_PROPOSAL>": CAT + HAT,
    "<OCR>": "OPEN now",
    "<OCR_WITH_REGION>": f"OPEN{QUAD}now{QUAD}",
    "<CAPTION_TO_PHRASE_GROUNDING>": f"a cat{CAT}{HAT}it{CAT}a hat{HAT}",
    SEGMENTATION: f"{TRIANGLE}<sep>{SQUARE}",
    OPEN: f"cat{CAT}hat{HAT}",
    "<REGION_TO_SEGMENTATION>": TRIANGLE,
    "<REGION_TO_CATEGORY>": f"cat{CAT}",
    "<REGION_TO_DESCRIPTION>": f"a grey cat{CAT}",
    "<REGION_TO_OCR>": f"OPEN{CAT}",
}
"""One answer to each task, and to a free question."""

KINDS = {"<CAPTION>": Text, "<OD>": Boxes, "<OCR_WITH_REGION>": Quads, SEGMENTATION: Polygons}
BOTH = f"cat{CAT}hat<poly>{TRIANGLE}</poly>cat{HAT}"


def read(task: str, raw: str | None = None, scores: list[float] | None = None, **values):
    """The answer to a task, by default that of the table."""
    result = FlorenceTemplate().parse_text(ANSWERS[task] if raw is None else raw, task, SIZE)
    return replace(result, **values | ({} if scores is None else {"scores": np.array(scores)}))


# ---------------------------------------------------------------------- the published form


def assert_same_but_for_fractions(ours, published):
    """The published code cuts its float32 pixels down to integers."""
    if isinstance(ours, dict):
        assert ours.keys() == published.keys()
        for key in ours:
            assert_same_but_for_fractions(ours[key], published[key])
    elif isinstance(ours, list):
        assert len(ours) == len(published)
        for one, other in zip(ours, published, strict=True):
            assert_same_but_for_fractions(one, other)
    elif isinstance(ours, float):
        assert -1e-3 <= ours - published < 1
    else:
        assert ours == published


@pytest.mark.parametrize("task", TASKS)
def test_to_dict_is_what_transformers_makes_of_the_same_text(tiny, task):
    raw = f"</s><s>{ANSWERS[task]}</s>"
    published = tiny.processor.post_process_generation(text=raw, task=task, image_size=SIZE)
    assert_same_but_for_fractions(read(task, raw).to_dict(), published)


def test_polygons_of_open_vocabulary_detection_are_what_transformers_makes_of_them(tiny):
    raw = f"cat<poly>{TRIANGLE}</poly><poly>{SQUARE}<sep>{TRIANGLE}</poly>hat<poly>{SQUARE}</poly>"
    published = tiny.processor.post_process_generation(text=raw, task=OPEN, image_size=SIZE)
    assert published[OPEN]["polygons_labels"] == ["cat", "cat", "hat"]
    assert_same_but_for_fractions(read(OPEN, raw).to_dict(), published)


def test_scores_are_added_to_the_published_form():
    assert read("<OD>", scores=[0.5, 0.25, 1]).to_dict()["<OD>"]["scores"] == [0.5, 0.25, 1]
    assert read("<OCR_WITH_REGION>", scores=[0.5, 1]).to_dict()["<OCR_WITH_REGION>"]["scores"] == [0.5, 1]
    assert read(SEGMENTATION, scores=[0.5]).to_dict()[SEGMENTATION]["scores"] == [0.5]
    both = read(OPEN, BOTH, scores=[0.5, 0.25, 1]).to_dict()[OPEN]
    assert (both["bboxes_labels"], both["scores"]) == (["cat", "cat"], [0.5, 1])
    assert (both["polygons_labels"], both["polygons_scores"]) == (["hat"], [0.25])
    assert (len(both["bboxes"]), len(both["polygons"])) == (2, 1)


def test_a_free_question_is_named_by_its_prompt():
    assert read("", prompt="Describe the image").to_dict() == {"Describe the image": "Four sheep in a field."}


@pytest.mark.parametrize("task", ANSWERS)
def test_conversions_are_plain_data(task):
    result = read(task)
    for value in (result.to_dict(), result.to_coco()):
        assert json.loads(json.dumps(value)) == value


# ---------------------------------------------------------------------- supervision


def test_to_supervision_of_boxes():
    result = read("<OD>", scores=[0.5, 0.25, 1])
    detections = result.to_supervision()
    np.testing.assert_allclose(detections.xyxy, result.boxes, rtol=1e-6)
    assert detections.confidence.tolist() == [0.5, 0.25, 1]
    assert detections.class_id.tolist() == [0, 1, 0]
    assert detections.data["class_name"].tolist() == ["cat", "hat", "cat"]
    assert detections.mask is None
    assert read("<OD>").to_supervision().confidence is None
    assert len(detections[detections.confidence > 0.4]) == 2


def test_to_supervision_of_outlines():
    polygons = read(SEGMENTATION)
    detections = polygons.to_supervision()
    np.testing.assert_array_equal(detections.mask, polygons.masks)
    np.testing.assert_allclose(detections.xyxy, sv.mask_to_xyxy(polygons.masks), atol=1.5)
    quads = read("<OCR_WITH_REGION>").to_supervision()
    assert quads.mask.shape == (2, 480, 640)
    np.testing.assert_allclose(quads.xyxy[0], [90, 100, 300, 200], atol=0.7)
    assert read(OPEN, BOTH).to_supervision().mask is None  # boxes have none, and it is all or nothing


# ---------------------------------------------------------------------- COCO


def coco_of(task: str, **values) -> tuple[list[dict], list[dict]]:
    coco = read(task, **values).to_coco(image_id=7, file_name="sheep.png")
    assert coco["images"] == [{"id": 7, "file_name": "sheep.png", "width": 640, "height": 480}]
    assert [a["id"] for a in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    assert {a["image_id"] for a in coco["annotations"]} == {7}
    return coco["annotations"], coco["categories"]


@pytest.mark.parametrize("task", [task for task, kind in TASKS.items() if kind.result != "text"])
def test_coco_annotations_are_valid(task):
    result = read(task)
    annotations, categories = coco_of(task)
    names = {category["id"]: category["name"] for category in categories}
    assert list(names) == list(range(1, len(set(result.labels)) + 1))
    assert [names[a["category_id"]] for a in annotations] == list(result.labels)
    for annotation in annotations:
        assert annotation.keys() == {"id", "image_id", "category_id", "bbox", "area", "segmentation", "iscrowd"}
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= 640
        assert 0 <= y < y + height <= 480
        assert 0 < annotation["area"] <= width * height + 1e-6
        for polygon in annotation["segmentation"]:
            assert len(polygon) >= 6
            assert (min(polygon[::2]), min(polygon[1::2])) >= (x, y)


def test_coco_values():
    annotations, _ = coco_of("<OD>", scores=[0.5, 0.25, 1])
    np.testing.assert_allclose(annotations[0]["bbox"], [100, 100, 200, 100], atol=0.7)
    assert annotations[0]["area"] == pytest.approx(200 * 100, rel=0.02)
    assert annotations[0]["segmentation"] == []
    assert [a["score"] for a in annotations] == [0.5, 0.25, 1]

    (outlined,), _ = coco_of(SEGMENTATION)
    result = read(SEGMENTATION)
    np.testing.assert_allclose(outlined["bbox"], [100, 100, 400, 200], atol=0.7)
    assert outlined["area"] == pytest.approx(200 * 200 / 2 + 100 * 100, rel=0.02)
    assert outlined["segmentation"] == [polygon.ravel().tolist() for polygon in result.polygons[0]]


def test_coco_captions():
    annotations, categories = coco_of("<REGION_TO_CATEGORY>")
    assert (annotations, categories) == ([{"caption": "cat", "id": 1, "image_id": 7}], [])


# ---------------------------------------------------------------------- data frames, head


def test_to_dataframe():
    result = read("<OD>", scores=[0.5, 0.25, 1])
    expected = {"label": ["cat", "hat", "cat"], "score": [0.5, 0.25, 1]}
    expected |= dict(zip(("x0", "y0", "x1", "y1"), result.boxes.T, strict=True))
    pd.testing.assert_frame_equal(result.to_dataframe(), pd.DataFrame(expected))
    assert list(read("<OD>").to_dataframe()) == ["label", "x0", "y0", "x1", "y1"]
    assert read("<CAPTION>").to_dataframe().to_dict("records") == [{"text": "Four sheep in a field."}]
    for task, extent in (("<OCR_WITH_REGION>", [90, 100, 300, 200]), (SEGMENTATION, [100, 100, 500, 300])):
        np.testing.assert_allclose(read(task).to_dataframe().iloc[0, 1:].astype(float), extent, atol=0.7)


@pytest.mark.parametrize("task", ["<OD>", "<OCR_WITH_REGION>", "<REGION_TO_SEGMENTATION>", OPEN])
def test_head(task):
    raw = {"<REGION_TO_SEGMENTATION>": f"{TRIANGLE}<and>{SQUARE}", OPEN: BOTH}.get(task)
    whole = read(task, raw)
    whole = replace(whole, scores=np.arange(len(whole)) / 4)
    for count in (0, 1, len(whole), 99):
        head = whole.head(count)
        assert len(head) == min(count, len(whole))
        pd.testing.assert_frame_equal(head.to_dataframe(), whole.to_dataframe().iloc[:count])
        assert (head.raw, head.task, head.image_size) == (whole.raw, whole.task, whole.image_size)
        assert len(head.to_coco()["annotations"]) == len(head)
    assert read(task, raw).head(1).scores is None


@pytest.mark.parametrize("task", ["<OD>", "<OCR_WITH_REGION>", "<REGION_TO_SEGMENTATION>", OPEN])
def test_above(task):
    raw = {"<REGION_TO_SEGMENTATION>": f"{TRIANGLE}<and>{SQUARE}", OPEN: BOTH}.get(task)
    whole = read(task, raw)
    whole = replace(whole, scores=np.arange(len(whole), 0, -1) / len(whole))  # so what stays is a beginning
    for score in (0, *whole.scores.tolist(), 2):
        kept = whole.above(score)
        pd.testing.assert_frame_equal(
            kept.to_dataframe(), whole.head(int((whole.scores >= score).sum())).to_dataframe()
        )
        assert (kept.raw, kept.task) == (whole.raw, whole.task)
    last = replace(whole, scores=whole.scores[::-1].copy()).above(1)
    assert last.labels == whole.labels[-1:]
    np.testing.assert_array_equal(last.to_dataframe().iloc[0, 2:], whole.to_dataframe().iloc[-1, 2:])
    with pytest.raises(ValueError, match="no scores"):
        read(task, raw).above(0.5)


@pytest.mark.parametrize("task", ["<OD>", "<OCR_WITH_REGION>"])
def test_called(task):
    whole = read(task)
    for label in {*whole.labels}:
        table = whole.to_dataframe()
        kept = whole.called(label)
        pd.testing.assert_frame_equal(kept.to_dataframe(), table[table.label == label].reset_index(drop=True))
    assert len(whole.called("unicorn")) == 0


def test_head_of_outlines_has_the_masks_of_its_own():
    whole = read(SEGMENTATION, f"{TRIANGLE}<and>{SQUARE}")
    assert whole.masks.sum(axis=(1, 2)).tolist() != whole.masks[:1].sum(axis=(1, 2)).tolist()
    np.testing.assert_array_equal(whole.head(1).masks, whole.masks[:1])


# ---------------------------------------------------------------------- masks


def outline(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, np.float64)


def circle(x: float, y: float, radius: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


@pytest.mark.parametrize(
    ("polygon", "area"),
    [
        (outline((10, 20), (60, 20), (60, 50), (10, 50)), 50 * 30),
        (outline((10, 20), (60, 20), (10, 80)), 50 * 60 / 2),
        (outline((50, 10), (90, 50), (50, 90), (10, 50)), 80 * 80 / 2),
        (circle(50, 50, 40), np.pi * 40**2),
        (outline((10, 10), (90, 10), (90, 90), (50, 30), (10, 90)), 80 * 80 - 80 * 60 / 2),  # with a bay
        (outline((10, 10), (90, 10)), 0),
    ],
)
def test_masks_cover_the_area_of_their_outline(polygon, area):
    assert polygon_area(polygon) == pytest.approx(area, rel=2e-3)
    for turned in (polygon, polygon[::-1], np.roll(polygon, 1, axis=0)):
        assert polygon_area(turned) == pytest.approx(polygon_area(polygon))
        assert polygons_to_mask((turned,), (100, 100)).sum() == pytest.approx(area, rel=0.01)


def test_a_mask_holds_the_pixels_whose_centre_is_inside():
    mask = polygons_to_mask((outline((2.4, 1.6), (5.6, 1.6), (5.6, 3.4), (2.4, 3.4)),), (8, 5))
    assert mask.shape == (5, 8)
    assert mask.dtype == bool
    assert np.argwhere(mask).tolist() == [[2, 2], [2, 3], [2, 4], [2, 5]]


def test_neighbours_share_no_pixel_and_leave_none_out():
    """Also where their common edge runs through the centres of pixels."""
    for edge in (4, 4.5, 4.75):
        left = outline((0, 0), (edge, 0), (edge, 8), (0, 8))
        right = outline((edge, 0), (8, 0), (8, 8), (edge, 8))
        masks = [polygons_to_mask((half,), (8, 8)) for half in (left, right)]
        assert (masks[0] ^ masks[1]).all()
        masks = [polygons_to_mask((half[:, ::-1],), (8, 8)) for half in (left, right)]
        assert (masks[0] ^ masks[1]).all()


def test_a_mask_is_the_union_of_its_outlines_within_the_picture():
    one, other = outline((-5, -5), (4, -5), (4, 4), (-5, 4)), outline((2, 2), (99, 2), (99, 99), (2, 99))
    mask = polygons_to_mask((one, other), (10, 10))
    assert mask.sum() == 4 * 4 + 8 * 8 - 2 * 2
    assert polygons_to_mask((), (10, 7)).shape == (7, 10)


def test_masks_of_a_result():
    result = read(SEGMENTATION, f"{TRIANGLE}<sep>{SQUARE}<and>{SQUARE}")
    assert result.masks.shape == (2, 480, 640)
    assert result.masks.dtype == bool
    square = result.masks[1]
    assert square[201:299, 401:499].all()
    assert square.sum() == pytest.approx(100 * 100, rel=0.02)
    assert (result.masks[0] & square).sum() == square.sum()


# ---------------------------------------------------------------------- what every result is


@pytest.mark.parametrize("task", KINDS)
def test_results_are_frozen(task):
    result = read(task)
    assert type(result) is KINDS[task]
    for name in [f.name for f in fields(result)]:
        with pytest.raises(FrozenInstanceError):
            setattr(result, name, None)
    assert len({result, read(task)}) == 2  # each its own, also as a key


@pytest.mark.parametrize("task", [task for task, kind in TASKS.items() if kind.result != "text"])
@pytest.mark.parametrize("scores", [None, []])
def test_nothing_found_is_empty_everywhere(task, scores):
    result = read(task, "", scores)
    assert len(result) == 0
    assert result.labels == ()
    assert len(result.to_dataframe()) == 0
    assert {"label", "x0", "y0", "x1", "y1"} <= set(result.to_dataframe())
    assert len(result.to_supervision()) == 0
    coco = result.to_coco()
    assert (coco["annotations"], coco["categories"], len(coco["images"])) == ([], [], 1)
    (answer,) = result.to_dict().values()
    assert answer
    assert not any(answer.values())
    assert ("scores" in answer) == (scores is not None)
    assert len(result.head(3)) == 0
    if isinstance(result, Polygons):
        assert result.masks.shape == (0, 480, 640)


def test_an_empty_text():
    result = read("<CAPTION>", "")
    assert (result.text, result.to_dict()) == ("", {"<CAPTION>": ""})
    assert len(result.to_supervision()) == 0
    assert result.to_dataframe().to_dict("records") == [{"text": ""}]


@pytest.mark.parametrize("task", ANSWERS)
def test_a_result_shows_its_overlay_where_the_picture_is_at_hand(task):
    assert read(task)._repr_png_() is None
    shown = Image.open(io.BytesIO(read(task, image=Image.new("RGB", SIZE, "navy"))._repr_png_()))
    assert shown.format == "PNG"
    assert min(shown.size) > 100


def test_repr_is_short_of_the_picture():
    assert "image=" not in repr(read("<OD>", image=Image.new("RGB", SIZE)))
    assert "labels=('cat', 'hat', 'cat')" in repr(read("<OD>"))
