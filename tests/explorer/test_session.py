"""Running a question: encoding once, growing answers, stopping."""

import threading

import pytest

from florence_lab.explorer.questions import ALL_TASKS
from florence_lab.explorer.session import answer_question
from florence_lab.inference.generation import GenerationInterrupted


def run(question, predictor, stop=None):
    return list(answer_question(question, "florence-2-nano", predictor, stop or threading.Event()))


def test_instances_appear_one_by_one_and_the_last_answer_is_complete(make_question, fake):
    answers = run(make_question("<OD>"), fake)
    assert [answer.count for answer in answers] == [1, 2, 2]
    assert [answer.is_complete for answer in answers] == [False, False, True]


def test_an_image_is_encoded_once_for_each_predictor(make_question, fake):
    first, second = (run(make_question(task), fake)[-1] for task in ("<OD>", "<CAPTION>"))
    assert fake.num_encoded == 1
    assert first.image_seconds >= 0
    assert second.image_seconds is None


def test_all_tasks_are_answered_together(make_question, fake):
    pending, complete = run(make_question(ALL_TASKS), fake)
    assert (pending.results, pending.is_complete) == ([], False)
    assert [result.task for result in complete.results] == complete.question.tokens
    assert complete.is_complete


@pytest.mark.parametrize("task", ["<OD>", ALL_TASKS])
def test_a_stopped_question_is_interrupted_within_the_model(make_question, fake, task):
    stop = threading.Event()
    fake.gate.clear()
    threading.Thread(target=lambda: (fake.waiting.wait(20), stop.set(), fake.gate.set())).start()
    with pytest.raises(GenerationInterrupted):
        run(make_question(task), fake, stop)
    assert not fake.model.lm_head._forward_pre_hooks
