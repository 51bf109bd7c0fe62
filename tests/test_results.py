"""Results: indexing, labels, and the conversions to the published form, supervision, COCO and pandas."""

import json
import re
import sys
import warnings
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pandas as pd
import pytest
import supervision as sv
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from support import boxes

import florence_lab
from florence_lab.results import Instances, Polygons, Quads, Result, Text, to_coco
from florence_lab.tasks import TASKS
from florence_lab.template.locations import format_location_tokens
from florence_lab.template.template import FlorenceTemplate

SIZE = (64, 48)
SEGMENTATION, OPEN = "<REFERRING_EXPRESSION_SEGMENTATION>", "<OPEN_VOCABULARY_DETECTION>"
TRIANGLE = np.array([(10.0, 10), (30, 10), (10, 30)])
SQUARE = np.array([(40.0, 20), (50, 20), (50, 30), (40, 30)])
QUAD = np.array([(10.0, 10), (30, 12), (29, 20), (9, 18)])

DETECTION = boxes(("cat", 1, 2, 11, 22), ("hat", 5, 6, 9, 9), ("cat", 20, 0, 60, 40), image_size=SIZE)
SCORED = replace(DETECTION, scores=np.array([0.5, 0.25, 1]))
TEXT = Text(raw=" Four sheep. ", image_size=SIZE, task="<CAPTION>", text="Four sheep.")
QUADS = Quads(
    raw="OPEN", image_size=SIZE, task="<OCR_WITH_REGION>", labels=["OPEN", "now"], quads=np.array([QUAD, QUAD + 5])
)
POLYGONS = Polygons(
    raw="two",
    image_size=SIZE,
    task=SEGMENTATION,
    phrase="a toy",
    labels=["", ""],
    polygons=((TRIANGLE, SQUARE), (SQUARE,)),
)
MIXED = replace(SCORED, task=OPEN, phrase="toy", polygons=((), (TRIANGLE,), ()))
"""Two boxes and one polygon, as `<OPEN_VOCABULARY_DETECTION>` may answer."""

NUMBERED = replace(SCORED, class_ids=[2, 0, 2], classes=("hat", "dog", "cat"))
"""The answer to three classes, of which one was not found."""

WITH_INSTANCES = [SCORED, QUADS, POLYGONS, MIXED, NUMBERED]


def rows(result: Instances) -> list:
    """Everything that belongs to each instance, as lists that can be compared."""
    scores = [None] * len(result) if result.scores is None else result.scores.tolist()
    contours = [[polygon.tolist() for polygon in polygons] for polygons in result.contours]
    ids = getattr(result, "class_ids", None)
    ids = [None] * len(result) if ids is None else ids.tolist()
    return list(zip(result.labels.tolist(), scores, ids, result.xyxy.tolist(), contours, strict=True))


# ---------------------------------------------------------------------- the fields


def test_labels_are_an_array_of_strings_whatever_sequence_is_given():
    for labels in (("cat", "hat"), ["cat", "hat"], np.array(["cat", "hat"], object)):
        result = replace(QUADS, labels=labels)
        assert result.labels.tolist() == ["cat", "hat"]
        assert result.labels.dtype.kind == "U"
    assert replace(DETECTION[:0], labels=()).labels.shape == (0,)


def test_labels_are_copied():
    given = np.array(["a", "b"])
    result = replace(QUADS, labels=given)
    given[0] = "other"
    assert result.labels.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("result", "changes", "message"),
    [
        (DETECTION, {"labels": ["cat"]}, "1 labels, but 3 boxes"),
        (DETECTION, {"scores": np.ones(2)}, "3 labels, but 2 scores"),
        (DETECTION, {"polygons": ((),)}, "3 labels, but 1 polygons"),
        (DETECTION, {"class_ids": [1]}, "3 labels, but 1 class_ids"),
        (QUADS, {"quads": QUAD[None]}, "2 labels, but 1 quads"),
        (POLYGONS, {"polygons": ()}, "2 labels, but 0 polygons"),
    ],
)
def test_fields_of_different_lengths_are_refused(result, changes, message):
    with pytest.raises(ValueError, match=rf"^{message}$"):
        replace(result, **changes)


