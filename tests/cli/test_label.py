"""`florence-lab label`."""

import json

import pytest
from stand_in import draw_images

from florence_lab.cli import main


@pytest.fixture
def run_label(small, tmp_path):
    """Run `florence-lab label` with a small model on two images, and return the exit status."""
    draw_images(tmp_path / "images", 2)

    def run(*arguments, classes="cat", out=tmp_path / "data"):
        options = ["--classes", str(classes), "--out", str(out), "--model_id_or_path", small.name]
        fast = ["--strategy", "open_vocabulary", "--verify", "false", "--max_new_tokens", "12"]
        return main(["label", str(tmp_path / "images"), *options, *fast, *map(str, arguments)])

    return run


def test_the_summary_is_printed(run_label, tmp_path, capsys):
    assert run_label("--format", "voc", "--split", "0.5/0.5") == 0
    shown = capsys.readouterr().out
    assert "2 images (1 train, 1 val), 2 asked in this run" in shown
    assert str(tmp_path / "data") in shown
    assert (tmp_path / "data" / "ImageSets" / "Main" / "val.txt").exists()


def test_classes_are_a_file_or_names(run_label, tmp_path):
    (tmp_path / "classes.yaml").write_text("cat: a cat\ndog:\n")
    assert run_label(classes=tmp_path / "classes.yaml") == 0
    assert json.loads((tmp_path / "data" / "labels.json").read_text())["classes"] == ["cat", "dog"]
    assert run_label(out=tmp_path / "other") == 0
    assert json.loads((tmp_path / "other" / "labels.json").read_text())["classes"] == ["cat"]


def test_captions_text_attributes_and_review_are_options(run_label, tmp_path):
    options = ["--captions", "--ocr", "--attributes", "REGION_TO_CATEGORY", "--masks"]
    assert run_label(*options, "--review", "0.1", "0.9") == 0
    settings = json.loads((tmp_path / "data" / ".parts" / "settings.json").read_text())
    assert settings["tasks"] == ["<CAPTION>", "<OCR_WITH_REGION>", "<REGION_TO_CATEGORY>"]
    assert (settings["threshold"], settings["masks"]) == (0.1, "florence")


def test_unreadable_images_give_the_exit_status_of_infer(run_label, tmp_path, capsys):
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    assert run_label() == 2
    assert "unreadable images: 1" in capsys.readouterr().out
    assert len((tmp_path / "data" / "labels.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "0.5/0.6"], "sum up to 1"),
        (["--captions", "CAPTOIN"], "CAPTOIN"),
        (["--attributes", "<OD>"], "such as <REGION_TO_DESCRIPTION>, got <OD>"),
        (["--review", "0.9", "0.1"], "review"),
    ],
)
def test_an_error_is_one_line(run_label, capsys, arguments, message):
    assert run_label(*arguments) == 2
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 1
    assert message in shown[0]
