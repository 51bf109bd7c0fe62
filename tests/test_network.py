"""Calls with a time limit."""

import time

import pytest

from florence_lab.network import run_with_timeout


def test_the_result_of_the_function_is_returned():
    assert run_with_timeout(1, lambda: 3) == 3


def test_an_error_of_the_function_is_raised():
    with pytest.raises(KeyError, match="inside"):
        run_with_timeout(1, lambda: {}["inside"])


def test_a_function_that_takes_too_long_times_out():
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0.05 s"):
        run_with_timeout(0.05, lambda: time.sleep(0.5))
    assert time.monotonic() - started < 0.4
