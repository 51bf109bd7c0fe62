"""The table of tasks: the published prompts, names as people type them, queries with their input behind the token."""

import pytest

from florence_lab.tasks import FREE_QUESTION, TASKS, available_tasks, get_task, split_query

PROMPTS = {
    "<CAPTION>": "What does the image describe?",
    "<DETAILED_CAPTION>": "Describe in detail what is shown in the image.",
    "<MORE_DETAILED_CAPTION>": "Describe with a paragraph what is shown in the image.",
    "<OD>": "Locate the objects with category name in the image.",
    "<DENSE_REGION_CAPTION>": "Locate the objects in the image, with their descriptions.",
    "<REGION_PROPOSAL>": "Locate the region proposals in the image.",
    "<OCR>": "What is the text in the image?",
    "<OCR_WITH_REGION>": "What is the text in the image, with regions?",
    "<CAPTION_TO_PHRASE_GROUNDING>": "Locate the phrases in the caption: {input}",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "Locate {input} in the image with mask",
    "<OPEN_VOCABULARY_DETECTION>": "Locate {input} in the image.",
    "<REGION_TO_SEGMENTATION>": "What is the polygon mask of region {input}",
    "<REGION_TO_CATEGORY>": "What is the region {input}?",
    "<REGION_TO_DESCRIPTION>": "What does the region {input} describe?",
    "<REGION_TO_OCR>": "What text is in the region {input}?",
}


def test_the_prompts_are_the_published_ones():
    assert {token: task.prompt for token, task in TASKS.items()} == PROMPTS
    assert available_tasks() == list(PROMPTS)
    assert all(task.token == token for token, task in TASKS.items())


def test_what_each_task_takes():
    takes = {kind: {token for token, task in TASKS.items() if task.input == kind} for kind in ("phrase", "region")}
    assert takes["region"] == {token for token in PROMPTS if token.startswith("<REGION_TO_")}
    assert takes["phrase"] == {token for token in PROMPTS if "{input}" in PROMPTS[token]} - takes["region"]
    assert all(task.input == "none" for token, task in TASKS.items() if "{input}" not in PROMPTS[token])


def test_what_each_task_gives():
    not_text = {
        "boxes": {"<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>"},
        "grounding": {"<CAPTION_TO_PHRASE_GROUNDING>"},
        "boxes_or_polygons": {"<OPEN_VOCABULARY_DETECTION>"},
        "quads": {"<OCR_WITH_REGION>"},
        "polygons": {"<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_SEGMENTATION>"},
    }
    for kind, tokens in not_text.items():
        assert {token for token, task in TASKS.items() if task.result == kind} == tokens
    assert all(TASKS[token].result == "text" for token in set(PROMPTS).difference(*not_text.values()))


def test_changing_the_list_changes_no_task():
    available_tasks().clear()
    assert available_tasks()


@pytest.mark.parametrize("name", ["<OD>", "<od>", "OD", "od", " <OD> "])
def test_names_as_people_type_them(name):
    assert get_task(name) is TASKS["<OD>"]


@pytest.mark.parametrize(
    ("name", "token", "nearest"),
    [
        ("<CAPTIONS>", "<CAPTIONS>", "<CAPTION>"),
        ("dense_caption", "<DENSE_CAPTION>", "<DENSE_REGION_CAPTION>"),
        ("ocd", "<OCD>", "<OD>"),
    ],
)
def test_an_unknown_name_is_told_the_nearest_and_all(name, token, nearest):
    with pytest.raises(ValueError, match=rf"unknown task '{token}'; did you mean '{nearest}'\?") as caught:
        get_task(name)
    assert str(caught.value).endswith(", ".join(PROMPTS))


@pytest.mark.parametrize(
    ("query", "token", "rest"),
    [
        ("<OD>", "<OD>", ""),
        (" <od> ", "<OD>", ""),
        ("<CAPTION_TO_PHRASE_GROUNDING>the sheeps", "<CAPTION_TO_PHRASE_GROUNDING>", "the sheeps"),
        ("<OPEN_VOCABULARY_DETECTION> a > b ", "<OPEN_VOCABULARY_DETECTION>", "a > b"),
        ("<REGION_TO_OCR><loc_1><loc_2><loc_3><loc_4>", "<REGION_TO_OCR>", "<loc_1><loc_2><loc_3><loc_4>"),
        ("Describe the image", "", "Describe the image"),
        (" Is 3 > 2? ", "", "Is 3 > 2?"),
        ("What is <OD>?", "", "What is <OD>?"),
        ("<loc_1><loc_2><loc_3><loc_4> is what?", "", "<loc_1><loc_2><loc_3><loc_4> is what?"),
        ("", "", ""),
    ],
)
def test_queries_are_split_behind_their_token(query, token, rest):
    assert split_query(query) == (get_task(token), rest)


def test_a_query_with_an_unknown_token_is_no_free_question():
    with pytest.raises(ValueError, match=r"unknown task '<0D>'; did you mean '<OD>'"):
        split_query("<0D>a sheep")


def test_a_token_that_is_not_closed_is_no_free_question():
    assert split_query("<OD") == (TASKS["<OD>"], "")
    with pytest.raises(ValueError, match=r"did you mean '<OD>'"):
        split_query("<0D")


def test_a_token_without_brackets_is_that_task():
    assert split_query("OD") == (TASKS["<OD>"], "")
    assert split_query("od") == (FREE_QUESTION, "od")


def test_a_free_question_is_its_own_prompt():
    assert get_task("") is FREE_QUESTION
    assert (FREE_QUESTION.prompt, FREE_QUESTION.input, FREE_QUESTION.result) == ("{input}", "phrase", "text")
    assert FREE_QUESTION not in TASKS.values()
