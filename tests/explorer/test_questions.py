"""The task menu and the validation of questions."""

import pytest

from florence_lab.exceptions import PromptError
from florence_lab.explorer.questions import ALL_TASKS, select_task, task_menu
from florence_lab.tasks import FREE_QUESTION, TASKS, Task


def test_the_menu_has_every_task_a_free_form_question_and_all_tasks():
    assert [selection.value for selection in task_menu()] == [*TASKS, "", ALL_TASKS]


def test_a_registered_task_is_in_the_menu(monkeypatch):
    monkeypatch.setitem(TASKS, "<COUNT>", Task("<COUNT>", "How many?", "none", "text", "a number"))
    assert "<COUNT>" in [selection.value for selection in task_menu()]
    assert TASKS["<COUNT>"] in select_task(ALL_TASKS).tasks


def test_all_tasks_are_those_without_input():
    selection = select_task(ALL_TASKS)
    assert selection.is_combined
    assert selection.tasks == tuple(task for task in TASKS.values() if task.input == "none")


def test_the_free_form_question_is_selected_by_an_empty_value():
    assert select_task("").tasks == (FREE_QUESTION,)
    assert not select_task("").is_combined


def test_an_unknown_task_names_the_closest_one():
    with pytest.raises(ValueError, match="did you mean '<OD>'"):
        select_task("<ODD>")


@pytest.mark.parametrize("task", [*TASKS, "", ALL_TASKS])
def test_a_valid_question_has_no_warning(make_question, task):
    assert make_question(task).validate() == ""


def test_a_missing_input_is_an_error(make_question):
    with pytest.raises(PromptError, match="needs a phrase"):
        make_question("<OPEN_VOCABULARY_DETECTION>", " ").validate()


def test_a_warning_about_the_input_is_returned(make_question):
    assert "Chinese" in make_question("<OPEN_VOCABULARY_DETECTION>", "一只羊").validate()
