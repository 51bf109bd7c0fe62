"""The measurement. The times themselves are not tested."""

import importlib
import json
import sys

import pytest
import torch

import florence_lab.benchmark
from florence_lab.benchmark import measure
from florence_lab.benchmark.measure import benchmark, peak_memory_gb
from florence_lab.benchmark.report import BenchmarkReport
from florence_lab.benchmark.runners import BACKENDS
from florence_lab.benchmark.workloads import SPEEDUPS, WORKLOADS
from florence_lab.cli import main
from florence_lab.exceptions import ArgumentError

HARDWARE = {"fp32 GFLOP/s": 1.0, "bf16 GFLOP/s": 2.0, "memory GB/s": 4.0}


@pytest.fixture(scope="module")
def no_hardware(short):
    """The hardware is not measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "measure_hardware", lambda device: HARDWARE)
        patch.setattr(measure, "peak_memory_gb", lambda *_: 0.5)
        yield


@pytest.fixture(scope="module")
def report(no_hardware, checkpoint):
    return benchmark(checkpoint, "cpu", repeats=2, workloads=["vision tower", "first token", "15 tasks"])


def test_each_workload_is_repeated_on_its_backends(report):
    for name, timings in report.timings_s.items():
        assert list(timings) == [backend for backend in BACKENDS if backend.startswith(WORKLOADS[name].backends)]
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in timings.values())
    assert list(report.timings_s) == ["vision tower", "first token", "15 tasks"]


def test_texts_of_both_libraries_are_compared(report):
    assert report.outputs_match == {"first token": True, "15 tasks": True}


def test_lower_bounds_follow_from_the_hardware(report):
    assert set(report.roofline_s) == {"vision tower", "first token", "each further token"}
    bounds = report.roofline_s["first token"]
    assert bounds["fp32"] == pytest.approx(2 * bounds["bf16"])
    assert bounds["fp32"] > report.roofline_s["vision tower"]["fp32"] > 0


def test_one_library_alone_can_be_measured(no_hardware, checkpoint):
    report = benchmark(checkpoint, "cpu", repeats=1, against="nothing", workloads=["first token"])
    assert list(report.timings_s["first token"]) == ["florence_lab fp32", "florence_lab auto"]
    assert report.outputs_match == {}


def test_an_unknown_workload_is_refused():
    with pytest.raises(ValueError, match="unknown workload 'one anser'; did you mean 'one answer'"):
        benchmark(workloads=["one anser"])


@pytest.mark.slow
def test_all_workloads_are_measured_and_compared(no_hardware, checkpoint):
    report = benchmark(checkpoint, "cpu", repeats=1)
    assert set(report.timings_s) == set(WORKLOADS)
    assert all(report.outputs_match.values())
    assert len(report.ratios()) == len(SPEEDUPS)


def test_the_command_refuses_what_cannot_be_measured(capsys, unreachable_hubs):
    with pytest.raises(ArgumentError, match="repeats must be at least 1, got 0"):
        benchmark(repeats=0)
    assert main(["benchmark", "--model_type", "someone/else"]) == 2
    assert "florence-2-large" in capsys.readouterr().err


def test_the_command_prints_and_saves_the_report(monkeypatch, capsys, tmp_path):
    calls = []
    timings = {"one answer": {"florence_lab fp32": [1.0]}}

    def fake(*arguments):
        calls.append(arguments)
        return BenchmarkReport({"model": "none"}, timings, {}, {}, {}, {"florence_lab fp32": 1.0})

    monkeypatch.setattr(measure, "benchmark", fake)
    out = tmp_path / "report.json"
    assert main(["benchmark", "--model_type", "florence-2-nano", "--against", "nothing", "--out", str(out)]) == 0
    assert calls == [("florence-2-nano", "auto", 5, "nothing")]
    assert str(out) in capsys.readouterr().out
    assert json.loads(out.read_text())["seconds"] == timings


def test_the_command_prints_the_report_even_if_it_cannot_be_saved(monkeypatch, capsys, tmp_path):
    out = tmp_path / "report.json"
    report = BenchmarkReport({"model": "none"}, {"one answer": {"florence_lab fp32": [1.0]}}, {}, {}, {}, {})
    monkeypatch.setattr(measure, "benchmark", lambda *_: out.mkdir() or report)
    assert main(["benchmark", "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert "model: none" in printed.out
    assert str(out) in printed.err


def test_the_command_measures_nothing_that_cannot_be_saved(monkeypatch, capsys):
    monkeypatch.setattr(measure, "benchmark", pytest.fail)
    assert main(["benchmark", "--out", "/proc/x/y.json"]) == 2
    assert "'/proc/x' is not a folder that can be written to" in capsys.readouterr().err


def test_the_module_can_be_imported_without_the_module_resource(monkeypatch):
    """Python has no `resource` on Windows."""
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delitem(sys.modules, measure.__name__)
    monkeypatch.setattr(florence_lab.benchmark, "measure", measure)  # restored after the import
    assert importlib.import_module(measure.__name__) is not measure


@pytest.mark.slow
def test_the_memory_is_that_of_a_new_process(checkpoint):
    """However much memory this process has taken before."""
    taken = torch.ones(2**29)
    taken_gb = taken.nbytes / 1e9
    del taken
    assert 0.1 < peak_memory_gb("transformers fp32", checkpoint, "cpu") < taken_gb
