"""The files of answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from florence_lab import ArgumentError
from florence_lab.results import Boxes, Text
from florence_lab.viewer.files import draw_results, file_choices, make_file

IMAGE = Image.new("RGB", (64, 48), "green")


def boxes(labels, **fields):
    coordinates = [[1 + i, 2, 30 + i, 40] for i in range(len(labels))]
    return Boxes(raw="r", image_size=IMAGE.size, task="<OD>", image=IMAGE, labels=labels, boxes=coordinates, **fields)


BOXES = boxes(["a", "b"], scores=[0.5, 0.7])
TEXT = Text(raw="two", text="two", image_size=IMAGE.size, task="<CAPTION>", image=IMAGE)
DRAWINGS = ["png", "svg", "pdf"]


@pytest.mark.parametrize(
    ("results", "names", "ids"),
    [
        ([], [], []),
        ([BOXES], [], [*DRAWINGS, "json", "coco"]),
        ([TEXT], ["m"], [*DRAWINGS, "json", "coco"]),
        ([BOXES, BOXES], ["A", "B"], [*DRAWINGS, "json", "coco-0", "coco-1"]),
        ([TEXT, BOXES], ["m", "m"], [*DRAWINGS, "json"]),  # two tasks of one model
        ([TEXT, BOXES, BOXES], [], [*DRAWINGS, "json"]),
    ],
)
def test_every_file_that_is_offered_can_be_made(results, names, ids):
    choices = file_choices(results, names)
    assert [choice["id"] for choice in choices] == ids
    assert all(choice["label"] for choice in choices)
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for file_id in ids:
        file = make_file(file_id, results, stem="sheep-OD", image_name="sheep", models=names)
        assert file.name.startswith("sheep-OD")
        assert file.content.startswith(starts.get(file_id, b"{"))


@pytest.mark.parametrize("file_id", ["exe", "coco-2", "coco--1", "coco-x", "coco-", ""])
def test_another_file_is_refused_by_its_name(file_id):
    with pytest.raises(ArgumentError, match=repr(file_id)):
        make_file(file_id, [BOXES, BOXES], stem="x")


def content(file_id, results, **settings):
    return json.loads(make_file(file_id, results, stem="x", image_name="sheep", **settings).content)


def test_the_json_names_the_image_the_model_and_what_was_asked():
    assert content("json", [BOXES], models=["m"]) == {
        "model": "m",
        "image": {"name": "sheep", "size": [64, 48]},
        "task": "<OD>",
        "phrase": "",
        "prompt": "",
        "raw": "r",
        "result": BOXES.to_dict(),
    }


@pytest.mark.parametrize(
    ("models", "of_answers"), [([], [None, None]), (["m"], [None, None]), (["A", "B"], ["A", "B"])]
)
def test_the_json_of_several_results_lists_their_answers(models, of_answers):
    saved = content("json", [TEXT, BOXES], models=models)
    assert [answer["task"] for answer in saved["answers"]] == ["<CAPTION>", "<OD>"]
    assert [answer.get("model") for answer in saved["answers"]] == of_answers
    assert saved.get("model") == ("m" if models == ["m"] else None)


def test_coco_annotations_are_those_of_the_result_that_was_chosen():
    assert content("coco", [BOXES]) == BOXES.to_coco(file_name="sheep")
    assert content("coco-1", [TEXT, BOXES], models=["A", "B"]) == BOXES.to_coco(file_name="sheep")


def test_compared_results_are_titled_with_their_names_and_equal_labels_have_one_color():
    compared = [boxes(["a", "b"]), boxes(["b"])]
    figure = draw_results(compared, ["prediction", "ground truth"])
    assert [text.get_text() for text in figure.texts] == ["prediction", "ground truth"]
    colors = [
        {text.get_text(): text.get_bbox_patch().get_facecolor() for text in ax.texts if text.get_bbox_patch()}
        for ax in figure.axes
    ]
    assert colors[0]["b"] == colors[1]["b"] != colors[0]["a"]


def test_results_without_instances_can_be_compared():
    empty = replace(BOXES, labels=[], boxes=np.zeros((0, 4)), scores=np.zeros(0))
    assert len(draw_results([empty, TEXT], ["A", "B"]).axes) == 2
