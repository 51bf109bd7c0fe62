"""No public function answers an odd argument with an exception from the depths of another library."""

import os
import random
import shutil

import pytest
from robustness.calls import CallTimeout, OddCall, Target, odd_calls, outcome, public_targets
from robustness.examples import INSTANCES, Samples

from florence_lab import ArgumentError

TARGETS = {target.name: target for target in public_targets()}
CALLS = [call for target in public_targets() for call in odd_calls(target)]
NUM_SAMPLED = 100

EXPENSIVE = ("Predictor.compile", "calibrate", "sft")
"""Names whose valid calls take a minute, or need a trained model; they have tests of their own."""


@pytest.fixture(scope="module")
def samples(small, tmp_path_factory):
    """The samples, on a copy of the small checkpoint in a folder of its own."""
    return Samples(shutil.copytree(small.name, tmp_path_factory.mktemp("calls") / "checkpoint"))


@pytest.fixture(autouse=True)
def _isolated(tmp_path, monkeypatch, unreachable_hubs):
    """Relative paths are written to a temporary folder, and no hub is reachable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")


def foreign(calls, samples):
    """Return a line for each call that raises a foreign exception or takes too long."""
    lines = {str(call): outcome(lambda call=call: call.run(samples)) for call in calls}
    return [f"{name}: {line}" for name, line in lines.items() if line]


def test_at_least_two_thousand_calls_are_generated():
    assert len({str(call) for call in CALLS}) == len(CALLS) >= 2000


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_valid_arguments_of_a_public_name_are_accepted(target, samples):
    arguments = target.valid_arguments(samples)
    receiver = [INSTANCES[target.owner](samples)] if target.owner else []
    if target.name not in EXPENSIVE:
        target.function(*receiver, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_odd_arguments_of_a_public_name_are_answered_or_refused(target, samples):
    calls = list(odd_calls(target))
    print(f"{len(calls)} calls")
    assert foreign(calls, samples) == []


def test_a_sample_of_odd_calls_is_answered_or_refused(samples):
    quick = [call for call in CALLS if not call.target.name.startswith(("load", "evaluate", "explore", "merge"))]
    assert foreign(random.Random(18).sample(quick, NUM_SAMPLED), samples) == []


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("function", "is_foreign"),
    [
        (lambda: None, False),
        (lambda: _raise(ArgumentError("x")), False),
        (lambda: _raise(ValueError("x")), True),  # not raised by the package
        (lambda: "a".split(5), True),
        (lambda: _raise(CallTimeout("x")), True),
        (lambda: os.stat("/nonexistent/x"), False),
    ],
)
def test_an_exception_is_foreign_unless_the_package_raises_it(function, is_foreign):
    assert bool(outcome(function)) == is_foreign


def test_a_call_that_takes_too_long_is_foreign():
    def loop():
        while True:
            pass

    assert "took over 0.2 s" in outcome(loop, 0.2)


def test_a_call_is_named_by_its_parameter_and_value():
    assert str(OddCall(Target("load", print), "device", "None")) == "load(device=None)"
