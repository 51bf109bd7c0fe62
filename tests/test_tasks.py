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
OWN_TOKENS = (  # of published fine-tunes, and others like them
    *("<DocVQA>", "<VQA>", "<GENERATE_TAGS>", "<GENERATE_PROMPT>", "<MIXED_CAPTION>", "<MIXED_CAPTION_PLUS>"),
    *(
        "<MIX_CAPTION>",
        "<MIX_CAPTION_PLUS>",
        "<ANALYZE>",
        "<CAPTION_VQA>",
        "<COUNT>",
        "<POINT>",
        "<DETECT>",
        "<SEGMENT>",
    ),
    *("<OCR_JSON>", "<ROD>", "<SHORT_CAPTION>", "<CAPTION2>", "<OCR2>", "<VQA2.0>", "<MyOD>", "<OVD>", "<OCR_VQA>"),
    *(
        "<DETAILED_CAPTION_EN>",
        "<CAPTIONING>",
        "<OPEN_VOCABULARY_SEGMENTATION>",
        "<REGION_TO_CAPTION>",
        "<REGION_CAPTION>",
    ),
    *(
        "<PHRASE_GROUNDING>",
        "<ACTION>",
        "<OCR_REGION>",
        "<tags>",
        "<MASK>",
        "<my task>",
        "<Doc-VQA>",
        "<\u63cf\u8ff0>",
        "<CROCO>",
        "<cap>",
    ),
)
MISSPELLED = {
    **dict.fromkeys(("<CAPTOIN>", "<CAPTIONS>", "<CAPTON>", "<captoin>", "<CAPTI0N>", "<CAPTION_>"), "<CAPTION>"),
    **dict.fromkeys(("<DETAILED CAPTION>", "<detailed-caption>", "<DETALED_CAPTION>"), "<DETAILED_CAPTION>"),
    **dict.fromkeys(("<ODD>", "<0D>", "<DO>", "<OO>"), "<OD>"),
    **dict.fromkeys(("<ORC>", "<OCRR>"), "<OCR>"),
    **dict.fromkeys(("<OCR_WITH_REGIONS>", "<OCRWITHREGION>", "<OCR_WIHT_REGION>"), "<OCR_WITH_REGION>"),
    "<MORE_DETAILED_CAPTIONS>": "<MORE_DETAILED_CAPTION>",
    "<DENSE_REGION_CAPTIONS>": "<DENSE_REGION_CAPTION>",
    "<REGION_PROPOSALS>": "<REGION_PROPOSAL>",
    "<CAPTION_TO_PHRASE_GROUNDNG>": "<CAPTION_TO_PHRASE_GROUNDING>",
    "<REFERING_EXPRESSION_SEGMENTATION>": "<REFERRING_EXPRESSION_SEGMENTATION>",
    "<OPEN_VOCAB_DETECTION>": "<OPEN_VOCABULARY_DETECTION>",
    "<REGION_TO_CATAGORY>": "<REGION_TO_CATEGORY>",
    "<REGION_TO_DESCRIPTON>": "<REGION_TO_DESCRIPTION>",
    "<REGION_TO_ORC>": "<REGION_TO_OCR>",
    "<REGION_TO_SEGMENTATON>": "<REGION_TO_SEGMENTATION>",
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
        ("dense_caption", "<DENSE_CAPTION>", "<DENSE_REGION_CAPTION>"),
        ("ocd", "<OCD>", "<OD>"),
        ("XODX", "<XODX>", "<OD>"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest_and_all(name, token, closest):
    with pytest.raises(ValueError, match=rf"^unknown task '{token}'; did you mean '{closest}'\? Known: ") as caught:
        get_task(name)
    assert str(caught.value).endswith(f"{', '.join(PROMPTS)}. A token of your own has brackets: <{name}>")


@pytest.mark.parametrize("token", OWN_TOKENS)
def test_an_own_token_is_a_free_text_task(token):
    task = get_task(token)
    assert (task.token, task.prompt, task.input, task.result) == (token, f"{token}{{input}}", "any", "text")
    assert split_query(f"{token}How many?") == (task, "How many?")
    assert token not in TASKS


@pytest.mark.parametrize(("token", "nearest"), MISSPELLED.items())
def test_a_misspelled_token_is_answered_with_the_nearest_and_how_to_use_it(token, nearest):
    hint = f"register_task(Task('{token}')) makes it a token of your own"
    with pytest.raises(ValueError, match=f"^unknown task '{token}'; did you mean '{nearest}'\\?") as caught:
        get_task(token)
    assert hint in str(caught.value)
    with pytest.raises(ValueError, match=f"^unknown task '{token}'"):
        split_query(f"{token} what?")


def test_a_misspelled_token_can_be_registered():
    task = register_task(Task("<CAPTIONS>"))
    try:
        assert get_task("<CAPTIONS>") is task
        assert split_query("<captions> of what?") == (task, " of what?")
    finally:
        del TASKS["<CAPTIONS>"]


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
        ("<DocVQA> What is the date? ", "<DocVQA>", " What is the date? "),
        ("  <GENERATE_TAGS>", "<GENERATE_TAGS>", ""),
        ("<VQA>a > b", "<VQA>", "a > b"),
        ("<5 apples> or more?", "<5 apples>", " or more?"),
    ],
)
def test_a_query_is_split_into_task_and_text(query, token, text):
    assert split_query(query) == (get_task(token), text)


