"""The table of tasks, their names and their queries."""

import re
from dataclasses import replace

import pytest

from florence_lab.tasks import FREE_QUESTION, TASKS, Task, available_tasks, get_task, register_task, split_query

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
COUNT = Task("<COUNT>", "How many {input} are there?", "phrase", "text", "count objects", metric="exact_match")


@pytest.fixture
def registered():
    """A registered 16th task, which is removed after the test."""
    register_task(COUNT)
    yield COUNT
    del TASKS[COUNT.token]


def test_the_prompts_are_the_published_ones():
    assert {token: task.prompt for token, task in TASKS.items()} == PROMPTS
    assert available_tasks() == list(PROMPTS)
    assert all(task.token == token for token, task in TASKS.items())


def test_inputs_follow_from_the_prompts():
    takes = {kind: {token for token, task in TASKS.items() if task.input == kind} for kind in ("phrase", "region")}
    assert takes["region"] == {token for token in PROMPTS if token.startswith("<REGION_TO_")}
    assert takes["phrase"] == {token for token in PROMPTS if "{input}" in PROMPTS[token]} - takes["region"]


def test_each_task_has_its_kind_of_result():
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


def test_each_task_has_its_metric():
    metrics = {
        "caption": {"<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>"},
        "detection": {"<OD>"},
        "instances": {
            "<DENSE_REGION_CAPTION>",
            "<OCR_WITH_REGION>",
            "<CAPTION_TO_PHRASE_GROUNDING>",
            "<OPEN_VOCABULARY_DETECTION>",
        },
        "proposals": {"<REGION_PROPOSAL>"},
        "masks": {"<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_SEGMENTATION>"},
        "exact_match": {"<REGION_TO_CATEGORY>", "<REGION_TO_DESCRIPTION>"},
        "ocr": {"<OCR>", "<REGION_TO_OCR>"},
    }
    assert {m: {t for t, task in TASKS.items() if task.metric == m} for m in metrics} == metrics


def test_coco_files_answer_five_tasks_and_proposals():
    assert {token: task.coco_label for token, task in TASKS.items() if task.coco_label} == {
        "<OD>": "category",
        "<DENSE_REGION_CAPTION>": "caption",
        "<REGION_PROPOSAL>": "none",
        "<REGION_TO_SEGMENTATION>": "none",
        "<REGION_TO_CATEGORY>": "category",
        "<REGION_TO_DESCRIPTION>": "caption",
    }


def test_each_task_with_an_input_has_an_example_of_it():
    examples = {"none": None, "phrase": "a sheep", "region": "<loc_100><loc_100><loc_600><loc_600>"}
    assert all(task.example == examples[task.input] for task in TASKS.values())


def test_each_task_has_a_description_of_one_line():
    descriptions = [task.description for task in [*TASKS.values(), FREE_QUESTION]]
    assert all(text and "\n" not in text and "X" not in text for text in descriptions)
    assert len(set(descriptions)) == 16


def test_the_list_of_tasks_is_a_copy():
    available_tasks().clear()
    assert available_tasks()


@pytest.mark.parametrize("name", ["<OD>", "<od>", "OD", "od", " <OD> ", "\tOd\n"])
def test_a_task_is_found_by_its_name_in_any_case(name):
    assert get_task(name) is TASKS["<OD>"]
    assert split_query(name) == (TASKS["<OD>"], "")


@pytest.mark.parametrize(
    ("name", "token", "closest"),
    [
        ("<CAPTIONS>", "<CAPTIONS>", "<CAPTION>"),
        ("dense_caption", "<DENSE_CAPTION>", "<DENSE_REGION_CAPTION>"),
        ("ocd", "<OCD>", "<OD>"),
        ("XODX", "<XODX>", "<OD>"),
    ],
)
def test_an_unknown_task_is_answered_with_the_closest_and_all(name, token, closest):
    with pytest.raises(ValueError, match=rf"^unknown task '{token}'; did you mean '{closest}'\? Known: ") as caught:
        get_task(name)
    assert str(caught.value).endswith(", ".join(PROMPTS))


@pytest.mark.parametrize(
    ("query", "token", "text"),
    [
        ("<CAPTION_TO_PHRASE_GROUNDING>the sheeps", "<CAPTION_TO_PHRASE_GROUNDING>", "the sheeps"),
        ("<OPEN_VOCABULARY_DETECTION> a > b ", "<OPEN_VOCABULARY_DETECTION>", "a > b"),
        ("<REGION_TO_OCR><loc_1><loc_2><loc_3><loc_4>", "<REGION_TO_OCR>", "<loc_1><loc_2><loc_3><loc_4>"),
        ("Describe the image", "", "Describe the image"),
        (" Is 3 > 2? ", "", "Is 3 > 2?"),
        ("What is <OD>?", "", "What is <OD>?"),
        ("OD of what?", "", "OD of what?"),
        ("<loc_1><loc_2><loc_3><loc_4> is what?", "", "<loc_1><loc_2><loc_3><loc_4> is what?"),
        ("", "", ""),
        ("<OD", "<OD>", ""),
    ],
)
def test_a_query_is_split_into_task_and_text(query, token, text):
    assert split_query(query) == (get_task(token), text)


@pytest.mark.parametrize("query", ["<0D>a sheep", "<0D"])
def test_a_query_with_an_unknown_token_is_not_a_question(query):
    with pytest.raises(ValueError, match=r"unknown task '<0D>'; did you mean '<OD>'"):
        split_query(query)


def test_the_free_form_question_is_not_in_the_table():
    assert get_task("") is FREE_QUESTION
    assert (FREE_QUESTION.prompt, FREE_QUESTION.input, FREE_QUESTION.result) == ("{input}", "phrase", "text")
    assert FREE_QUESTION not in TASKS.values()
    assert (FREE_QUESTION.token, FREE_QUESTION.name, TASKS["<OD>"].name) == ("", "a free-form question", "<OD>")


def test_a_registered_task_is_known_by_its_name(registered):
    assert get_task("count") is registered
    assert split_query("<COUNT>sheep") == (registered, "sheep")
    assert available_tasks()[-1] == "<COUNT>"


def test_a_token_is_registered_once(registered):
    with pytest.raises(ValueError, match=r"^the task <COUNT> is already registered$"):
        register_task(replace(COUNT, description="another"))
    assert TASKS["<COUNT>"] is registered


def test_a_task_without_a_token_is_not_registered():
    with pytest.raises(ValueError, match=r"^a registered task needs a token, as in <OD>$"):
        register_task(FREE_QUESTION)
    assert "" not in TASKS


@pytest.mark.parametrize("token", ["COUNT", "<count>", "<COUNT", "<CO UNT>", "<>", "x<COUNT>", "<COUNT>x"])
def test_a_malformed_token_is_refused(token):
    with pytest.raises(ValueError, match=re.escape(f"task token {token!r} must match <[A-Z0-9_]+>")):
        replace(COUNT, token=token)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "How many?"}, "with input='phrase' must contain {input}, got 'How many?'"),
        ({"input": "none"}, "with input='none' must not contain {input}, got 'How many {input} are there?'"),
    ],
)
def test_prompt_and_input_must_agree(changes, message):
    with pytest.raises(ValueError, match=re.escape(f"<COUNT>: the prompt of a task {message}")):
        replace(COUNT, **changes)