@pytest.mark.parametrize("result", [TEXT, *WITH_INSTANCES], ids=lambda result: type(result).__name__)
def test_results_are_frozen(result):
    for name in [f.name for f in fields(result)]:
        with pytest.raises(FrozenInstanceError):
            setattr(result, name, None)


def test_equal_results_are_different_keys():
    assert len({DETECTION, replace(DETECTION)}) == 2


def test_the_defaults_are_a_free_form_question_without_scores_and_image():
    text = Text(raw="x", image_size=SIZE, text="x")
    assert (text.task, text.prompt, text.phrase, text.image) == ("", "", "", None)
    assert (DETECTION.scores, DETECTION.polygons) == (None, ())


def test_results_take_keywords_only():
    with pytest.raises(TypeError, match="positional"):
        Text("raw", SIZE)


def test_base_classes_cannot_be_created():
    for base in (Result, Instances):
        with pytest.raises(TypeError, match="abstract"):
            base(raw="", image_size=SIZE)


def test_repr_leaves_out_the_image():
    assert "image=" not in repr(replace(TEXT, image=Image.new("RGB", SIZE)))
    assert "text='Four sheep.'" in repr(TEXT)


# ---------------------------------------------------------------------- indexing


def test_the_length_is_the_number_of_instances():
    assert [len(result) for result in WITH_INSTANCES] == [3, 2, 2, 3, 3]


@pytest.mark.parametrize("result", WITH_INSTANCES, ids=lambda result: type(result).__name__)
def test_iteration_gives_results_of_one_instance_each(result):
    parts = list(result)
    assert [len(part) for part in parts] == [1] * len(result)
    assert {type(part) for part in parts} == {type(result)}
    assert [row for part in parts for row in rows(part)] == rows(result)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, [0]),
        (2, [2]),
        (-1, [2]),
        (np.int64(1), [1]),
        (np.array(1), [1]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        (slice(5, 9), []),
        ([2, 0], [2, 0]),
        ((1, 1), [1, 1]),
        ([-1], [2]),
        ([], []),
        ((), []),
        (np.array([2, 1]), [2, 1]),
        (np.array([], int), []),
        ([True, False, True], [0, 2]),
        (np.array([False, True, False]), [1]),
        (np.zeros(3, bool), []),
    ],
)
@pytest.mark.parametrize("result", [SCORED, MIXED, NUMBERED], ids=["boxes", "boxes and polygons", "classes"])
def test_an_index_selects_instances_as_in_an_array(result, index, expected):
    selected = result[index]
    assert rows(selected) == [rows(result)[i] for i in expected]
    assert (selected.raw, selected.task, selected.phrase) == (result.raw, result.task, result.phrase)
    assert (selected.boxes.shape, selected.labels.shape) == ((len(expected), 4), (len(expected),))


def test_comparisons_select_instances():
    assert SCORED[SCORED.scores > 0.4].scores.tolist() == [0.5, 1]
    assert SCORED[SCORED.labels == "cat"].boxes.tolist() == [[1, 2, 11, 22], [20, 0, 60, 40]]
    assert len(SCORED[SCORED.labels == "unicorn"]) == 0
    assert SCORED[np.isin(SCORED.labels, ["hat", "tie"])].labels.tolist() == ["hat"]


@pytest.mark.parametrize("index", [3, -4, [0, 3], [True], np.ones(4, bool), np.array([3])])
def test_an_index_out_of_range_is_an_index_error(index):
    with pytest.raises(IndexError):
        DETECTION[index]


@pytest.mark.parametrize("index", [1.0, None, {0}])
def test_an_index_of_another_type_is_a_type_error(index):
    with pytest.raises(TypeError):
        DETECTION[index]


