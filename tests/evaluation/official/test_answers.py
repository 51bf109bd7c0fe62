"""Accuracy of answers, beside the values that the published scorers give for the same answers."""

import json
import math
from pathlib import Path

import pytest

from florence_lab.evaluation.official import anls, textvqa_accuracy, vqa_accuracy

PUBLISHED = json.loads(Path(__file__).with_name("published_answers.json").read_text(encoding="utf-8"))["rows"]


@pytest.mark.parametrize(("name", "score"), [("vqav2", vqa_accuracy), ("textvqa", textvqa_accuracy), ("anls", anls)])
def test_the_values_are_those_of_the_published_code(name, score):
    """120 answers with numbers, articles, punctuation and contractions, some of them wrong."""
    values = [score(row["answer"], row["references"]) for row in PUBLISHED]
    expected = [row[name] for row in PUBLISHED]
    assert values == pytest.approx(expected)
    assert 0.2 < sum(expected) / len(expected) < 0.9


def test_an_answer_counts_by_how_many_others_gave_it():
    references = ["cat"] * 2 + ["dog"] * 8
    assert vqa_accuracy("dog", references) == 1
    assert vqa_accuracy("cat", references) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert vqa_accuracy("cow", references) == 0


@pytest.mark.parametrize("answer", ["Two dogs.", "the 2 dogs", "2 dogs"])
def test_answers_are_normalized_before_they_are_compared(answer):
    assert vqa_accuracy(answer, ["2 dogs"] * 9 + ["dog"]) == 1


def test_numbers_with_commas_lose_them():
    assert vqa_accuracy("1,000", ["1000"] * 9 + ["one thousand"]) == 1


def test_anls_is_zero_below_its_threshold():
    assert anls("Coca Cola", ["coca-cola"]) == pytest.approx(8 / 9)
    assert anls("Pepsi", ["coca-cola", "coke"]) == 0
    assert anls("coca \n cola", ["coca cola"]) == pytest.approx(1)


def test_nothing_to_read_and_nothing_read_is_right():
    assert anls("", [""]) == textvqa_accuracy("", [""] * 10) == vqa_accuracy("", [""] * 10) == 1
    assert anls("text", [""]) == 0


def test_a_question_without_references_is_not_measured():
    assert math.isnan(vqa_accuracy("cat", []))
    assert anls("cat", []) == 0
