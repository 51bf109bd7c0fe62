"""Exceptions, warnings and their messages."""

import threading
import warnings

import pytest

import florence_lab
from florence_lab import exceptions
from florence_lab.exceptions import (
    FlorenceLabError,
    FlorenceLabWarning,
    capture_warnings,
    summarize_error,
    unknown_name,
    warn,
)


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("CheckpointError", ValueError),
        ("DatasetError", ValueError),
        ("HubError", OSError),
        ("ImageError", ValueError),
        ("PromptError", ValueError),
        ("TrainingError", RuntimeError),
    ],
)
def test_every_exception_is_also_a_builtin_one_and_public(name, builtin):
    error = getattr(exceptions, name)
    assert issubclass(error, (FlorenceLabError, builtin))
    assert issubclass(error, builtin)
    assert getattr(florence_lab, name) is error


def test_a_warning_points_at_the_caller():
    with pytest.warns(FlorenceLabWarning, match="^careful$") as caught:
        warn("careful")
    assert caught[0].filename == __file__


def test_an_unknown_name_is_answered_with_the_closest_and_all_known_ones():
    assert unknown_name("fruit", "Appel", ["apple", "pear"]) == (
        "unknown fruit 'Appel'; did you mean 'apple'? Known: apple, pear"
    )
    assert unknown_name("fruit", "xyz", ["apple", "pear"]) == "unknown fruit 'xyz'. Known: apple, pear"


def test_the_case_of_a_name_does_not_matter_for_the_closest():
    assert "did you mean 'FLORENCE'" in unknown_name("model", "florense", ["FLORENCE"])


def test_the_innermost_error_is_summarized_in_one_line():
    def fail():
        try:
            raise OSError("no route\nto host")
        except OSError as error:
            raise ValueError("failed") from error

    with pytest.raises(ValueError, match="failed") as caught:
        fail()
    assert summarize_error(caught.value) == "no route"


def test_a_suppressed_cause_is_not_summarized():
    def fail():
        try:
            raise OSError("no route")
        except OSError:
            raise ValueError("not reachable") from None

    with pytest.raises(ValueError, match="not reachable") as caught:
        fail()
    assert summarize_error(caught.value) == "not reachable"


def test_an_error_without_a_message_is_summarized_by_its_type():
    assert summarize_error(KeyError()) == "KeyError"
    assert summarize_error(ValueError("  ")) == "ValueError"


def test_a_summary_is_limited_in_length():
    assert summarize_error(ValueError("x" * 500)) == "x" * 300
    assert summarize_error(ValueError("x" * 500), max_length=10) == "x" * 10


def test_captured_warnings_are_those_of_the_thread_and_leave_the_settings_alone():
    before, others = (list(warnings.filters), warnings.showwarning), []
    inside, go = threading.Event(), threading.Event()

    def run():
        with capture_warnings() as messages:
            inside.set()
            assert go.wait(20)
            warn("there")
        others.extend(messages)

    thread = threading.Thread(target=run)
    thread.start()
    assert inside.wait(20)
    with capture_warnings() as messages:  # begins before the thread has ended, and ends after it
        go.set()
        thread.join()
        warn("here")
        warn("here")
    assert (others, messages) == (["there"], ["here", "here"])
    assert (list(warnings.filters), warnings.showwarning) == before


def test_a_warning_after_captured_ones_is_issued_again():
    with capture_warnings():
        warn("captured")
    with pytest.warns(FlorenceLabWarning, match="issued"):
        warn("issued")
