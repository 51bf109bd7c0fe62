"""Predictions as rows of a file, and the prediction of datasets."""

import copy
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from florence_lab.cli import main
from florence_lab.data.examples import Example, SceneReference
from florence_lab.evaluation import Prediction, predict_dataset, read_predictions
from florence_lab.evaluation.predictions import predict_examples, write_predictions
from florence_lab.exceptions import ArgumentError, DatasetError, ImageError, PromptError
from florence_lab.predictor import Predictor, load
from florence_lab.results import Instances, Text
from florence_lab.template.prompts import build_prompt
from florence_lab.template.template import FlorenceTemplate

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


@pytest.mark.parametrize("text", ["a\u2028b", "a\u2029b", "a\u0085b", "a\x0bb\x0cc\x1cd", "\r\n", "\udcff", "é 猫 🙂"])
def test_any_character_survives_in_a_file(tmp_path, text):
    rows = [Prediction(source="s", task="<OCR>", response=text, image=text), Prediction(source="t", text=text)]
    write_predictions(tmp_path / "answers.jsonl", rows)
    assert read_predictions(tmp_path / "answers.jsonl") == rows
    assert (tmp_path / "answers.jsonl").read_bytes().decode("utf-8").count("\n") == 2


WHOLE_ROW = json.dumps({"source": "s", "task": "<OCR>", "response": "é"}, ensure_ascii=False).encode() + b"\n"


@pytest.mark.parametrize(
    "torn", [WHOLE_ROW[:-2], WHOLE_ROW[:-4], WHOLE_ROW[:3], b"{", b"\0" * 9, WHOLE_ROW[:9] + b"\0\0"]
)
def test_the_last_line_of_an_interrupted_run_is_dropped(tmp_path, torn, caplog):
    """A kill may come in the middle of a character; after a power failure a file system may leave zeros."""
    path = tmp_path / "answers.jsonl"
    path.write_bytes(WHOLE_ROW + torn)
    with caplog.at_level(logging.WARNING):
        assert [row.source for row in read_predictions(path)] == ["s"]
    assert "the last line is incomplete" in caplog.text
    write_predictions(path, [Prediction(source="t", task="<OCR>")])
    assert [row.source for row in read_predictions(path)] == ["s", "t"]


def test_a_complete_last_line_needs_no_end(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE_ROW.strip() + b"\r\n\r\n" + WHOLE_ROW.strip())
    assert len(read_predictions(path)) == 2
    write_predictions(path, [Prediction(source="t", task="<OCR>")])
    assert [row.source for row in read_predictions(path)] == ["s", "s", "t"]


@pytest.mark.parametrize(
    "line",
    [
        b"5",
        b"{}",
        b"null",
        b"[1]",
        b"junk",
        b"\0\0\0",
        b"\xff",
        b'{"task": 5}',
        b'{"query": ["<OD>"]}',
        b'{"query": "<CAPTOIN>"}',
        b'{"task": "<OD>", "result": 5}',
        b'{"task": "<OD>", "score": "high"}',
        b'{"task": "<OD>", "source": 5}',
        b"[" * 100_000,
    ],
    ids=lambda line: line[:30].decode("latin1"),
)
def test_a_line_of_something_else_is_named(tmp_path, line):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(WHOLE_ROW + line + b"\n" + WHOLE_ROW)
    with pytest.raises(DatasetError, match=r"answers\.jsonl, line 2 is not a prediction: "):
        read_predictions(path)


@pytest.mark.parametrize("name", ["missing.jsonl", ""])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_predictions(f"{tmp_path}/{name}")


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


@pytest.fixture
def predicted(small, monkeypatch):
    """Start a list of the prompts that the model answers."""
    queries = []
    predict_batch = small.predict_batch

    def record(images, task, texts, *args, **kwargs):
        queries.extend(task + text for text in texts)
        return predict_batch(images, task, texts, *args, **kwargs)

    monkeypatch.setattr(small, "predict_batch", record)
    return queries


def test_model_settings_and_images_are_recorded(small, dataset, tmp_path):
    path = predict_dataset(small, [str(dataset)], tmp_path / "out", **SHORT)
    settings = json.loads((tmp_path / "out/answers.settings.json").read_text())
    assert (settings["model"], settings["dtype"], settings["adapter"]) == (small.name, "float32", False)
    assert settings["generation"]["max_new_tokens"] == 4
    digests = [row.image_digest for row in read_predictions(path)]
    assert digests[0] == digests[1] != digests[2] != ""
    assert [row.truncated for row in read_predictions(path)] == [True] * 3