def test_a_selection_of_polygons_has_masks_of_its_own():
    assert POLYGONS.masks.shape == (2, 48, 64)
    np.testing.assert_array_equal(POLYGONS[1].masks, POLYGONS.masks[1:])


# ---------------------------------------------------------------------- labels


def test_with_labels_sets_one_label_for_all():
    assert DETECTION.with_labels("pet").labels.tolist() == ["pet"] * 3


def test_with_labels_sets_a_label_for_each():
    renamed = SCORED.with_labels(["a", "b", "c"])
    assert renamed.labels.tolist() == ["a", "b", "c"]
    assert (renamed.scores.tolist(), renamed.boxes.tolist()) == (SCORED.scores.tolist(), SCORED.boxes.tolist())
    assert SCORED.labels.tolist() == ["cat", "hat", "cat"]


def test_with_labels_maps_old_labels_to_new_ones_and_leaves_the_others():
    assert DETECTION.with_labels({"cat": "a much longer name", "dog": "x"}).labels.tolist() == [
        "a much longer name",
        "hat",
        "a much longer name",
    ]


def test_with_labels_refuses_another_number():
    with pytest.raises(ValueError, match=r"^expected 3 labels, one for each instance, but got 2$"):
        DETECTION.with_labels(["a", "b"])


def test_with_labels_of_nothing_found():
    assert [DETECTION[:0].with_labels(labels).labels.tolist() for labels in ("a", [], {"a": "b"})] == [[], [], []]


def test_empty_labels_take_the_phrase_where_the_task_takes_one():
    assert POLYGONS.class_names.tolist() == ["a toy", "a toy"]
    assert replace(POLYGONS, labels=["", "car"]).class_names.tolist() == ["a toy", "car"]
    assert POLYGONS.class_names.dtype.kind == "U"


@pytest.mark.parametrize("task", ["<REGION_TO_SEGMENTATION>", "<REGION_PROPOSAL>", "", "<UNREGISTERED>"])
def test_empty_labels_stay_empty_where_the_task_takes_no_phrase(task):
    result = replace(POLYGONS, task=task, phrase="<loc_1><loc_2><loc_3><loc_4>")
    assert result.class_names.tolist() == ["", ""]
    assert result.to_dataframe()["label"].tolist() == ["", ""]


def test_empty_labels_take_the_phrase_in_conversions_but_not_in_the_published_form():
    assert [category["name"] for category in POLYGONS.to_coco()["categories"]] == ["a toy"]
    assert POLYGONS.to_supervision().data["class_name"].tolist() == ["a toy", "a toy"]
    assert POLYGONS.to_dataframe()["label"].tolist() == ["a toy", "a toy"]
    assert POLYGONS.to_dict()[SEGMENTATION]["labels"] == ["", ""]
    assert POLYGONS.labels.tolist() == ["", ""]


# ---------------------------------------------------------------------- geometry of each type


def test_bounding_boxes_of_each_type():
    assert DETECTION.xyxy is DETECTION.boxes
    assert QUADS.xyxy.tolist() == [[9, 10, 30, 20], [14, 15, 35, 25]]
    assert POLYGONS.xyxy.tolist() == [[10, 10, 50, 30], [40, 20, 50, 30]]


def test_contours_of_each_type():
    assert DETECTION.contours == ((), (), ())
    assert MIXED.contours == ((), (TRIANGLE,), ())
    assert [[contour.tolist() for contour in contours] for contours in QUADS.contours] == [
        [QUAD.tolist()],
        [(QUAD + 5).tolist()],
    ]
    assert POLYGONS.contours is POLYGONS.polygons


def test_masks_are_the_union_of_the_polygons_of_each_instance():
    masks = POLYGONS.masks
    assert masks.dtype == bool
    assert masks[1, 20:30, 40:50].all()
    assert masks[1].sum() == 100
    assert (masks[0] & masks[1]).sum() == 100
    # the hypotenuse of the triangle passes through 20 pixel centers
    assert masks[0].sum() == pytest.approx(100 + 200, abs=10)
    assert POLYGONS.masks is masks


