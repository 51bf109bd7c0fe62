"""Which task of Florence-2 answers a task of lmms-eval, what it is asked, and how its answer is written."""

import json

import numpy as np
import pytest

from florence_lab.exceptions import ArgumentError, PromptError
from florence_lab.lmms import TASK_RULES, find_rule
from florence_lab.lmms.questions import cut_answer, format_answer, read_input
from florence_lab.results import Boxes, Text
from florence_lab.tasks import get_task


@pytest.mark.parametrize(
    ("name", "task", "field", "answer"),
    [
        ("coco2017_cap_val", "<CAPTION>", "", "default"),
        ("coco_karpathy_test", "<CAPTION>", "", "default"),
        ("coco_cap_chair", "<MORE_DETAILED_CAPTION>", "", "default"),
        ("nocaps_val_lite", "<CAPTION>", "", "default"),
        ("flickr30k_test", "<CAPTION>", "", "default"),
        ("refcoco+_bbox_rec_testA", "<CAPTION_TO_PHRASE_GROUNDING>", "answer", "box_fractions"),
        ("refcoco_plus_grounding_testA", "<CAPTION_TO_PHRASE_GROUNDING>", "answer", "default"),
        ("refcocog_bbox_val", "<REGION_TO_DESCRIPTION>", "bbox", "default"),
        ("refcoco_seg_testB", "<REGION_TO_DESCRIPTION>", "bbox", "default"),
        ("vqav2_val", "<VQA>", "question", "default"),
        ("docvqa_test", "<DocVQA>", "question", "default"),
    ],
)
def test_a_task_of_lmms_eval_has_its_rule(name, task, field, answer):
    rule = find_rule(name)
    assert (rule.task, rule.field, rule.answer) == (task, field, answer)


@pytest.mark.parametrize("rule", TASK_RULES, ids=lambda rule: rule.pattern)
def test_a_rule_names_a_field_exactly_where_its_task_takes_an_input(rule):
    assert bool(rule.field) == (get_task(rule.task).input != "none")


@pytest.mark.parametrize(
    ("name", "task", "field", "expected"),
    [
        ("nocaps_val", "<DETAILED_CAPTION>", None, ("<DETAILED_CAPTION>", "", "default")),
        (
            "refcoco_bbox_rec_val",
            "<OPEN_VOCABULARY_DETECTION>",
            None,
            ("<OPEN_VOCABULARY_DETECTION>", "answer", "box_fractions"),
        ),
        ("textvqa_val", "", None, ("", "question", "default")),
        ("mine", "<VQA>", "q", ("<VQA>", "q", "default")),
        ("vqav2_val", None, "", ("<VQA>", "", "default")),
    ],
)
def test_arguments_replace_the_rule(name, task, field, expected):
    rule = find_rule(name, task, field)
    assert (rule.task, rule.field, rule.answer) == expected


def test_an_unknown_task_is_refused_with_what_to_pass():
    with pytest.raises(ArgumentError, match=r"'mmmu_val' .* 'task=<CAPTION>'.*nocaps\*"):
        find_rule("mmmu_val")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("question", "What is\u00a0there?".replace("\u00a0", " ")),
        ("answer", "the dog"),
        ("bbox", [1.0, 2.0, 3.0, 4.0]),
        ("", "Which is it? A. dog"),
    ],
)
def test_the_input_is_read_from_the_document(field, expected):
    document = {"question": " What is\nthere?", "answer": ["the dog", "a dog"], "bbox": np.array([1, 2, 3, 4])}
    assert read_input(document, field, "<image>Which is it?\nA. dog ") == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "got None"),
        ([], r"got \[\]"),
        ([1, 2, 3], r"got \[1, 2, 3\]"),
        (5, "got 5"),
        ([1, 2, "a", 4], "four numbers"),
    ],
)
def test_a_field_without_an_input_is_refused(value, message):
    with pytest.raises(PromptError, match=message):
        read_input({"question": value}, "question", "")


def test_a_missing_field_is_named_with_those_that_exist():
    with pytest.raises(PromptError, match="no field 'question'; it has 'image', 'q'"):
        read_input({"image": 1, "q": ""}, "question", "")


def boxes(scores=None, count=2):
    coordinates = np.array([[0.0, 0.0, 50.0, 50.0], [25.0, 10.0, 100.0, 100.0]])[:count]
    scores = None if scores is None else np.array(scores)
    return Boxes(
        raw="",
        image_size=(100, 200),
        task="<OD>",
        labels=np.array(["dog", "cat"])[:count],
        boxes=coordinates,
        scores=scores,
    )


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (boxes([0.2, 0.9]), "[0.25000, 0.05000, 1.00000, 0.50000]"),
        (boxes(), "[0.00000, 0.00000, 0.50000, 0.25000]"),
        (boxes(count=0), ""),
        (Text(raw="a dog", image_size=(1, 1), task="<CAPTION>", text="a dog"), "a dog"),
    ],
)
def test_the_best_box_is_written_as_fractions(result, expected):
    assert format_answer(result, "box_fractions") == expected


def test_instances_are_written_as_json():
    assert json.loads(format_answer(boxes([0.25, 0.5]), "default"))[1] == {
        "bbox_2d": [25.0, 10.0, 100.0, 100.0],
        "label": "cat",
        "score": 0.5,
    }
    assert format_answer(boxes(count=0), "default") == "[]"
    assert "score" not in format_answer(boxes(), "default")


@pytest.mark.parametrize(
    ("until", "expected"), [(None, "a. b\n\nc"), ("\n\n", "a. b"), (["x", ".", "\n"], "a"), ([""], "a. b\n\nc")]
)
def test_an_answer_is_cut_at_the_first_stop(until, expected):
    assert cut_answer("a. b\n\nc", until) == expected
