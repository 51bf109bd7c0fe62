"""`florence-lab eval`: which examples a dataset's name selects."""

import json
import shutil

import pytest

from florence_lab.cli import main
from florence_lab.cli.evaluation import evaluate_dataset
from florence_lab.evaluation.suites import SCENE_METRIC_SUITES
from florence_lab.exceptions import DatasetError
from florence_lab.scenes import sample_path


@pytest.fixture
def rows(tmp_path):
    """A dataset of two rows in a file whose name begins with `scenes`."""
    shutil.copy(sample_path("sheep"), tmp_path / "sheep.png")
    lines = [
        {"query": "<CAPTION>", "response": "four sheep", "images": ["sheep.png"]},
        {"query": "<OCR>", "response": "HI", "images": ["sheep.png"]},
    ]
    path = tmp_path / "scenes_val.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_file_whose_name_begins_with_scenes_is_a_dataset(rows, small):
    """D4: any name that starts with `scenes` selected the suite of scenes."""
    evaluation = evaluate_dataset(lambda: small, str(rows), max_new_tokens=4)
    assert [example.prompt.task.token for example in evaluation.examples] == ["<CAPTION>", "<OCR>"]


def test_tasks_select_examples_of_a_dataset(rows, small):
    evaluation = evaluate_dataset(lambda: small, str(rows), ["<OCR>"], max_new_tokens=4)
    assert [example.prompt.task.token for example in evaluation.examples] == ["<OCR>"]


def test_tasks_without_an_example_are_an_error(rows, small):
    with pytest.raises(DatasetError, match="has no example of <OD>"):
        evaluate_dataset(lambda: small, str(rows), ["<OD>"])


def test_scenes_without_an_example_are_an_error_and_replace_no_earlier_result(tmp_path, capsys):
    (tmp_path / "answers.jsonl").write_text("earlier")
    assert main(["eval", "--dataset", "scenes:1", "--tasks", "REGION_TO_OCR", "--out", str(tmp_path)]) == 2
    assert "scenes:1 has no example of <REGION_TO_OCR>" in capsys.readouterr().err
    assert (tmp_path / "answers.jsonl").read_text() == "earlier"


def test_scenes_are_evaluated_with_the_metrics_that_know_them(small):
    evaluation = evaluate_dataset(lambda: small, "scenes:2", ["<CAPTION>"], max_new_tokens=4)
    assert len(evaluation.examples) == 2
    assert evaluation.metric_suites is SCENE_METRIC_SUITES


@pytest.mark.parametrize("dataset", ["scenes:0", "nowhere.jsonl", "#0"])
def test_an_invalid_dataset_fails_before_the_model_is_loaded(dataset):
    with pytest.raises((DatasetError, ValueError)):
        evaluate_dataset(pytest.fail, dataset)


def test_eval_prints_the_metrics_and_writes_the_predictions(small, tmp_path, capsys):
    options = ["--model_id_or_path", str(small.name), "--dataset", "scenes:1", "--tasks", "CAPTION", "--num_beams", "1"]
    assert main(["eval", *options, "--out", str(tmp_path / "out")]) == 0
    assert "<CAPTION>" in capsys.readouterr().out
    assert {"metrics.json", "answers.jsonl"} <= {path.name for path in (tmp_path / "out").iterdir()}
