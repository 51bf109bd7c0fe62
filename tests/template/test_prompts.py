"""From queries to prompts."""

import re
import warnings

import numpy as np
import pytest
import torch

from florence_lab import PromptError
from florence_lab.exceptions import FlorenceLabWarning
from florence_lab.tasks import FREE_QUESTION, TASKS
from florence_lab.template import FlorenceTemplate, Prompt
from florence_lab.template.prompts import build_prompt

GROUNDING, SEGMENTATION = "<CAPTION_TO_PHRASE_GROUNDING>", "<REFERRING_EXPRESSION_SEGMENTATION>"
OPEN, REGION = "<OPEN_VOCABULARY_DETECTION>", "<REGION_TO_CATEGORY>"
TAKING = {kind: [token for token, task in TASKS.items() if task.input == kind] for kind in ("none", "phrase", "region")}
SIZE = (400, 100)


def loc(*bins: int) -> str:
    return "".join(f"<loc_{n}>" for n in bins)


@pytest.mark.parametrize("token", TAKING["none"])
def test_a_task_without_input_has_a_fixed_prompt(token):
    assert build_prompt(token) == Prompt(TASKS[token], "", TASKS[token].prompt)


@pytest.mark.parametrize(
    ("token", "prompt"),
    [
        (GROUNDING, "Locate the phrases in the caption: a {red} sheep"),
        (SEGMENTATION, "Locate a {red} sheep in the image with mask"),
        (OPEN, "Locate a {red} sheep in the image."),
    ],
)
def test_a_phrase_is_given_in_the_query_or_as_text(token, prompt):
    expected = Prompt(TASKS[token], "a {red} sheep", prompt)
    assert build_prompt(f"{token}a {{red}} sheep") == expected
    assert build_prompt(token, " a {red} sheep ") == expected
    assert build_prompt(f"{token}a {{red}} sheep", "") == expected


@pytest.mark.parametrize(
    ("token", "prompt"),
    [
        ("<REGION_TO_SEGMENTATION>", "What is the polygon mask of region <loc_250><loc_500><loc_999><loc_999>"),
        ("<REGION_TO_CATEGORY>", "What is the region <loc_250><loc_500><loc_999><loc_999>?"),
        ("<REGION_TO_DESCRIPTION>", "What does the region <loc_250><loc_500><loc_999><loc_999> describe?"),
        ("<REGION_TO_OCR>", "What text is in the region <loc_250><loc_500><loc_999><loc_999>?"),
    ],
)
def test_a_region_is_given_in_pixels_or_as_location_tokens(token, prompt):
    tokens, pixels = loc(250, 500, 999, 999), (100, 50, 400, 100.0)
    expected = Prompt(TASKS[token], tokens, prompt)
    for region in (pixels, list(pixels), np.array(pixels), np.array(pixels, np.float32), torch.tensor(pixels)):
        assert build_prompt(token, region, SIZE) == expected
    assert build_prompt(token, tokens) == build_prompt(token + tokens) == expected


@pytest.mark.parametrize(
    "arguments", [("Describe the image",), ("", "Describe the image"), (" Describe the image ", "")]
)
def test_a_free_form_question_is_its_own_prompt(arguments):
    assert build_prompt(*arguments) == Prompt(FREE_QUESTION, "Describe the image", "Describe the image")


@pytest.mark.parametrize("query", ["od", "OD", " Od ", "<od>"])
def test_the_name_of_a_task_selects_it_in_any_case(query):
    assert build_prompt(query).task is TASKS["<OD>"]


def test_a_prompt_gives_back_its_query():
    for query in ("<OD>", OPEN + "a sheep", REGION + loc(1, 2, 3, 4), "Describe the image"):
        assert build_prompt(build_prompt(query).query) == build_prompt(query)