@pytest.mark.parametrize("query", ["<0D>a sheep", "<0D", "<od >a sheep", "<od >"])
def test_a_query_with_a_misspelled_token_is_not_a_question(query):
    with pytest.raises(ValueError, match=r"unknown task '<(0D|OD )>'; did you mean '<OD>'"):
        split_query(query)


@pytest.mark.parametrize("query", ["<5 apples", "< 5 > 3", "<>", "<a{input}>b"])
def test_a_query_with_a_malformed_token_is_not_a_question(query):
    with pytest.raises(ValueError, match=r"^unknown task '<"):
        split_query(query)


@pytest.mark.parametrize("token", ["<and>", "<sep>", "</s>", "<image>", "<bbox>", "<poly>", "<loc_1000>", "<LOC_5>"])
def test_tokens_with_a_meaning_of_their_own_are_no_tasks(token):
    for use in (get_task, Task):
        with pytest.raises(
            ValueError, match=f"task token '{token}' is a token of Florence-2 with a meaning of its own"
        ):
            use(token)


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
    other = replace(COUNT, description="another")
    with pytest.raises(ValueError, match=r"^the task <COUNT> is already registered as Task\(.*replace=True") as caught:
        register_task(other)
    assert repr(COUNT) in str(caught.value)
    assert TASKS["<COUNT>"] is registered
    assert register_task(replace(COUNT)) == registered  # a cell of a notebook that is run again
    assert register_task(other, replace=True) is TASKS["<COUNT>"] is other


def test_a_published_token_in_another_case_is_not_registered():
    for token in ("<od>", "<Od>"):
        with pytest.raises(ValueError, match=r"^the task <OD> is already registered as Task\(.*choose another token$"):
            register_task(Task(token), replace=True)
    assert "<od>" not in TASKS


def test_case_is_exact_first():
    lower, upper = Task("<MyOd>"), Task("<MyOD>", "Find {input}.", "phrase", "boxes")
    for task in (lower, upper):
        register_task(task)
    try:
        assert [get_task(name) for name in ("<MyOd>", "<MyOD>", "<myod>", "MYOD")] == [lower, upper, lower, lower]
        assert split_query("<MyOD>a cat") == (upper, "a cat")
    finally:
        del TASKS["<MyOd>"], TASKS["<MyOD>"]


def test_the_fields_of_a_task_follow_from_its_token():
    assert Task("<VQA>") == Task("<VQA>", "<VQA>{input}", "any", "text", "a task of your own")
    assert Task("<TAGS>", input="none").prompt == "<TAGS>"
    assert Task("<MyOD>", prompt="<MyOD>{input}", input="phrase", result="boxes").prompt == "<MyOD>{input}"
    assert [task.is_free_text for task in (Task("<VQA>"), FREE_QUESTION, TASKS["<CAPTION>"], COUNT)] == [1, 1, 0, 0]
    assert [task.needs_input for task in (Task("<VQA>"), FREE_QUESTION, TASKS["<CAPTION>"], COUNT)] == [0, 1, 0, 1]


def test_a_task_without_a_token_is_not_registered():
    with pytest.raises(ValueError, match=r"^a registered task needs a token, as in <OD>$"):
        register_task(FREE_QUESTION)
    assert "" not in TASKS


@pytest.mark.parametrize(
    "token", ["COUNT", "<COUNT", "<COUNT >", "< COUNT>", "<>", "x<COUNT>", "<COUNT>x", "<A<B>", "<{}>"]
)
def test_a_malformed_token_is_refused(token):
    with pytest.raises(ValueError, match=re.escape(f"task token {token!r} must stand in brackets, as in <OD>")):
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
