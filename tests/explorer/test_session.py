"""Running a question: encoding once, growing answers, stopping."""

import threading

import pytest

from florence_lab.exceptions import GenerationInterrupted
from florence_lab.explorer.selections import ALL_TASKS, DETECT_CLASSES
from florence_lab.explorer.session import answer_question


def run(question, predictor, stop=None):
    return list(answer_question(question, "florence-2-nano", predictor, stop or threading.Event()))


@pytest.mark.parametrize(
    ("task", "sizes"),
    [
        ("<CAPTION>", [1, 1]),
        ("<OD>", [1, 1, 1]),
        (ALL_TASKS, [0, 8, 8]),
        (DETECT_CLASSES, [0, 1, 1]),
        ("grounded <CAPTION>", [1, 2, 2, 2]),
    ],
)
def test_answers_grow_and_the_last_one_is_complete(make_question, fake, task, sizes):
    answers = run(make_question(task), fake)
    assert [len(answer.results) for answer in answers] == sizes
    assert [answer.is_complete for answer in answers] == [False] * (len(sizes) - 1) + [True]


def test_instances_appear_one_by_one(make_question, fake):
    assert [answer.count for answer in run(make_question("<OD>"), fake)] == [1, 2, 2]


def test_an_image_is_encoded_once_for_each_predictor(make_question, fake):
    first, second = (run(make_question(task), fake)[-1] for task in ("<OD>", "<CAPTION>"))
    assert fake.num_encoded == 1
    assert first.image_seconds >= 0
    assert second.image_seconds is None


@pytest.mark.parametrize("task", ["<OD>", ALL_TASKS, DETECT_CLASSES, "grounded <CAPTION>"])
def test_a_stopped_question_is_interrupted_within_the_model(make_question, fake, task):
    stop = threading.Event()
    fake.gate.clear()
    threading.Thread(target=lambda: (fake.waiting.wait(20), stop.set(), fake.gate.set())).start()
    with pytest.raises(GenerationInterrupted):
        run(make_question(task), fake, stop)
    assert not fake.model.lm_head._forward_pre_hooks
