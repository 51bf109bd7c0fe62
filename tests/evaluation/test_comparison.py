"""Comparing two runs."""

import pytest

from florence_lab.evaluation import Prediction, compare_predictions, compare_runs, comparison_table
from florence_lab.evaluation.prediction_files import write_predictions
from florence_lab.exceptions import ArgumentError, DatasetError


def run(scores, task="<OD>"):
    return [Prediction(source=f"row {i}", image=f"{i}.png", task=task, score=s) for i, s in enumerate(scores)]


def test_runs_are_compared_by_task():
    first = run([0.5] * 30) + run([1.0] * 30, "<OCR>")
    second = run([0.75] * 30) + run([1.0] * 29 + [0.0], "<OCR>")
    detection, ocr = compare_predictions(first, second)
    assert (detection.task, detection.first, detection.second, detection.num_better) == ("<OD>", 0.5, 0.75, 30)
    assert detection.difference.interval == (0.25, 0.25)
    assert detection.difference.p_value < 0.01
    assert (ocr.num_better, ocr.num_worse) == (0, 1)
    assert ocr.difference.interval.high == pytest.approx(0, abs=0.01)
    assert ocr.difference.p_value > 0.05
    assert comparison_table([detection, ocr])["difference"].tolist() == pytest.approx([0.25, -1 / 30])


def test_examples_are_paired_by_what_was_asked():
    """Another order, and examples that one run lacks or has not scored, do not matter."""
    first, second = run([0.1, 0.2, 0.3, None]), run([0.2, 0.3, 0.4, 0.5, 0.6])[::-1]
    (comparison,) = compare_predictions(first, second)
    assert comparison.num_examples == 3
    assert comparison.difference.value == pytest.approx(0.1)


def test_folders_are_compared(tmp_path):
    for name, scores in (("a", [0, 1, 0]), ("b", [1, 1, 0])):
        (tmp_path / name).mkdir()
        write_predictions(tmp_path / name / "answers.jsonl", run(scores))
    assert compare_runs(tmp_path / "a", tmp_path / "b")[0].num_better == 1
    with pytest.raises(DatasetError, match=r"answers\.jsonl cannot be read"):
        compare_runs(tmp_path / "a", tmp_path / "missing")


def test_runs_without_a_common_example_are_refused():
    with pytest.raises(ArgumentError, match="no scored example in common"):
        compare_predictions(run([1]), run([1], "<OCR>"))