# ---------------------------------------------------------------------- the published form


LOC = {
    "cat": format_location_tokens((10, 10, 30, 20), SIZE),
    "hat": format_location_tokens((40, 5, 50, 35), SIZE),
    "quad": format_location_tokens(QUAD.ravel(), SIZE),
    "triangle": format_location_tokens(TRIANGLE.ravel(), SIZE),
    "square": format_location_tokens(SQUARE.ravel(), SIZE),
}
GENERATED = {
    "<CAPTION>": ["Four sheep in a field. "],
    "<DETAILED_CAPTION>": ["Four sheep."],
    "<MORE_DETAILED_CAPTION>": ["Four sheep. They stand."],
    "<OD>": ["cat{cat}hat{hat}cat{hat}"],
    "<DENSE_REGION_CAPTION>": ["a grey cat{cat}a red hat{hat}"],
    "<REGION_PROPOSAL>": ["{cat}{hat}"],
    "<OCR>": ["OPEN now"],
    "<OCR_WITH_REGION>": ["OPEN{quad}now{quad}"],
    "<CAPTION_TO_PHRASE_GROUNDING>": ["a cat{cat}{hat}it{cat}a hat{hat}"],
    SEGMENTATION: ["{triangle}<sep>{square}"],
    OPEN: [
        "cat{cat}hat{hat}",
        "cat<poly>{triangle}</poly><poly>{square}<sep>{triangle}</poly>hat<poly>{square}</poly>",
    ],
    "<REGION_TO_SEGMENTATION>": ["{triangle}"],
    "<REGION_TO_CATEGORY>": ["cat{cat}"],
    "<REGION_TO_DESCRIPTION>": ["a grey cat{cat}"],
    "<REGION_TO_OCR>": ["OPEN{cat}"],
}
"""Generated text for each task, with `LOC` to be filled in."""


def assert_equal_but_for_fractions(ours, published):
    """The published code truncates its float32 pixels to integers."""
    if isinstance(ours, dict):
        assert ours.keys() == published.keys()
        for key in ours:
            assert_equal_but_for_fractions(ours[key], published[key])
    elif isinstance(ours, list):
        assert len(ours) == len(published)
        for one, other in zip(ours, published, strict=True):
            assert_equal_but_for_fractions(one, other)
    elif isinstance(ours, float):
        assert -1e-3 <= ours - published < 1
    else:
        assert ours == published


@pytest.mark.parametrize("task", TASKS)
def test_to_dict_agrees_with_transformers(tiny, task):
    for text in GENERATED[task]:
        raw = f"</s><s>{text.format(**LOC)}</s>"
        published = tiny.processor.post_process_generation(text=raw, task=task, image_size=SIZE)
        assert_equal_but_for_fractions(FlorenceTemplate().parse_text(raw, task, SIZE).to_dict(), published)


def test_the_published_form_of_a_text_is_the_stripped_raw_text():
    assert TEXT.to_dict() == {"<CAPTION>": "Four sheep."}
    assert replace(TEXT, raw=" cat<loc_1> ").to_dict() == {"<CAPTION>": "cat<loc_1>"}


def test_the_published_form_of_a_free_form_answer_is_keyed_by_its_prompt():
    assert replace(TEXT, task="", prompt="How many?").to_dict() == {"How many?": "Four sheep."}
    assert list(replace(TEXT, prompt="How many?").to_dict()) == ["<CAPTION>"]


def test_the_published_form_of_boxes():
    expected = {"bboxes": DETECTION.boxes.tolist(), "labels": ["cat", "hat", "cat"]}
    assert DETECTION.to_dict() == {"<OD>": expected}
    assert SCORED.to_dict() == {"<OD>": expected | {"scores": [0.5, 0.25, 1]}}
    assert replace(DETECTION, task="<UNREGISTERED>").to_dict() == {"<UNREGISTERED>": expected}


