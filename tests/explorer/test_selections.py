"""The choices of the task menu."""

import pytest

from florence_lab.exceptions import FlorenceLabError
from florence_lab.explorer.selections import ALL_TASKS, DETECT_CLASSES, GROUNDING, select, task_menu
from florence_lab.tasks import TASKS, Task

VALUES = [selection.value for selection in task_menu()]


def test_the_menu_has_every_task_and_the_combined_ones_once():
    assert {*TASKS, "", ALL_TASKS, DETECT_CLASSES, "grounded <CAPTION>"} < {*VALUES}
    labels = [selection.label for selection in task_menu()]
    assert len({*labels}) == len(labels)
    assert "Object detection · <OD>" in labels


def test_the_menu_is_in_the_order_of_what_is_taken():
    order = ["none", "phrase", "region", "any"]
    *tasks, question = [selection.input for selection in task_menu()]
    assert tasks == sorted(tasks, key=order.index)
    assert (VALUES[-1], question) == ("", "phrase")


@pytest.mark.parametrize("value", VALUES)
def test_a_choice_is_selected_by_its_value(value):
    assert select(value) in task_menu()


def test_a_registered_task_is_in_the_menu_and_among_all_tasks(monkeypatch):
    monkeypatch.setitem(TASKS, "<COUNT>", Task("<COUNT>", "How many?", "none", "text", "a number"))
    assert "<COUNT>" in [selection.value for selection in task_menu()]
    assert "<COUNT>" in select(ALL_TASKS).tokens


def test_an_unknown_task_names_the_closest_one():
    with pytest.raises(ValueError, match="did you mean '<OD>'"):
        select("<ODD>")


@pytest.mark.parametrize("text", [None, "", " , ", "sheep,,dog", "sheep, Sheep", "<loc_5>"])
def test_names_of_classes_that_cannot_be_detected_are_an_error(text):
    with pytest.raises(FlorenceLabError):
        select(DETECT_CLASSES).validate(text, (100, 100))


def test_a_caption_without_words_is_an_error(fake, sheep, monkeypatch):
    monkeypatch.setattr(fake, "stream", lambda image, task: iter([]))
    with pytest.raises(FlorenceLabError, match="nothing to locate"):
        list(select("grounded <CAPTION>").run(fake, fake.encode_image(sheep.image), None))


def test_a_caption_is_grounded_by_its_own_words(fake, sheep):
    *_, (caption, grounding) = select("grounded <CAPTION>").run(fake, fake.encode_image(sheep.image), None)
    assert (grounding.task, grounding.phrase) == (GROUNDING, caption.text)
