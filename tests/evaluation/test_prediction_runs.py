"""The prediction of examples and of whole datasets."""

import copy
import json
import logging

import pytest
import torch
from PIL import Image

from florence_lab.cli import main
from florence_lab.evaluation import predict_dataset, read_predictions
from florence_lab.evaluation.prediction_runs import predict_examples
from florence_lab.exceptions import ArgumentError, DatasetError, ImageError, PromptError
from florence_lab.predictor import Predictor, load
from florence_lab.results import Text

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


def test_images_and_prompts_that_fail_yield_their_exception(small, make_example):
    examples = [
        make_example("<CAPTION>", image="missing.png"),
        make_example("<CAPTION>"),
        make_example("<CAPTION_TO_PHRASE_GROUNDING>" + "a sheep " * 1000),
        make_example("What is it?"),
    ]
    outcomes = predict_examples(small, examples, **SHORT)
    assert [type(outcome) for outcome in outcomes] == [ImageError, Text, PromptError, Text]


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