@pytest.mark.parametrize(
    ("query", "text", "message"),
    [
        *[(token, "a sheep", f"{token} takes no input, but got 'a sheep'") for token in TAKING["none"]],
        *[(token, (1, 2, 3, 4), f"{token} takes no input, but got (1, 2, 3, 4)") for token in TAKING["none"]],
        ("<OD>a sheep", None, "<OD> takes no input, but got 'a sheep'"),
        *[(token, None, f"{token} needs a phrase, as in {token}a sheep") for token in TAKING["phrase"]],
        *[(token, (1, 2, 3, 4), f"{token} takes a phrase, but got (1, 2, 3, 4)") for token in TAKING["phrase"]],
        (OPEN, "  ", "<OPEN_VOCABULARY_DETECTION> needs a phrase"),
        *[(token, None, f"{token} needs a region: (x0, y0, x1, y1) in pixels, or") for token in TAKING["region"]],
        *[(token, "a sheep", f"{token} takes a region: (x0, y0, x1, y1)") for token in TAKING["region"]],
        (OPEN + "a sheep", "a dog", "the input was given twice, 'a sheep' in the query and 'a dog' as text"),
        (REGION + loc(1, 2, 3, 4), (1, 2, 3, 4), "the input was given twice"),
        (REGION + loc(1, 2, 3, 4), np.arange(4), "the input was given twice"),
        ("Describe the image", "a dog", "a free-form question: the input was given twice"),
        ("", None, "a free-form question needs a phrase"),
        ("", (1, 2, 3, 4), "a free-form question takes a phrase, but got (1, 2, 3, 4)"),
        ("<ODD>", None, "unknown task '<ODD>'; did you mean '<OD>'?"),
        (None, None, "expected a task token such as '<OD>', or a question, but got None"),
        (TASKS["<OD>"], None, "expected a task token such as '<OD>', or a question, but got Task("),
    ],
)
def test_a_wrong_input_is_refused(query, text, message):
    with pytest.raises(PromptError, match=re.escape(message)):
        build_prompt(query, text, SIZE)


def test_the_message_for_a_missing_phrase_of_a_question_gives_no_example():
    with pytest.raises(PromptError, match=r"needs a phrase$"):
        build_prompt("")


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((-2, 0, 10, 10), "the region (-2, 0, 10, 10) of an image of 400 x 100 pixels lies partly outside the image"),
        ((0, 0, 402, 10), "(0, 0, 402, 10) of an image of 400 x 100 pixels lies partly outside the image"),
        ((0, 0, 10, 101.5), "(0, 0, 10, 101.5) of an image of 400 x 100 pixels lies partly outside the image"),
        ((0, -1.5, 10, 10), "(0, -1.5, 10, 10) of an image of 400 x 100 pixels lies partly outside the image"),
        ((400.2, 0, 400.9, 10), "(400.2, 0, 400.9, 10) of an image of 400 x 100 pixels is empty or inverted"),
        ((30, 0, 10, 10), "the region (30, 0, 10, 10) of an image of 400 x 100 pixels is empty or inverted"),
        ((0, 30, 10, 10), "the region (0, 30, 10, 10) of an image of 400 x 100 pixels is empty or inverted"),
        ((10, 0, 10, 10), "the region (10, 0, 10, 10) of an image of 400 x 100 pixels is empty or inverted"),
        ((0, 10, 10, 10), "x0 < x1 and y0 < y1 must hold"),
        ((float("nan"), 0, 10, 10), "(nan, 0, 10, 10) of an image of 400 x 100 pixels contains a value that is not"),
        ((0, 0, float("inf"), 10), "(0, 0, inf, 10) of an image of 400 x 100 pixels contains a value that is not"),
        ((1, 2, 3), "or four location tokens <loc_0> … <loc_999>; got (1, 2, 3)"),
        ((1, 2, 3, 4, 5), "got (1, 2, 3, 4, 5)"),
        ([(1, 2, 3, 4)], "got [(1, 2, 3, 4)]"),
        (12, "got 12"),
        ({"x0": 1}, "got {'x0': 1}"),
        (("a", "b", "c", "d"), "got ('a', 'b', 'c', 'd')"),
        ((10**400, 0, 1, 1), "takes a region"),
        ("1, 2, 3, 4", "got '1, 2, 3, 4'"),
        (loc(1, 2, 3), "got '<loc_1><loc_2><loc_3>'"),
        (loc(1, 2, 3, 4, 5), "takes a region"),
        (loc(1, 2, 3, 1000), "takes a region"),
        ("<loc_01><loc_2><loc_3><loc_4>", "takes a region"),  # not a token of the vocabulary
        (loc(30, 0, 10, 10), "<loc_30><loc_0><loc_10><loc_10> of an image of 400 x 100 pixels is inverted: x0 <= x1"),
        (loc(0, 30, 10, 10), "is inverted"),
    ],
)
def test_a_wrong_region_is_refused(region, message):
    with pytest.raises(PromptError, match=re.escape(message)):
        build_prompt(REGION, region, SIZE)