def test_the_published_form_of_quads():
    expected = {"quad_boxes": [QUAD.ravel().tolist(), (QUAD + 5).ravel().tolist()], "labels": ["OPEN", "now"]}
    assert QUADS.to_dict() == {"<OCR_WITH_REGION>": expected}
    assert replace(QUADS, scores=np.array([0.5, 1])).to_dict() == {"<OCR_WITH_REGION>": expected | {"scores": [0.5, 1]}}


def test_the_published_form_of_polygons():
    triangle, square = TRIANGLE.ravel().tolist(), SQUARE.ravel().tolist()
    expected = {"polygons": [[triangle, square], [square]], "labels": ["", ""]}
    assert POLYGONS.to_dict() == {SEGMENTATION: expected}
    assert replace(POLYGONS, scores=np.array([0.5, 1])).to_dict() == {SEGMENTATION: expected | {"scores": [0.5, 1]}}


def test_the_published_form_of_open_vocabulary_detection_separates_boxes_and_polygons():
    expected = {
        "bboxes": [[1, 2, 11, 22], [20, 0, 60, 40]],
        "bboxes_labels": ["cat", "cat"],
        "polygons": [[TRIANGLE.ravel().tolist()]],
        "polygons_labels": ["hat"],
    }
    assert replace(MIXED, scores=None).to_dict() == {OPEN: expected}
    assert MIXED.to_dict() == {OPEN: expected | {"scores": [0.5, 1], "polygons_scores": [0.25]}}


# ---------------------------------------------------------------------- class ids


@pytest.mark.parametrize("ids", [[2, 0, -1], [2, 0, 1.5], [2, 0, "a"], [2, 0, 3], 1, np.zeros((3, 1), int)])
def test_class_ids_that_number_no_class_are_refused(ids):
    with pytest.raises(ValueError, match="class_ids"):
        replace(NUMBERED, class_ids=ids)


def test_class_ids_are_integers_of_numpy():
    assert NUMBERED.class_ids.dtype == np.int64
    assert replace(NUMBERED[:0], class_ids=[]).class_ids.shape == (0,)


def test_class_ids_are_those_of_supervision():
    detections = NUMBERED[:2].to_supervision()
    assert (detections.class_id.tolist(), detections.data["class_name"].tolist()) == ([2, 0], ["cat", "hat"])
    assert NUMBERED.to_supervision(["cat", "hat"]).class_id.tolist() == [0, 1, 0]


def test_the_categories_of_coco_are_all_classes_that_were_asked_for():
    expected = [{"id": 1, "name": "hat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cat"}]
    assert NUMBERED[:0].to_coco()["categories"] == expected
    both = to_coco([NUMBERED[1], NUMBERED[:0], NUMBERED])
    assert both["categories"] == expected
    assert [annotation["category_id"] for annotation in both["annotations"]] == [1, 3, 1, 3]
    assert NUMBERED.to_coco(classes=["cat", "hat"])["annotations"][0]["category_id"] == 1


@pytest.mark.parametrize(
    "other",
    [
        SCORED,
        QUADS,
        replace(NUMBERED, class_ids=[0, 1, 0], classes=("cat", "hat")),
        replace(NUMBERED, class_ids=[2, 0, 0]),
    ],
    ids=["without ids", "of another type", "of other classes", "contradictory"],
)
def test_results_without_common_class_ids_are_numbered_by_first_occurrence(other):
    names = [category["name"] for category in to_coco([NUMBERED[0], other])["categories"]]
    assert names == list(dict.fromkeys(["cat", *other.labels.tolist()]))


def test_class_ids_without_classes_number_the_labels():
    result = replace(SCORED, class_ids=[4, 2, 4])
    assert result.to_coco()["categories"] == [{"id": 3, "name": "hat"}, {"id": 5, "name": "cat"}]
    assert result.to_supervision().class_id.tolist() == [4, 2, 4]


