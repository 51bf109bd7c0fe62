"""Predictions as rows of a file."""

import json
from dataclasses import replace

import numpy as np
import pytest

from florence_lab.data.examples import Example, SceneReference
from florence_lab.evaluation import Prediction
from florence_lab.exceptions import DatasetError, ImageError
from florence_lab.results import Instances
from florence_lab.template.prompts import build_prompt
from florence_lab.template.template import FlorenceTemplate


def test_a_row_is_read_as_it_was_written():
    row = Prediction(
        source="rows.jsonl, row 1", image="a.png", task="<OD>", response="cat<loc_0>", target="cat", score=0.5
    )
    assert Prediction.from_json(json.loads(json.dumps(row.to_json()))) == row


ANSWERS = {
    "<OD>": "cat<loc_0><loc_0><loc_500><loc_500><loc_10><loc_10><loc_90><loc_90>dog<loc_5><loc_5><loc_9><loc_9>",
    "<CAPTION>": "a cat",
    "<REFERRING_EXPRESSION_SEGMENTATION>a cat": "<poly><loc_0><loc_0><loc_500><loc_0><loc_500><loc_500></poly>",
    "<OPEN_VOCABULARY_DETECTION>a cat": "a cat<loc_0><loc_0><loc_500><loc_500>",
    "<OCR_WITH_REGION>": "STOP<loc_0><loc_0><loc_500><loc_0><loc_500><loc_90><loc_0><loc_90>",
    "What is it?": "a cat",
}


@pytest.mark.parametrize("query", ANSWERS)
def test_the_result_of_a_row_is_that_of_the_model(query):
    prompt = build_prompt(query)
    result = FlorenceTemplate().parse_text(ANSWERS[query], prompt, (64, 48))
    if isinstance(result, Instances):
        assert len(result)
        result = replace(result, scores=np.linspace(0.2, 0.9, len(result)))
    row = Prediction.from_outcome(Example("a.png", prompt, "", "row 1", (64, 48)), result)
    read = Prediction.from_json(json.loads(json.dumps(row.to_json()))).to_result()
    assert (type(read), read.to_dict(), read.image_size) == (type(result), result.to_dict(), (64, 48))


@pytest.mark.parametrize("row", [Prediction(task="<OD>", error="gone"), Prediction(task="<OD>", response="cat")])
def test_a_row_without_result_or_size_has_no_result(row):
    with pytest.raises(DatasetError, match="has no result"):
        row.to_result()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (  # florence-lab infer --val_dataset
            {"source": "rows.jsonl, row 1", "query": "<OD>", "response": "r", "label": "t", "result": {"<OD>": {}}},
            Prediction(source="rows.jsonl, row 1", task="<OD>", response="r", target="t", result={"<OD>": {}}),
        ),
        (  # florence-lab eval
            {"image": "0", "task": "<CAPTION>", "text": None, "answer": "r", "truth": "t", "agreement": 0.25},
            Prediction(image="0", task="<CAPTION>", response="r", target="t", score=0.25),
        ),
        (  # florence-lab infer
            {"query": "<CAPTION_TO_PHRASE_GROUNDING>a cat", "image": "a.png", "response": "r", "result": {}},
            Prediction(image="a.png", task="<CAPTION_TO_PHRASE_GROUNDING>", text="a cat", response="r", result={}),
        ),
        (  # a free-form question
            {"query": "What is it?", "image": "a.png", "response": "r", "result": {}},
            Prediction(image="a.png", text="What is it?", response="r", result={}),
        ),
    ],
)
def test_rows_of_earlier_versions_are_read(row, expected):
    assert Prediction.from_json(row) == expected


def test_rows_contain_the_keys_of_earlier_versions():
    row = Prediction(task="<OD>", text="", response="r", target="t", score=0.5).to_json()
    assert {"source", "query", "response", "label", "result"} <= row.keys()
    assert {"image", "task", "text", "answer", "truth", "agreement"} <= row.keys()
    assert (row["query"], row["answer"], row["label"], row["truth"], row["agreement"]) == ("<OD>", "r", "t", "t", 0.5)


def test_a_row_of_something_else_is_refused():
    with pytest.raises(ValueError, match="expected a row with 'task' or 'query', got the keys 'step'"):
        Prediction.from_json({"step": 1})


@pytest.mark.parametrize(("image", "name"), [("a/b.png", "a/b.png"), (SceneReference(3, 64), "3"), (b"bytes", "")])
def test_a_prediction_names_its_image(image, name):
    example = Example(image, build_prompt("<CAPTION>"), "", "", (64, 64))
    assert Prediction.from_outcome(example, ImageError("broken")).image == name