@pytest.mark.parametrize("region", [(0, 0, 400, 100), (0, 0, 1.5, 0.1), (399.9, 99.9, 400, 100)])
def test_a_region_may_touch_the_edges_of_the_image(region):
    assert build_prompt(REGION, region, SIZE).task is TASKS[REGION]


def test_a_region_in_pixels_needs_the_size_of_the_image():
    with pytest.raises(PromptError, match=re.escape("the region (1, 2, 3, 4) in pixels needs the size of the image")):
        FlorenceTemplate().build_prompt(REGION, (1, 2, 3, 4))
    assert FlorenceTemplate().build_prompt(REGION, (0, 0, 3, 4), SIZE).text == loc(0, 0, 7, 40)
    assert FlorenceTemplate().build_prompt(OPEN, "cat").text == "cat"


@pytest.mark.parametrize(
    "region", [(-2, 0, 10, 10), (0, -2, 10, 10), (10, 0, 10, 10), (0, 0, float("nan"), 1), (1, 2, 3)]
)
def test_a_region_that_no_image_contains_is_refused_without_a_size(region):
    with pytest.raises(PromptError) as caught:
        build_prompt(REGION, region)
    assert "of an image" not in str(caught.value)


def test_the_message_of_a_region_without_a_size_names_the_region_only():
    with pytest.raises(PromptError, match=re.escape("the region (-2, 0, 10, 10) lies partly outside the image")):
        build_prompt(REGION, (-2, 0, 10, 10))


@pytest.mark.parametrize(
    ("region", "region_format"),
    [
        ((40, 20, 200, 60), "xyxy"),
        ((40, 20, 160, 40), "xywh"),
        ((0.1, 0.2, 0.5, 0.6), "norm_1"),
        ((100, 200, 500, 600), "norm_1000"),
        (np.array([40, 20, 200, 60], np.int16), "xyxy"),
        (torch.tensor([0.1, 0.2, 0.5, 0.6], requires_grad=True), "norm_1"),
        (loc(100, 200, 500, 600), "norm_1"),  # location tokens have units of their own
    ],
)
def test_the_same_region_in_all_units(region, region_format):
    assert build_prompt(REGION, region, SIZE, region_format=region_format).text == loc(100, 200, 500, 600)


@pytest.mark.parametrize(
    ("region", "clipped"),
    [((-1, -0.5, 401, 100.9), (0, 0, 400, 100)), ((399, 0, 400.5, 10), (399, 0, 400, 10))],
)
def test_a_region_that_exceeds_the_image_by_a_pixel_is_clipped(region, clipped):
    assert build_prompt(REGION, region, SIZE).text == build_prompt(REGION, clipped, SIZE).text


@pytest.mark.parametrize(
    ("region", "region_format", "message"),
    [
        ((0.1, 0.2, 0.5, 0.6), "xyxy", "pass region_format='norm_1' if the numbers are fractions of the sides"),
        ((0, 0, 1, 1), "xywh", "pass region_format='norm_1'"),
        (
            (10, 20, 30, 40),
            "norm_1",
            "the region (10, 20, 30, 40) in norm_1 of an image of 400 x 100 pixels lies partly outside",
        ),
        (
            (0, 0, 1200, 40),
            "norm_1000",
            "lies partly outside the image; other units are region_format = xyxy, xywh, norm_1",
        ),
        ((390, 0, 50, 10), "xywh", "lies partly outside the image"),
        ((10, 10, 0, 10), "xywh", "width > 0 and height > 0 must hold"),
        ((10, 10, -5, 10), "xywh", "width > 0 and height > 0 must hold"),
        ((0, 0, float("nan"), 1), "norm_1", "not a finite number"),
        ((0, 0, 9, 9), "cxcywh", "region_format must be one of 'xyxy', 'xywh', 'norm_1', 'norm_1000', got 'cxcywh'"),
        ((0, 0, 9, 9), None, "region_format must be one of"),
        ((0, 0, 9, 9), [], "region_format must be one of"),
    ],
)
def test_a_region_in_other_units_than_it_says_is_refused(region, region_format, message):
    with pytest.raises(PromptError, match=re.escape(message)):
        build_prompt(REGION, region, SIZE, region_format=region_format)