def test_class_ids_in_the_published_form_and_in_data_frames():
    assert NUMBERED.to_dict()["<OD>"]["class_ids"] == [2, 0, 2]
    assert NUMBERED.to_dataframe().columns.tolist() == ["label", "class_id", "score", "x0", "y0", "x1", "y1"]
    assert NUMBERED.to_dataframe()["class_id"].tolist() == [2, 0, 2]
    assert "class_id" not in SCORED.to_dataframe()


def test_new_labels_have_no_class_ids():
    renamed = NUMBERED.with_labels("pet")
    assert (renamed.class_ids, renamed.classes) == (None, ())


# ---------------------------------------------------------------------- supervision


def test_to_supervision_of_boxes():
    detections = SCORED.to_supervision()
    assert (detections.xyxy.tolist(), detections.xyxy.dtype) == (SCORED.boxes.tolist(), np.float32)
    assert (detections.confidence.tolist(), detections.confidence.dtype) == ([0.5, 0.25, 1], np.float32)
    assert detections.class_id.tolist() == [0, 1, 0]
    assert detections.data["class_name"].tolist() == ["cat", "hat", "cat"]
    assert detections.mask is None
    assert DETECTION.to_supervision().confidence is None


def test_to_supervision_of_polygons_has_masks():
    detections = POLYGONS.to_supervision()
    np.testing.assert_array_equal(detections.mask, POLYGONS.masks)
    # supervision's boxes are the first and the last pixel of a mask
    np.testing.assert_allclose(detections.xyxy, sv.mask_to_xyxy(POLYGONS.masks), atol=1.5)
    assert QUADS.to_supervision().mask.shape == (2, 48, 64)


def test_to_supervision_has_no_masks_if_an_instance_is_a_box_only():
    assert MIXED.to_supervision().mask is None
    assert MIXED[1].to_supervision().mask.sum() == pytest.approx(200, abs=10)


def test_to_supervision_of_a_text_is_empty():
    assert len(TEXT.to_supervision()) == 0


def test_selecting_and_converting_to_supervision_can_be_swapped():
    keep = SCORED.scores > 0.4
    assert SCORED.to_supervision()[keep] == SCORED[keep].to_supervision()


def test_merged_detections_of_supervision_agree_on_class_ids():
    merged = sv.Detections.merge([DETECTION[i].to_supervision(["hat", "cat"]) for i in range(3)])
    assert merged.class_id.tolist() == [1, 0, 1]


# ---------------------------------------------------------------------- COCO


def test_to_coco_of_boxes():
    assert SCORED.to_coco(image_id=7, file_name="sheep.png") == {
        "images": [{"id": 7, "file_name": "sheep.png", "width": 64, "height": 48}],
        "annotations": [
            {
                "id": i + 1,
                "image_id": 7,
                "category_id": category,
                "bbox": bbox,
                "area": area,
                "segmentation": [],
                "iscrowd": 0,
                "score": score,
            }
            for i, (category, bbox, area, score) in enumerate(
                [(1, [1, 2, 10, 20], 200, 0.5), (2, [5, 6, 4, 3], 12, 0.25), (1, [20, 0, 40, 40], 1600, 1)]
            )
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "hat"}],
    }
    assert all("score" not in annotation for annotation in DETECTION.to_coco()["annotations"])


def test_the_default_image_of_to_coco_has_the_id_1_and_no_file_name():
    expected = [{"id": 1, "file_name": "", "width": 64, "height": 48}]
    assert DETECTION.to_coco()["images"] == to_coco([DETECTION])["images"] == expected


def test_to_coco_of_polygons():
    first, second = POLYGONS.to_coco()["annotations"]
    assert first == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [10, 10, 40, 20],
        "area": 300,
        "segmentation": [TRIANGLE.ravel().tolist(), SQUARE.ravel().tolist()],
        "iscrowd": 0,
    }
    assert (second["id"], second["bbox"], second["area"]) == (2, [40, 20, 10, 10], 100)


