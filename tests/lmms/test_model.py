"""`LmmsModel` without lmms-eval: requests as lmms-eval makes them, answered by florence-2-nano."""

import logging
from types import SimpleNamespace

import pytest
from support import TINY

from florence_lab.exceptions import ArgumentError, ArgumentTypeError
from florence_lab.lmms import LmmsModel
from florence_lab.lmms.model import merge_settings
from florence_lab.scenes import sample_path

SHEEP = str(sample_path("sheep"))
DOCUMENT = {"image": SHEEP, "answer": ["the dog"], "question": "What is there?", "bbox": [35, 237, 122, 100]}


def read_images(document):
    return [document["image"]]


def request(name="nocaps_val", second=None, index=0, context="Describe.", images=read_images):
    """An `Instance` of lmms-eval."""
    return SimpleNamespace(args=(context, second if second is not None else {}, images, index, name, "test"))


def documents(*rows):
    """The documents of each task of lmms-eval."""
    return {name: {"test": rows} for name in ("nocaps_val", "textcaps_val", "refcoco_bbox_val")}


@pytest.fixture(scope="module")
def model():
    made = LmmsModel("florence-2-nano", device="cpu", batch_size="2", max_batch_size=None)
    made.task_dict = documents(DOCUMENT, DOCUMENT | {"image": str(sample_path("beach"))}, {"image": "missing.png"})
    return made


def test_answers_are_those_of_the_predictor_in_order(model, nano):
    requests = [request(index=1), request("refcoco_bbox_val", {"max_new_tokens": 20}), request("textcaps_val")]
    expected = [
        nano.predict(sample_path("beach"), "<CAPTION>").text,
        nano.predict(SHEEP, "<REGION_TO_DESCRIPTION>", DOCUMENT["bbox"], "xywh").text,
        nano.predict(SHEEP, "<CAPTION>").text,
    ]
    assert model.generate_until(requests) == expected


def test_an_answer_ends_at_the_stop_strings_of_the_task(model, nano):
    whole = nano.predict(SHEEP, "<CAPTION>").text
    stop = whole.split()[2]
    assert model.generate_until([request(second={"until": ["ASSISTANT:", stop]})]) == [whole.partition(stop)[0]]


def test_what_cannot_be_asked_is_answered_by_nothing_and_the_others_go_on(model, nano, caplog):
    two = request(images=lambda document: [document["image"]] * 2)
    with caplog.at_level(logging.WARNING):
        answers = model.generate_until([request(index=2), two, request()])
    assert answers == ["", "", nano.predict(SHEEP, "<CAPTION>").text]
    assert "missing.png" in caplog.text
    assert "the document has 2" in caplog.text


def test_candidates_are_scored_as_the_predictor_scores_them(model, nano):
    greedy = nano.predict(SHEEP, "<CAPTION>", num_beams=1).text
    texts = ["a dog", greedy, "a dog"]
    requests = [request(second=" " + text) for text in texts] + [request(second=lambda document: document["answer"][0])]
    scores = model.loglikelihood(requests)
    ranked = {
        item.candidate: item.log_likelihood for item in nano.score(SHEEP, "<CAPTION>", ["a dog", greedy, "the dog"])
    }
    assert [value for value, _ in scores] == pytest.approx([ranked[text] for text in [*texts, "the dog"]])
    assert [is_greedy for _, is_greedy in scores] == [False, True, False, False]
    assert model.loglikelihood([request(second="a dog", index=2)]) == [(float("-inf"), False)]


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([request("mmlu")], r"'mmlu' of lmms-eval is not known; pass it, as in --model_args 'task=<CAPTION>'"),
        ([SimpleNamespace(args=("", " yes"))], "no document with an image"),
        ([request(second={"max_new_tokens": 0})], "max_new_tokens"),
    ],
)
def test_what_no_task_can_answer_is_refused_before_the_model_runs(model, requests, message):
    with pytest.raises(ArgumentError, match=message):
        model.generate_until(requests)


def test_several_rounds_are_refused(model):
    with pytest.raises(ArgumentError, match="single questions"):
        model.generate_until_multi_round([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "<CAPTOIN>"}, "<CAPTION>"),
        ({"task": 3}, "task"),
        ({"region_format": "cxcywh"}, "xywh"),
        ({"batch_size": "auto"}, "batch_size must be a number of at least 1, got 'auto'"),
        ({"batch_size": 0}, "batch_size must be a number of at least 1, got 0"),
        ({"num_beam": 3}, "num_beams"),
        ({"pretrainde": TINY}, "pretrained"),
        ({"num_beams": 0}, "num_beams"),
    ],
)
def test_wrong_arguments_are_refused_before_the_model_is_loaded(arguments, message):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        LmmsModel("no such model", **arguments)


@pytest.mark.parametrize(
    ("requested", "own", "expected"),
    [
        ({"until": ["\n"], "temperature": 0, "top_p": 1.0, "num_beams": 1}, {}, {"num_beams": 1, "do_sample": False}),
        (
            {"num_beams": 1, "max_new_tokens": 16},
            {"num_beams": 3},
            {"num_beams": 3, "max_new_tokens": 16, "do_sample": False},
        ),
        ({"do_sample": True, "temperature": 0}, {}, {"do_sample": False}),
        ({"do_sample": True, "temperature": 0.5, "top_p": None}, {}, {"do_sample": True, "temperature": 0.5}),
    ],
)
def test_settings_of_the_task_are_overridden_by_those_of_the_model(requested, own, expected):
    assert merge_settings(requested, own) == expected
