"""`florence-lab infer --constrain`, `--allowed_labels` and `--allowed_characters`."""

import json

import pytest
from support import PHOTO

from florence_lab.cli import main

LENGTH = ("--num_beams", 1, "--max_new_tokens", 30)


def answers(folder):
    return [json.loads(line)["result"] for line in (folder / "answers.jsonl").read_text("utf-8").splitlines()]


def test_labels_are_those_of_the_option(infer, tmp_path):
    query = ("--query", "<OD>", "--images", PHOTO, "--result_dir", tmp_path)
    assert infer(*LENGTH, *query, "--allowed_labels", "cat,red dog") == 0
    (answer,) = answers(tmp_path)
    assert answer["<OD>"]["labels"]
    assert set(answer["<OD>"]["labels"]) <= {"cat", "red dog"}


@pytest.mark.parametrize("flag", [["--constrain"], ["--constrain", "true"], ["--constrain", "--stream", "true"]])
def test_boxes_are_whole_with_the_flag(infer, tmp_path, flag):
    query = ("--query", "<REGION_PROPOSAL>", "--images", PHOTO, "--result_dir", tmp_path)
    assert infer(*LENGTH, *query, *flag) == 0
    (answer,) = answers(tmp_path)
    assert answer["<REGION_PROPOSAL>"]["bboxes"]  # without the flag, these weights answer with text


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        ("<OD>", ["--constrain", "maybe"], "argument --constrain: expected true or false, got 'maybe'"),
        ("<OD>", ["--allowed_labels", "cat,"], "allowed_labels must be texts, got ''"),
        ("<OD>", ["--allowed_labels", "<loc_5>"], "<loc_5>"),
        ("<OD>", ["--allowed_labels", "cat", "--constrain", "false"], "leave constrain=False out"),
        ("<OD>", ["--allowed_characters", "0123"], "allowed_characters cannot restrict <OD>"),
        ("<REGION_PROPOSAL>", ["--allowed_labels", "cat"], "allowed_labels cannot restrict <REGION_PROPOSAL>"),
        ("<OCR>", ["--allowed_characters", "a", "--allowed_labels", "a"], "give one of them"),
    ],
)
def test_what_cannot_be_is_refused_before_the_model_is_loaded(monkeypatch, capsys, query, options, message):
    monkeypatch.setattr("florence_lab.predictor.load", None)
    try:
        status = main(["infer", "--query", query, "--images", str(PHOTO), *options])
    except SystemExit as error:  # of argparse
        status = error.code
    assert status == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
