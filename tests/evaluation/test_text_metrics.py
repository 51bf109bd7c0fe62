"""Metrics of texts, on predictions whose value is known."""

import pytest
from support import boxes

from florence_lab.evaluation import METRIC_SUITES
from florence_lab.results import Text

OCR = ("word_accuracy", "character_accuracy", "exact_match")


def text(content):
    return Text(raw=content, image_size=(100, 100), text=content)


def sample_score(metric, prediction, ground_truth):
    return METRIC_SUITES[metric].per_sample(prediction, ground_truth)


def test_additional_words_count_as_errors():
    def word_accuracy(*predicted):
        ground_truths = [text("STOP CAFE"), text("ZOO"), text("")]
        return METRIC_SUITES["ocr"].aggregate([text(words) for words in predicted], ground_truths)["word_accuracy"]

    assert word_accuracy("STOP CAFE", "ZOO", "") == 1
    assert word_accuracy("STOP CAFE", "200", "") == pytest.approx(2 / 3)
    assert word_accuracy("STOP CAFE", "ZOO", "SALE") == pytest.approx(2 / 3)
    assert word_accuracy("", "", "") == 0


def test_words_may_be_separated_by_any_white_space():
    assert sample_score("ocr", text("STOP\nCAFE"), text("STOP CAFE")) == 1
    assert METRIC_SUITES["ocr"].aggregate([text("STOP\nCAFE")], [text("STOP CAFE")]) == dict.fromkeys(OCR, 1)


def test_one_wrong_letter_costs_a_word_and_one_character():
    values = METRIC_SUITES["ocr"].aggregate([text("STOP CAFT")], [text("STOP CAFE")])
    assert values == {"word_accuracy": 0.5, "character_accuracy": pytest.approx(8 / 9), "exact_match": 0}


@pytest.mark.parametrize("answer", ["Car", "car.", " car\n"])
def test_a_category_is_compared_without_case_and_punctuation(answer):
    assert sample_score("exact_match", text(answer), text("car")) == 1


@pytest.mark.parametrize("label", ["The cat", "cat", "A Cat."])
def test_phrases_are_compared_without_case_and_article(label):
    """With an article left out, a right box scored 0."""
    predictions, ground_truths = [boxes((label, 0, 0, 10, 10))], [boxes(("the cat", 0, 0, 10, 10))]
    assert METRIC_SUITES["instances"].aggregate(predictions, ground_truths)["F1@0.5"] == 1
    assert METRIC_SUITES["detection"].aggregate(predictions, ground_truths)["mAP@0.5"] == pytest.approx(1)


def test_captions_of_photographs_are_compared_by_their_words():
    """Counting objects of cartoon scenes gave 1.0, because neither caption names one."""
    assert sample_score("caption", text("a zebra eats grass"), text("two giraffes stand near a fence")) < 0.5


def test_captions_that_differ_in_case_and_punctuation_only_are_equal():
    assert sample_score("caption", text("Two dogs, on grass"), text("two dogs on grass.")) == 1


def test_captions_in_other_scripts_have_words():
    assert sample_score("caption", text("两只 狗"), text("两只 狗")) == 1
    assert sample_score("caption", text("两只 狗"), text("两只 猫")) == 0.5
