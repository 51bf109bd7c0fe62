"""Questions: what is the same one, how it is called, and what is wrong with it."""

import pytest

from florence_lab.exceptions import PromptError
from florence_lab.explorer.images import load_sample
from florence_lab.explorer.selections import task_menu

REGION = (35, 237, 157, 337)


@pytest.mark.parametrize("task", [selection.value for selection in task_menu()])
def test_a_valid_question_has_no_warning(make_question, task):
    assert make_question(task).validate() == ""


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("<OPEN_VOCABULARY_DETECTION>", " ", "needs a phrase"),
        ("<REGION_TO_OCR>", (90, 10, 20, 50), "inverted"),
        ("", "<CAPTOIN>", "did you mean '<CAPTION>'"),
    ],
)
def test_an_invalid_input_is_an_error(make_question, task, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_question(task, text).validate()
    assert isinstance(caught.value, PromptError) or "did you mean" in message


def test_a_warning_about_the_input_is_returned(make_question):
    assert "Chinese" in make_question("<OPEN_VOCABULARY_DETECTION>", "一只羊").validate()


@pytest.mark.parametrize(
    "fields",
    [
        {"task": "<OCR>"},
        {"task": "<OPEN_VOCABULARY_DETECTION>", "text": "a dog"},
        {"image": load_sample("street")},
        {"model_names": ("florence-2-base",)},
        {"is_compiled": True},
    ],
)
def test_a_question_differs_from_another_by_its_key(make_question, fields):
    assert make_question().key == make_question().key
    assert make_question(**fields).key != make_question().key


@pytest.mark.parametrize(
    ("task", "text", "title"),
    [
        ("<OD>", None, "Object detection · sheep"),
        ("<OPEN_VOCABULARY_DETECTION>", "a sheep", "Open-vocabulary detection · “a sheep” · sheep"),
        ("<REGION_TO_CATEGORY>", REGION, "Category of a region · region (35, 237, 157, 337) · sheep"),
    ],
)
def test_the_title_names_task_text_and_image(make_question, task, text, title):
    assert make_question(task, text).title == title