def test_to_coco_of_a_text_is_a_caption():
    assert TEXT.to_coco(image_id=3) == {
        "images": [{"id": 3, "file_name": "", "width": 64, "height": 48}],
        "annotations": [{"caption": "Four sheep.", "id": 1, "image_id": 3}],
        "categories": [],
    }


def test_to_coco_of_many_results_agrees_on_ids():
    other = boxes(("hat", 0, 0, 1, 1), ("dog", 0, 0, 2, 2), image_size=(10, 20))
    dataset = florence_lab.to_coco([DETECTION, other, TEXT], ["a.png", "b.png", "c.png"], first_image_id=5)
    assert dataset["images"] == [
        {"id": 5, "file_name": "a.png", "width": 64, "height": 48},
        {"id": 6, "file_name": "b.png", "width": 10, "height": 20},
        {"id": 7, "file_name": "c.png", "width": 64, "height": 48},
    ]
    assert dataset["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "hat"}, {"id": 3, "name": "dog"}]
    assert [(a["id"], a["image_id"], a.get("category_id")) for a in dataset["annotations"]] == [
        (1, 5, 1), (2, 5, 2), (3, 5, 1), (4, 6, 2), (5, 6, 3), (6, 7, None),
    ]  # fmt: skip


def test_to_coco_of_no_results():
    assert to_coco([]) == {"images": [], "annotations": [], "categories": []}


def test_to_coco_refuses_another_number_of_file_names():
    with pytest.raises(ValueError, match=r"^2 results, but 1 file names$"):
        to_coco([DETECTION, DETECTION], ["a.png"])


def read_by_pycocotools(dataset: dict, monkeypatch) -> COCO:
    monkeypatch.setattr("builtins.print", lambda *args: None)
    coco = COCO()
    coco.dataset = json.loads(json.dumps(dataset))
    coco.createIndex()
    return coco


def test_pycocotools_reads_a_coco_dataset(monkeypatch):
    coco = read_by_pycocotools(to_coco([POLYGONS, QUADS], ["a.png", "b.png"]), monkeypatch)
    assert coco.getImgIds() == [1, 2]
    assert [coco.cats[i]["name"] for i in coco.getCatIds()] == ["a toy", "OPEN", "now"]
    for annotation in coco.loadAnns(coco.getAnnIds()):
        outlines = coco.annToRLE(annotation)
        # its masks also contain the pixels that the outlines touch
        assert coco_mask.area(outlines) == pytest.approx(annotation["area"], rel=0.15)
        np.testing.assert_allclose(coco_mask.toBbox(outlines), annotation["bbox"], atol=1.5)


def test_supervision_reads_a_coco_dataset(tmp_path):
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    (tmp_path / "coco.json").write_text(json.dumps(to_coco([DETECTION], ["a.png"], ["hat", "cat"])))
    dataset = sv.DetectionDataset.from_coco(str(tmp_path), str(tmp_path / "coco.json"))
    (_, _, detections) = dataset[0]
    assert dataset.classes == ["hat", "cat"]
    assert detections.xyxy.tolist() == DETECTION.boxes.tolist()
    assert detections.class_id.tolist() == [1, 0, 1]


# ---------------------------------------------------------------------- classes


def test_classes_fix_the_class_ids():
    classes = ["hat", "dog", "cat"]
    assert DETECTION.to_supervision(classes).class_id.tolist() == [2, 0, 2]
    dataset = DETECTION.to_coco(classes=classes)
    assert dataset["categories"] == [{"id": 1, "name": "hat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cat"}]
    assert [annotation["category_id"] for annotation in dataset["annotations"]] == [3, 1, 3]


def test_a_label_outside_the_classes_is_an_error():
    message = (
        "labels that are not in classes: 'hat'; select the others with result[np.isin(result.labels, classes)], "
        "or rename them with result.with_labels(…)"
    )
    for convert in (DETECTION.to_supervision, lambda classes: DETECTION.to_coco(classes=classes)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            convert(["cat"])


def test_the_error_names_the_first_five_labels_outside_the_classes():
    many = boxes(*((f"c{i}", 0, 0, 1, 1) for i in range(7)))
    with pytest.raises(ValueError, match=r"^labels that are not in classes: 'c1', 'c2', 'c3', 'c4', 'c5'; select"):
        many.to_supervision(["c0"])


# ---------------------------------------------------------------------- pandas


def test_to_dataframe_has_a_row_for_each_instance():
    expected = {"label": ["cat", "hat", "cat"], "score": [0.5, 0.25, 1.0]}
    expected |= {"x0": [1.0, 5, 20], "y0": [2.0, 6, 0], "x1": [11.0, 9, 60], "y1": [22.0, 9, 40]}
    pd.testing.assert_frame_equal(SCORED.to_dataframe(), pd.DataFrame(expected))
    assert list(DETECTION.to_dataframe()) == ["label", "x0", "y0", "x1", "y1"]


def test_to_dataframe_of_a_text_has_one_row():
    assert TEXT.to_dataframe().to_dict("list") == {"text": ["Four sheep."]}


def test_columns_keep_their_types_without_instances():
    table = SCORED[:0].to_dataframe()
    assert len(table) == 0
    assert table.dtypes.tolist() == SCORED.to_dataframe().dtypes.tolist()


# ---------------------------------------------------------------------- nothing found


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.result != "text"])
def test_nothing_found_is_empty_in_every_form(task):
    result = FlorenceTemplate().parse_text("", task, SIZE)
    assert (len(result), list(result), result.labels.shape, result.xyxy.shape) == (0, [], (0,), (0, 4))
    assert list(result.to_dataframe()) == ["label", "x0", "y0", "x1", "y1"]
    assert len(result.to_supervision()) == 0
    coco = result.to_coco()
    assert (coco["annotations"], coco["categories"], len(coco["images"])) == ([], [], 1)
    assert not any(result.to_dict()[task].values())
    assert "scores" not in result.to_dict()[task]
    assert replace(result, scores=np.zeros(0)).to_dict()[task]["scores"] == []
    assert len(result[:2]) == len(result[[]]) == len(result[np.zeros(0, bool)]) == 0


