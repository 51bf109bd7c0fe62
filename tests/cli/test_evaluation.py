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


@pytest.fixture
def brief(small, monkeypatch):
    """`small` as the model of every command, with short answers."""
    monkeypatch.setattr(small.model.generation_config, "max_new_tokens", 6)
    monkeypatch.setattr(small.model.generation_config, "num_beams", 1)
    monkeypatch.setattr("florence_lab.predictor.load", lambda *args, **kwargs: small)


def test_a_file_whose_name_begins_with_scenes_is_a_dataset(rows, small):
    """D4: any name that starts with `scenes` selected the suite of scenes."""
    evaluation = evaluate_dataset(lambda: small, str(rows), max_new_tokens=4).evaluation
    assert [example.prompt.task.token for example in evaluation.examples] == ["<CAPTION>", "<OCR>"]


def test_tasks_select_examples_of_a_dataset(rows, small):
    evaluation = evaluate_dataset(lambda: small, str(rows), ["<OCR>"], max_new_tokens=4).evaluation
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
    evaluation = evaluate_dataset(lambda: small, "scenes:2", ["<CAPTION>"], max_new_tokens=4).evaluation
    assert len(evaluation.examples) == 2
    assert evaluation.metric_suites is SCENE_METRIC_SUITES


@pytest.mark.parametrize("dataset", ["scenes:0", "nowhere.jsonl", "#0"])
def test_an_invalid_dataset_fails_before_the_model_is_loaded(dataset):
    with pytest.raises((DatasetError, ValueError)):
        evaluate_dataset(pytest.fail, dataset)


def test_eval_prints_the_metrics_and_writes_the_predictions(brief, tmp_path, capsys):
    options = ["--dataset", "scenes:1", "--tasks", "CAPTION", "--num_beams", "1"]
    assert main(["eval", *options, "--out", str(tmp_path / "out")]) == 0
    assert "<CAPTION>" in capsys.readouterr().out
    assert {"metrics.json", "answers.jsonl"} <= {path.name for path in (tmp_path / "out").iterdir()}


# absent things


@pytest.fixture
def coco(tmp_path):
    """A COCO file of two images with a dog and a cat."""
    images, annotations = [], []
    for id_ in (1, 2):
        shutil.copy(sample_path("sheep"), tmp_path / f"{id_}.png")
        images.append({"id": id_, "file_name": f"{id_}.png"})
        annotations.append({"id": id_, "image_id": id_, "category_id": id_, "bbox": [20, 10, 100, 50]})
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return f"coco:{path}"


def run_absence(folder, *options):
    """Run the command with questions about absent things, and return what it wrote."""
    assert main(["eval", "--out", str(folder), *options]) == 0
    assert {"metrics.json", "answers.jsonl", "absence.json", "absence.jsonl", "roc.png"} <= {
        path.name for path in folder.iterdir()
    }
    rows = [json.loads(line) for line in (folder / "absence.jsonl").open()]
    return json.loads((folder / "absence.json").read_text())["metrics"], rows


def test_absent_things_are_asked_for_in_scenes(brief, tmp_path, capsys):
    options = ["--dataset", "scenes:3", "--tasks", "CAPTION", "OPEN_VOCABULARY_DETECTION"]
    metrics, rows = run_absence(tmp_path / "out", *options, "--absence")
    assert [row["strategy"] for row in metrics] == ["random", "popular", "adversarial"]
    assert {row["image"] for row in rows} == {"0", "1", "2"}
    assert {row["task"] for row in rows} == {"<OPEN_VOCABULARY_DETECTION>"}
    printed = capsys.readouterr().out
    assert "object_accuracy" in printed
    assert "adversarial" in printed


def test_absent_things_are_asked_for_in_a_coco_file(brief, coco, tmp_path):
    metrics, rows = run_absence(tmp_path / "out", "--dataset", coco, "--absence", "rocket")
    assert {row["strategy"] for row in metrics} == {"random", "popular", "adversarial", "names"}
    assert len({row["task"] for row in rows}) == 3
    assert {(row["name"], row["is_present"]) for row in rows if row["image"].endswith("1.png")} == {
        ("dog", True),
        ("cat", False),
        ("rocket", False),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "ROWS", "--absence"], "no boxes with labels"),
        (["--dataset", "COCO#1", "--absence"], "lacks any of the 1 names"),
    ],
)
def test_a_dataset_without_absent_things_is_refused_before_the_model_answers(
    options, message, rows, coco, brief, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("florence_lab.evaluation.evaluator.predict_examples", pytest.fail)
    options = [option.replace("ROWS", str(rows)).replace("COCO", coco) for option in options]
    assert main(["eval", *options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
