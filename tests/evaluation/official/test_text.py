"""Error rates of text, beside jiwer."""

import random

import jiwer
import pytest

from florence_lab.evaluation.official import (
    count_character_edits,
    count_word_edits,
    edit_distance,
    error_rate,
    normalize_label,
)

WORDS = "stop go left right exit open".split()


@pytest.fixture
def texts():
    """60 texts with reference, some of them equal."""
    rng = random.Random(3)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(1, 8))) for _ in range(60)]
    answers = [
        reference if rng.random() < 0.3 else " ".join(rng.choices(WORDS, k=rng.randint(0, 8)))
        for reference in references
    ]
    return answers, references


@pytest.mark.parametrize(("count", "official"), [(count_word_edits, jiwer.wer), (count_character_edits, jiwer.cer)])
def test_the_rates_are_those_of_jiwer(count, official, texts):
    counts = [count(answer, reference) for answer, reference in zip(*texts, strict=True)]
    assert error_rate(counts) == pytest.approx(official(texts[1], texts[0]))


@pytest.mark.parametrize("separator", ["\n", "\t", "\u00a0", "\u2028", "  "])
def test_any_white_space_separates_words(separator):
    answer = separator.join(("STOP", "HERE"))
    assert count_word_edits(answer, "STOP HERE").edits == count_character_edits(answer, "STOP HERE").edits == 0


def test_characters_of_chinese_text_count_one_by_one():
    assert error_rate([count_character_edits("出口在左边", "出口在右边")]) == 0.2
    assert error_rate([count_word_edits("出口在左边", "出口在右边")]) == 1


def test_an_empty_reference_is_a_reference():
    assert error_rate([count_word_edits("", "")]) == 0
    assert error_rate([count_word_edits("STOP", "")]) == float("inf")
    assert error_rate([count_word_edits("STOP", ""), count_word_edits("GO", "GO")]) == 1


@pytest.mark.parametrize(
    ("a", "b", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2)]
)
def test_the_edit_distance_is_levenshteins(a, b, distance):
    assert edit_distance(a, b) == distance


@pytest.mark.parametrize("label", ["Car", " car ", "car.", '"car"'])
def test_labels_are_compared_without_case_and_punctuation(label):
    assert normalize_label(label) == "car"
