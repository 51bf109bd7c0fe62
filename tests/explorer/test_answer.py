"""Answers: filtering, files, and code that gives the same result."""

import ast
import io
import json
import threading
from dataclasses import replace

import pytest
from PIL import Image

import florence_lab
from florence_lab.explorer.questions import ALL_TASKS
from florence_lab.explorer.session import answer_question
from florence_lab.tasks import TASKS


@pytest.fixture
def answer_to(make_question, fake):
    """Return the complete answer to a question."""

    def run(*arguments, **fields):
        question = make_question(*arguments, **fields)
        *_, answer = answer_question(question, "florence-2-nano", fake, threading.Event())
        return answer

    return run


@pytest.fixture
def run_code(monkeypatch, fake):
    """Run code as a notebook does, with `fake` in place of the model, and return the value of its last line."""
    loads = []
    monkeypatch.setattr(florence_lab, "load", lambda *a, **k: loads.append((a, k)) or fake, raising=False)

    def run(code):
        *statements, last = ast.parse(code).body
        names = {}
        exec(compile(ast.Module(statements, []), "cell", "exec"), names)
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)

    run.loads = loads
    return run


@pytest.mark.parametrize("task", [*TASKS, ""])
def test_the_code_of_each_task_has_three_lines_and_gives_the_result(answer_to, run_code, task):
    answer = answer_to(task)
    code = answer.code()
    assert len(code.splitlines()) == 3
    result, (expected,) = run_code(code), answer.results
    assert (result.to_dict(), result.prompt) == (expected.to_dict(), expected.prompt)


def test_the_code_with_a_threshold_gives_the_filtered_result(answer_to, run_code):
    """The last line named a variable that no line before it defined."""
    answer = answer_to("<OD>")
    result, (expected,) = run_code(answer.code(0.5)), answer.filtered(0.5)
    assert len(result) == 1
    assert result.to_dict() == expected.to_dict()


def test_a_threshold_that_hides_nothing_is_not_in_the_code(answer_to):
    answer = answer_to("<OD>")
    assert answer.code(0.1) == answer.code()


def test_the_code_of_all_tasks_gives_the_results(answer_to, run_code):
    answer = answer_to(ALL_TASKS)
    assert [r.to_dict() for r in run_code(answer.code())] == [r.to_dict() for r in answer.results]


def test_the_code_loads_a_compiled_model(answer_to, run_code):
    run_code(answer_to("<OD>", is_compiled=True).code())
    assert run_code.loads == [(("florence-2-nano",), {"compile": True})]


def test_a_phrase_with_quotes_and_backslashes_is_quoted(answer_to, run_code):
    phrase = 'a "sheep\'s" \\ tail'
    assert run_code(answer_to("<OPEN_VOCABULARY_DETECTION>", phrase).code()).phrase == phrase


def test_a_threshold_hides_instances_with_a_lower_score(answer_to):
    answer = answer_to("<OD>")
    assert answer.num_hidden(0.5) == 1
    (result,) = answer.filtered(0.5)
    assert result.scores.tolist() == [0.9]


@pytest.mark.parametrize("task", ["<CAPTION>", ALL_TASKS])
def test_a_threshold_has_no_effect_on_texts_and_all_tasks(answer_to, task):
    answer = answer_to(task)
    assert answer.scores is None
    assert answer.num_hidden(1) == 0
    assert answer.filtered(1) == answer.results


def test_files_hold_the_overlay_the_result_and_coco(answer_to):
    answer = answer_to("<OD>")
    files = answer.files(0.5)
    assert {name: mime for name, (mime, _) in files.items()} == {
        "sheep-OD.png": "image/png",
        "sheep-OD.json": "application/json",
        "sheep-OD-coco.json": "application/json",
    }
    assert Image.open(io.BytesIO(files["sheep-OD.png"][1])).width >= 400
    record = json.loads(files["sheep-OD.json"][1])
    (result,) = answer.filtered(0.5)
    assert list(record) == ["model", "image", "task", "phrase", "prompt", "raw", "result"]
    assert record["result"] == result.to_dict()
    assert record["image"] == {"name": "sheep", "size": [512, 512]}
    assert json.loads(files["sheep-OD-coco.json"][1]) == result.to_coco(file_name="sheep")


def test_files_of_all_tasks_hold_a_gallery_and_the_results(answer_to):
    answer = answer_to(ALL_TASKS)
    files = answer.files()
    assert list(files) == ["sheep-all-tasks.png", "sheep-all-tasks.json"]
    width, height = Image.open(io.BytesIO(files["sheep-all-tasks.png"][1])).size
    assert width > 4 * 400
    assert height > 2 * 400
    records = json.loads(files["sheep-all-tasks.json"][1])["answers"]
    assert [record["result"] for record in records] == [result.to_dict() for result in answer.results]


def test_an_answer_without_result_has_no_overlay(answer_to):
    with pytest.raises(ValueError, match="no result yet"):
        replace(answer_to("<OD>"), results=[]).overlay()
