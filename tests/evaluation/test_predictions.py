"""Predictions as rows of a file, and the prediction of datasets."""

import json

import pytest
from PIL import Image

from florence_lab.cli import main
from florence_lab.data.examples import Example, SceneReference
from florence_lab.evaluation import Prediction, predict_dataset, read_predictions
from florence_lab.evaluation.predictions import predict_examples
from florence_lab.exceptions import DatasetError, ImageError, PromptError
from florence_lab.results import Text
from florence_lab.template.prompts import build_prompt

SHORT = {"max_new_tokens": 4}


@pytest.fixture
def dataset(tmp_path):
    """A file of three rows about two images: a task, a task with a phrase, and a free-form question."""
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (32, 32), color).save(tmp_path / name)
    rows = [
        {"query": "<CAPTION>", "response": "a red square", "images": ["a.png"]},
        {"query": "<CAPTION_TO_PHRASE_GROUNDING>a square", "images": ["a.png"]},
        {"query": "What is it?", "images": ["b.png"]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# the record


def test_a_row_is_read_as_it_was_written():
    row = Prediction(
        source="rows.jsonl, row 1", image="a.png", task="<OD>", response="cat<loc_0>", target="cat", score=0.5
    )
    assert Prediction.from_json(json.loads(json.dumps(row.to_json()))) == row


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


# batches of examples


def test_images_and_prompts_that_fail_yield_their_exception(small, make_example):
    examples = [
        make_example("<CAPTION>", image="missing.png"),
        make_example("<CAPTION>"),
        make_example("<CAPTION_TO_PHRASE_GROUNDING>" + "a sheep " * 1000),
        make_example("What is it?"),
    ]
    outcomes = predict_examples(small, examples, **SHORT)
    assert [type(outcome) for outcome in outcomes] == [ImageError, Text, PromptError, Text]


# datasets


def test_all_rows_of_a_dataset_are_predicted_in_order(small, dataset, tmp_path):
    rows = read_predictions(predict_dataset(small, [str(dataset)], tmp_path / "out", **SHORT))
    assert [row.query for row in rows] == ["<CAPTION>", "<CAPTION_TO_PHRASE_GROUNDING>a square", "What is it?"]
    assert [row.target for row in rows] == ["a red square", "", ""]
    assert [row.image for row in rows] == [str(tmp_path / name) for name in ("a.png", "a.png", "b.png")]
    assert rows[0].result == small.predict(tmp_path / "a.png", "<CAPTION>", **SHORT).to_dict()


def test_an_interrupted_prediction_resumes(small, dataset, tmp_path, monkeypatch):
    path = predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    complete = read_predictions(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:20])
    predicted = []
    predict_batch = small.predict_batch

    def record(images, task, *args, **kwargs):
        predicted.append(task)
        return predict_batch(images, task, *args, **kwargs)

    monkeypatch.setattr(small, "predict_batch", record)
    predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    assert predicted == ["<CAPTION_TO_PHRASE_GROUNDING>", ""]
    assert [(r.source, r.query, r.response) for r in read_predictions(path)] == [
        (r.source, r.query, r.response) for r in complete
    ]


def test_a_file_of_an_earlier_version_is_resumed(small, dataset, tmp_path):
    path = predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    earlier = [{key: row[key] for key in ("source", "query", "response", "label", "result")} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in earlier))
    before = path.read_bytes()
    predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    assert path.read_bytes() == before


def test_a_registered_task_is_predicted(small, dataset, tmp_path, sixteenth_task):
    dataset.write_text(json.dumps({"query": "<COUNT_BOXES>cars", "images": ["a.png"]}) + "\n")
    row = read_predictions(predict_dataset(small, [str(dataset)], tmp_path, **SHORT))[0]
    assert (row.task, row.text) == ("<COUNT_BOXES>", "cars")
    assert row.result is not None


def test_invalid_rows_are_refused_before_the_model_runs(small, dataset, tmp_path):
    dataset.write_text(json.dumps({"query": "<CAPTION>", "images": ["missing.png"]}) + "\n")
    with pytest.raises(DatasetError, match="1 invalid rows"):
        predict_dataset(small, [str(dataset)], tmp_path)
    assert not (tmp_path / "answers.jsonl").exists()


def test_a_batch_size_below_one_is_refused(small, dataset, tmp_path):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        predict_dataset(small, [str(dataset)], tmp_path, batch_size=0)


def test_the_command_predicts_a_dataset(dataset, tmp_path, capsys):
    assert main(["infer", "--val_dataset", str(dataset), "--result_dir", str(tmp_path / "out")]) == 0
    path = tmp_path / "out" / "answers.jsonl"
    assert capsys.readouterr().out.strip() == str(path)
    assert len(read_predictions(path)) == 3
