"""Running a published benchmark: the cache, the files written, the table, and the command."""

import json
import logging
from dataclasses import replace

import pytest
import suite_files
from PIL import Image

from florence_lab.cli import main
from florence_lab.evaluation import read_predictions
from florence_lab.evaluation.settings import settings_path
from florence_lab.evaluation.suites import evaluate_suite
from florence_lab.evaluation.suites import run as module
from florence_lab.evaluation.suites.run import choose_questions
from florence_lab.exceptions import ArgumentError, DatasetError

SHORT = {"max_new_tokens": 6, "num_beams": 1}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The tiny benchmarks that need no Java."""
    names = ("coco-detection", "flickr30k", "refcoco", "res", "vqav2", "docvqa")
    return {name: suite_files.WRITERS[name](tmp_path_factory.mktemp(name)) for name in names}


@pytest.fixture
def asked(monkeypatch):
    """The keys of the questions that the model was asked."""
    keys = []
    predict = module.predict_examples

    def record(predictor, examples, *args, **kwargs):
        keys.extend(example.source for example in examples)
        return predict(predictor, examples, *args, **kwargs)

    monkeypatch.setattr(module, "predict_examples", record)
    return keys


@pytest.mark.parametrize("name", ["coco-detection", "flickr30k", "refcoco", "res", "vqav2", "docvqa"])
def test_a_benchmark_runs_and_writes_what_the_official_scorer_takes(small, roots, name, tmp_path):
    evaluation = evaluate_suite(small, name, roots[name], tmp_path, **SHORT)
    assert len(evaluation.answers) == len(evaluation.data.questions) == evaluation.num_questions
    folder = evaluation.save()
    assert isinstance(json.loads((folder / "submission.json").read_text()), list)
    written = json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert written["suite"] == name
    assert evaluation.suite.main_metric in written["metrics"]
    assert evaluation.suite.main_metric in evaluation.to_text()


def test_the_questions_are_asked_by_the_documented_settings(small, roots, tmp_path):
    settings = evaluate_suite(small, "vqav2", roots["vqav2"], tmp_path, limit=1, max_new_tokens=2).settings
    assert settings["generation"]["num_beams"] == 3
    assert settings["task"] == "<VQA>"


def test_an_interrupted_run_resumes(small, roots, tmp_path, asked, monkeypatch):
    write = module.write_predictions

    def fail_later(path, rows):
        write(path, rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_predictions", fail_later)
    with pytest.raises(KeyboardInterrupt):
        evaluate_suite(small, "coco-detection", roots["coco-detection"], tmp_path, batch_size=2, **SHORT)
    monkeypatch.setattr(module, "write_predictions", write)
    evaluate_suite(small, "coco-detection", roots["coco-detection"], tmp_path, batch_size=2, **SHORT)
    assert sorted(asked) == [f"image {i}" for i in (100, 96, 97, 98, 99)]  # each once


def test_answers_from_the_cache_are_those_of_the_model(small, roots, tmp_path, asked):
    first, second = (evaluate_suite(small, "flickr30k", roots["flickr30k"], tmp_path, **SHORT) for _ in range(2))
    assert len(asked) == 3
    for a, b in zip(first.answers, second.answers, strict=True):
        assert (a.to_dict(), a.image_size, a.task) == (b.to_dict(), b.image_size, b.task)
        if len(a):
            assert a.scores.tolist() == b.scores.tolist()


def test_other_settings_have_another_folder(small, roots, tmp_path, asked):
    for options in (SHORT, SHORT | {"num_beams": 2}, SHORT):
        evaluate_suite(small, "vqav2", roots["vqav2"], tmp_path, **options)
    evaluate_suite(small, "vqav2", roots["vqav2"], tmp_path, task="<DocVQA>", **SHORT)
    assert len(list((tmp_path / "vqav2-val").iterdir())) == 3
    assert len(asked) == 9


def test_a_larger_limit_asks_only_what_is_missing(small, roots, tmp_path, asked):
    for limit in (2, 4, None):
        evaluation = evaluate_suite(small, "coco-detection", roots["coco-detection"], tmp_path, limit=limit, **SHORT)
        assert len(evaluation.data.questions) == limit or limit is None
    assert len(asked) == len(set(asked)) == 5


def test_a_choice_contains_the_smaller_ones():
    questions = list(range(100))
    assert set(choose_questions(questions, 10)) < set(choose_questions(questions, 20))
    assert choose_questions(questions, 20) == sorted(choose_questions(questions, 20))


def test_a_damaged_image_counts_as_answered_by_nothing_and_is_asked_again(small, tmp_path, asked, caplog):
    root = suite_files.coco_detection(tmp_path / "root")
    path = root / "val2017" / f"{98:012d}.jpg"
    intact = path.read_bytes()
    path.write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        evaluation = evaluate_suite(small, "coco-detection", root, tmp_path / "out", **SHORT)
    assert list(evaluation.errors) == ["image 98"]
    assert "1 questions without answer count as wrong; the first is image 98" in evaluation.to_text()
    path.write_bytes(intact)
    assert not evaluate_suite(small, "coco-detection", root, tmp_path / "out", **SHORT).errors
    assert len(asked) == 6


def test_an_image_of_another_size_is_an_error(small, tmp_path):
    root = suite_files.coco_detection(tmp_path / "root")
    Image.new("RGB", (32, 24)).save(root / "val2017" / f"{98:012d}.jpg")
    evaluation = evaluate_suite(small, "coco-detection", root, tmp_path / "out", **SHORT)
    assert evaluation.errors == {"image 98": "the annotations state 64 x 48 pixels, but the image has 32 x 24"}


def test_missing_images_are_named_before_the_model_runs(small, tmp_path, asked):
    root = suite_files.coco_detection(tmp_path / "root")
    (root / "val2017" / f"{98:012d}.jpg").unlink()
    with pytest.raises(DatasetError, match=r"1 of 5 images.*000000000098\.jpg.*images\.cocodataset\.org"):
        evaluate_suite(small, "coco-detection", root, tmp_path / "out", **SHORT)
    assert asked == []


def test_the_table_has_the_model_card_beside_our_number(small, roots, tmp_path):
    evaluation = evaluate_suite(small, "refcoco", roots["refcoco"], tmp_path, **SHORT)
    evaluation = replace(evaluation, model_name="microsoft/Florence-2-base")
    row = evaluation.to_dataframe().iloc[0]
    assert (row.metric, row.model_card) == ("accuracy@0.5", 53.9)
    assert row.difference == pytest.approx(row.value - 53.9)
    assert "model_card" in evaluation.to_text()
    assert json.loads((evaluation.save() / "metrics.json").read_text())["model_card"]["value"] == 53.9


def test_two_runs_are_compared_on_the_same_questions(small, roots, tmp_path):
    run = evaluate_suite(small, "coco-detection", roots["coco-detection"], tmp_path, **SHORT)
    assert run.compare(run)["AP"].value == 0
    part = evaluate_suite(small, "coco-detection", roots["coco-detection"], tmp_path, limit=2, **SHORT)
    with pytest.raises(ArgumentError, match="same questions"):
        run.compare(part)


def test_rows_of_the_cache_are_predictions(small, roots, tmp_path):
    evaluation = evaluate_suite(small, "vqav2", roots["vqav2"], tmp_path, **SHORT)
    rows = read_predictions(evaluation.folder / "answers.jsonl")
    assert (rows[0].source, rows[0].query) == ("question 9000", "<VQA>How many dogs are there?")


def test_answers_without_their_settings_are_kept_and_refused(small, roots, tmp_path):
    evaluation = evaluate_suite(small, "vqav2", roots["vqav2"], tmp_path, **SHORT)
    answers = evaluation.folder / "answers.jsonl"
    settings_path(answers).unlink()
    before = answers.read_bytes()
    with pytest.raises(ArgumentError, match=r"answers\.jsonl has answers, but not the file of their settings"):
        evaluate_suite(small, "vqav2", roots["vqav2"], tmp_path, **SHORT)
    assert answers.read_bytes() == before


# the command


def test_the_command_prints_the_official_numbers(roots, tmp_path, capsys):
    arguments = ["eval", "--suite", "coco-detection", "--root", str(roots["coco-detection"]), "--limit", "2"]
    assert main([*arguments, "--num_beams", "1", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "coco-detection · val2017 · florence-2-nano · 2 of 5 questions" in printed
    assert "AP75" in printed
    assert len(list(tmp_path.glob("coco-detection-val2017/florence-2-nano-*/submission.json"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "coco"], "unknown suite 'coco'"),
        (["--suite", "res"], "--suite res needs --root"),
        (["--suite", "vqav2", "--root", "missing"], "is published at https://visualqa.org"),
        (["--suite", "vqav2", "--root", ".", "--split", "train"], "unknown split of vqav2 'train'"),
        (["--suite", "vqav2", "--root", ".", "--tasks", "OD", "OCR"], "asks one task"),
        (["--limit", "3"], "--limit belongs to --suite"),
        (["--suite", "vqav2", "--root", ".", "--limit", "0"], "argument --limit"),
    ],
)
def test_the_command_refuses_before_a_model_is_loaded(arguments, message, capsys, tmp_path):
    try:
        status = main(["eval", *arguments, "--model_type", "florence-2-large", "--out", str(tmp_path / "out")])
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert message in capsys.readouterr().err