@pytest.mark.parametrize(
    ("query", "text", "message"),
    [
        ("what is \ud800", None, "lone surrogate"),
        (OPEN, "a \udcff", "lone surrogate"),
        ("is this <image> good", None, "the special token <image>"),
        (OPEN, "a sheep</s>", "the special token </s>"),
        (OPEN + "<pad>", None, "the special token <pad>"),
    ],
)
def test_text_that_the_tokenizer_would_misread_is_refused(query, text, message):
    with pytest.raises(PromptError, match=message):
        build_prompt(query, text, SIZE)


def test_a_region_that_some_image_contains_is_accepted_without_a_size():
    assert build_prompt(REGION, (5000, 0, 9000, 10)).task is TASKS[REGION]


def test_a_region_may_be_thinner_than_a_bin():
    assert build_prompt(REGION, (100, 50, 100.1, 50.05), SIZE).text == loc(250, 500, 250, 500)
    assert build_prompt(REGION, loc(5, 5, 5, 5)).text == loc(5, 5, 5, 5)


@pytest.mark.parametrize("query", ["描述图片", OPEN + "一只羊", OPEN + "㐀", OPEN + "鿿"])
def test_a_chinese_phrase_is_answered_with_a_warning(query):
    with pytest.warns(FlorenceLabWarning, match="not trained on Chinese") as caught:
        build_prompt(query)
    assert len(caught) == 1
    assert caught[0].filename == __file__  # the warning points at the caller


def test_the_warning_of_chinese_can_be_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_prompt("描述图片", warn_of_language=False)


def test_other_alphabets_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_prompt(OPEN, "ein Schäfchen, “овца”, 🐑, ひつじ")


def test_a_prompt_of_a_task_is_not_validated():
    assert Prompt.from_task(OPEN) == Prompt(TASKS[OPEN], "", "Locate  in the image.")
    assert Prompt.from_task(TASKS["<OD>"], "x").prompt == TASKS["<OD>"].prompt


@pytest.mark.parametrize(
    ("query", "text", "prompt"),
    [
        ("<DocVQA>What is the date?", None, "<DocVQA>What is the date?"),
        ("<DocVQA> What is the date? ", None, "<DocVQA> What is the date? "),
        ("<DocVQA>", "What is the date?", "<DocVQA>What is the date?"),
        ("<DocVQA>", " What is the date?", "<DocVQA> What is the date?"),
        ("<DocVQA> ", "What?", "<DocVQA> What?"),
        ("<DocVQA>What?", "", "<DocVQA>What?"),
        ("  <GENERATE_TAGS>", None, "<GENERATE_TAGS>"),
        ("<docvqa>a", None, "<docvqa>a"),
        ("<VQA>is {input} > <OD>?", None, "<VQA>is {input} > <OD>?"),
        ("<VQA><loc_1><loc_2>", None, "<VQA><loc_1><loc_2>"),
        ("<VQA>", (100, 50, 400, 100.0), "<VQA><loc_250><loc_500><loc_999><loc_999>"),
        ("<my task>", "what?", "<my task>what?"),
    ],
)
def test_the_prompt_of_an_own_token_is_what_the_user_wrote(query, text, prompt):
    built = build_prompt(query, text, SIZE)
    assert (built.prompt, built.query, built.task.result) == (prompt, prompt, "text")
    assert build_prompt(built.query) == build_prompt(built.task.token, built.text) == built


@pytest.mark.parametrize(
    ("query", "text", "message"),
    [
        ("<CAPTOIN>", None, "unknown task '<CAPTOIN>'; did you mean '<CAPTION>'?"),
        ("<VQA>what", "how", "<VQA>: the input was given twice, 'what' in the query and 'how' as text"),
        ("<VQA>", 12, "<VQA> takes a text, or a region: (x0, y0, x1, y1) in pixels"),
        ("<VQA>", (10, 10, 5, 5), "is empty or inverted"),
        ("<VQA>a</s>", None, "contains the special token </s>"),
        ("<image>a", None, "contains the special token <image>"),
        ("<and>a", None, "task token '<and>' is a token of Florence-2"),
    ],
)
def test_a_wrong_query_of_an_own_token_is_refused(query, text, message):
    with pytest.raises(PromptError, match=re.escape(message)):
        build_prompt(query, text, SIZE)