def test_masks_of_nothing_found_have_the_size_of_the_image():
    assert POLYGONS[:0].masks.shape == (0, 48, 64)
    assert POLYGONS[:0].masks.dtype == bool


# ---------------------------------------------------------------------- every result


@pytest.mark.parametrize("result", [TEXT, *WITH_INSTANCES], ids=lambda result: type(result).__name__)
def test_conversions_are_plain_data(result):
    for value in (result.to_dict(), result.to_coco()):
        assert json.loads(json.dumps(value)) == value


def test_a_result_with_its_image_shows_the_overlay_in_a_notebook(monkeypatch):
    image = Image.new("RGB", SIZE)
    result = replace(DETECTION, image=image)
    monkeypatch.setattr("florence_lab.visualization.overlay.to_png", lambda *args: args)
    assert result._repr_png_() == (image, result)
    assert DETECTION._repr_png_() is None


def test_importing_supervision_hides_its_warning_about_opencv(recwarn, monkeypatch):
    class Finder:
        def find_spec(self, name, *args):
            if name == "supervision":
                warnings.warn("OpenCV is missing", stacklevel=1)
                warnings.warn("something else", stacklevel=1)

    monkeypatch.delitem(sys.modules, "supervision")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    TEXT.to_supervision()
    assert [str(warning.message) for warning in recwarn if "something" in str(warning.message)] == ["something else"]
    assert not any("OpenCV" in str(warning.message) for warning in recwarn)
