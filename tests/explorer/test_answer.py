"""Answers, and the code that gives them."""

import threading

import pytest

from florence_lab.explorer.answer import answer_code
from florence_lab.explorer.selections import ALL_TASKS, DETECT_CLASSES, task_menu
from florence_lab.explorer.session import answer_question
from florence_lab.viewer.threshold import filter_result, num_hidden

VALUES = [selection.value for selection in task_menu()]
KINDS = ["<CAPTION>", "<OD>", "<OCR_WITH_REGION>", "grounded <CAPTION>", DETECT_CLASSES, ALL_TASKS]
MODELS = ("florence-2-nano", "florence-2-base")


@pytest.fixture
def answers_to(make_question, fake):
    """Return the complete answers to a question, one for each model."""

    def run(*arguments, **fields):
        question = make_question(*arguments, **fields)
        return [list(answer_question(question, name, fake, threading.Event()))[-1] for name in question.model_names]

    return run


def records(results):
    """What is compared of a result, or of a list of results."""
    results = results if isinstance(results, list) else [results]
    return [(result.to_dict(), result.prompt, result.phrase) for result in results]


def filtered(answers, threshold=0.0):
    return [filter_result(result, threshold) for answer in answers for result in answer.results]


@pytest.mark.parametrize(
    ("task", "models", "threshold"),
    [
        *((value, MODELS[:1], 0.0) for value in VALUES),
        *((value, MODELS[:1], 0.5) for value in KINDS),
        *((value, MODELS, threshold) for value in KINDS for threshold in (0.0, 0.5)),
    ],
)
def test_the_code_gives_what_is_shown(answers_to, run_code, task, models, threshold):
    answers = answers_to(task, model_names=models)
    code = answer_code(answers, threshold)
    has_hidden = any(num_hidden(result, threshold) for result in filtered(answers))
    assert len(code.splitlines()) == (4 if has_hidden else 3)
    assert records(run_code(code)) == records(filtered(answers, threshold))
    assert [name for (name,), _ in run_code.loads] == list(models)


def test_the_code_loads_a_compiled_model(answers_to, run_code):
    run_code(answer_code(answers_to("<OD>", is_compiled=True)))
    assert run_code.loads == [(("florence-2-nano",), {"compile": True})]


def test_a_phrase_with_quotes_and_backslashes_is_quoted(answers_to, run_code):
    phrase = 'a "sheep\'s" \\ tail'
    assert run_code(answer_code(answers_to("<OPEN_VOCABULARY_DETECTION>", phrase))).phrase == phrase


def test_instances_of_all_tasks_are_counted(answers_to):
    (answer,) = answers_to(ALL_TASKS)
    assert answer.count == sum(len(result) for result in answer.results if hasattr(result, "labels"))
    assert "image encoder" in answer.times