def other_weights(predictor):
    model = copy.deepcopy(predictor.model)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.01)
    return Predictor(model, predictor.processor, predictor.name)


@pytest.mark.parametrize(
    ("change", "kwargs", "message"),
    [
        (lambda small: small, {"max_new_tokens": 5}, "max_new_tokens 4 instead of 5"),
        (lambda small: small, {"max_new_tokens": 4, "num_beams": 1}, "num_beams .* instead of 1"),
        (other_weights, SHORT, r"model .* \([0-9a-f]{16}\) instead of .* \([0-9a-f]{16}\)"),
        (lambda small: load(small.name, "cpu", "bf16"), SHORT, "dtype float32 instead of bfloat16"),
    ],
    ids=["length", "beams", "weights", "dtype"],
)
def test_answers_of_another_model_or_other_settings_are_not_mixed(small, dataset, tmp_path, change, kwargs, message):
    path = predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    before = path.read_bytes()
    with pytest.raises(
        ArgumentError, match=f"was made with other settings: (early_stopping True instead of False, )?{message}; "
    ):
        predict_dataset(change(small), [str(dataset)], tmp_path, **kwargs)
    assert path.read_bytes() == before


def test_the_same_weights_by_another_name_go_on(small, dataset, tmp_path, predicted):
    predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    predicted.clear()
    predict_dataset(Predictor(small.model, small.processor, "another name"), [str(dataset)], tmp_path, **SHORT)
    assert predicted == []


def test_what_has_changed_is_answered_anew(small, dataset, tmp_path, predicted):
    path = predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    first = read_predictions(path)
    rows = [json.loads(line) for line in dataset.read_text().splitlines()]
    rows[0]["response"] = "another target"
    rows[1]["query"] = "<CAPTION_TO_PHRASE_GROUNDING>another phrase"
    dataset.write_text("".join(json.dumps(row) + "\n" for row in rows))
    predicted.clear()
    predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    assert predicted == ["<CAPTION>", "<CAPTION_TO_PHRASE_GROUNDING>another phrase"]
    second = read_predictions(path)
    assert second[0] == first[2]
    assert sorted(row.source for row in second) == sorted(row.source for row in first)
    assert {row.target for row in second} == {"another target", ""}


def test_an_exchanged_image_is_answered_anew(small, dataset, tmp_path, predicted):
    path = predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    Image.new("RGB", (32, 32), "green").save(tmp_path / "b.png")
    predicted.clear()
    predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    assert predicted == ["What is it?"]
    assert len(read_predictions(path)) == 3


def test_rows_of_other_datasets_in_the_folder_are_kept(small, dataset, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"query": "<OD>", "images": ["a.png"]}) + "\n")
    for file in (dataset, other, dataset):
        path = predict_dataset(small, [str(file)], tmp_path, **SHORT)
    assert len(read_predictions(path)) == 4


def test_a_row_that_occurs_twice_has_two_answers(small, dataset, tmp_path, predicted):
    rows = dataset.read_text().splitlines(keepends=True)
    dataset.write_text(rows[2])
    twice = [str(dataset), str(dataset)]
    path = predict_dataset(small, twice, tmp_path, **SHORT)
    assert len(read_predictions(path)) == 2
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    predicted.clear()
    predict_dataset(small, twice, tmp_path, **SHORT)
    assert (len(predicted), len(read_predictions(path))) == (1, 2)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("answers.jsonl", '{"query": "<OD>", "image": "a.png", "response": {"p": "r"}}\n', "row 1 .* has no 'source'"),
        ("answers.jsonl", "5\n", "line 1 is not a prediction"),
        ("answers.settings.json", "{", "answers.settings.json cannot be read"),
        ("answers.settings.json", "5", "answers.settings.json must be a JSON object"),
    ],
)
def test_a_folder_with_other_files_is_refused(small, dataset, tmp_path, predicted, file, content, message):
    path = predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    (tmp_path / file).write_text(content)
    before = path.read_bytes()
    predicted.clear()
    with pytest.raises(DatasetError, match=message):
        predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    assert (predicted, path.read_bytes()) == ([], before)


def test_an_earlier_file_is_resumed_with_a_message(small, dataset, tmp_path, caplog):
    path = predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    (tmp_path / "answers.settings.json").unlink()
    with caplog.at_level(logging.WARNING):
        predict_dataset(small, [str(dataset)], tmp_path, **SHORT)
    assert f"{path} is of an earlier version, which did not record the model" in caplog.text
    assert not (tmp_path / "answers.settings.json").exists()


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
