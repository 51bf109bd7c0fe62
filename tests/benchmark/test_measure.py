"""The measurement. The times themselves are not tested."""

import functools
import importlib
import itertools
import json
import sys
import time
from types import SimpleNamespace

import pytest
import torch

import florence_lab.benchmark
from florence_lab.benchmark import measure, memory
from florence_lab.benchmark.hardware import Work, measure_hardware, roofline
from florence_lab.benchmark.measure import PEAK_MEMORY, ROWS, benchmark
from florence_lab.benchmark.memory import peak_memory_gb
from florence_lab.benchmark.models import build_model
from florence_lab.benchmark.report import BenchmarkReport
from florence_lab.benchmark.runners import FlorenceLabRunner, available_backends
from florence_lab.benchmark.training import LORA_STEP, LORA_STEP_CACHED
from florence_lab.benchmark.workloads import CAPTIONS_OF_PIXELS, WORKLOADS
from florence_lab.cli import main
from florence_lab.exceptions import ArgumentError

BACKENDS = ["transformers fp32", "transformers bf16", "florence_lab fp32", "florence_lab bf16"]
HARDWARE = {"fp32 GFLOP/s": 1.0, "bf16 GFLOP/s": 2.0, "memory GB/s": 4.0}


@pytest.fixture(scope="module")
def no_hardware(short):
    """The hardware is not measured, and each runner is loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "build_runner", functools.cache(measure.build_runner))
        patch.setattr(measure, "measure_hardware", lambda device, formats: HARDWARE)
        patch.setattr(measure, "peak_memory_gb", lambda *_: 0.5)
        yield


@pytest.fixture(scope="module")
def report(no_hardware, checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "available_backends", lambda device: list(BACKENDS))
        yield benchmark(checkpoint, "cpu", repeats=2, rows=["captions", "vision tower", "first token", "15 tasks"])


def test_each_row_is_repeated_on_its_backends(report):
    for name, timings in report.timings_s.items():
        assert list(timings) == WORKLOADS[name].select(BACKENDS, torch.device("cpu"))
        assert list(report.first_call_s[name]) == list(timings)
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in timings.values())
    assert list(report.timings_s) == ["vision tower", "first token", "15 tasks", "captions"]
    assert report.failures == {}


def test_captions_are_measured_at_the_best_batch_size(report):
    assert set(report.batch_sizes) == {"transformers bf16", "florence_lab bf16"}
    assert set(report.batch_sizes.values()) <= {1, 2}


@pytest.mark.parametrize("best", [1, 2])
def test_the_fastest_batch_size_is_the_best(no_hardware, checkpoint, monkeypatch, best):
    monkeypatch.setattr(measure, "time_once", lambda run: (run(), None))
    monkeypatch.setattr(FlorenceLabRunner, "caption_files", lambda self, paths, size: 1.0 if size == best else 2.0)
    report = benchmark(checkpoint, "cpu", repeats=1, against="nothing", rows=["captions"])
    assert set(report.batch_sizes.values()) == {best}


def test_texts_of_both_libraries_are_compared(report):
    assert report.outputs_match == {CAPTIONS_OF_PIXELS: True}


def test_a_row_that_fails_is_listed_and_the_others_go_on(no_hardware, checkpoint, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FlorenceLabRunner, "encode", fail)
    report = benchmark(checkpoint, "cpu", repeats=1, rows=["vision tower", "first token"])
    labs = [name for name in available_backends(torch.device("cpu")) if name.startswith("florence_lab")]
    assert report.failures["vision tower"] == dict.fromkeys(labs, "OutOfMemoryError: CUDA out of memory")
    assert "florence_lab fp32" not in report.timings_s["vision tower"]
    assert "florence_lab fp32" in report.timings_s["first token"]
    assert "vision tower, florence_lab fp32: OutOfMemoryError: CUDA out of memory" in str(report)


def test_no_row_is_started_after_the_time_limit(no_hardware, checkpoint):
    report = benchmark(checkpoint, "cpu", rows=["vision tower", PEAK_MEMORY], time_limit=1e-3)
    assert report.timings_s == {}
    assert report.peak_memory_gb == {}
    assert report.failures["vision tower"] == {"all": "the time limit of 0.001 s was reached"}
    assert "vision tower, all: the time limit of 0.001 s was reached" in str(report)


def test_a_row_is_repeated_less_often_to_keep_to_the_time_limit(no_hardware, checkpoint, monkeypatch):
    clock = SimpleNamespace(perf_counter=itertools.count().__next__, strftime=time.strftime)  # a second for each look
    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(FlorenceLabRunner, "encode", lambda self, pixels: None)
    rows = ["vision tower", "first token"]
    report = benchmark(checkpoint, "cpu", repeats=1000, against="nothing", rows=rows, time_limit=40)
    assert 15 <= len(report.timings_s["vision tower"]["florence_lab fp32"]) <= 20


def test_lower_bounds_follow_from_the_hardware(report):
    assert set(report.roofline_s) == {"vision tower", "first token", "15 tasks", "captions", "each further token"}
    bounds = report.roofline_s["first token"]
    assert bounds["fp32"] == pytest.approx(2 * bounds["bf16"])
    assert bounds["fp32"] > report.roofline_s["vision tower"]["fp32"] > 0


def test_lower_bounds_count_weights_once_for_all_rows_until_arithmetic_limits():
    hardware = {"bf16 GFLOP/s": 1000.0, "memory GB/s": 10.0}
    work = Work(image_gflop=100, text_gflop=50, num_decoder_weights=10**9)
    bounds = roofline(work, hardware, torch.device("cpu"), ["bf16"])
    assert bounds["vision tower"]["bf16"] == pytest.approx(0.1)
    assert bounds["each further token"]["bf16"] == pytest.approx(0.2)  # 2 GB
    assert bounds["one answer"]["bf16"] == pytest.approx(0.15 + 64 * 0.2)
    assert bounds["one answer, 3 beams"] == bounds["one answer"]
    assert bounds["one answer, image encoded"]["bf16"] == pytest.approx(0.05 + 64 * 0.2)
    fast = roofline(work, {**hardware, "memory GB/s": 1e6}, torch.device("cpu"), ["bf16"])
    assert fast["captions"]["bf16"] == pytest.approx(0.15 + 64 * 2e9 / 1e12)


def test_work_is_counted_without_computing(checkpoint):
    model, _ = build_model(checkpoint)
    work = Work.of(model, torch.zeros(2, 3, 192, 192))
    decoder = model.model.language_model.decoder.layers
    assert work.image_gflop > work.text_gflop > 0
    assert work.num_decoder_weights < sum(p.numel() for p in [*decoder.parameters(), model.lm_head.weight])


def test_hardware_is_measured_in_each_format(monkeypatch):
    monkeypatch.setattr(torch, "ones", lambda *args, **kwargs: torch.zeros(8, 8, dtype=kwargs.get("dtype")))
    before = torch.get_float32_matmul_precision()
    assert set(measure_hardware(torch.device("cpu"), ["fp32", "tf32"])) == {
        "fp32 GFLOP/s",
        "tf32 GFLOP/s",
        "memory GB/s",
    }
    assert torch.get_float32_matmul_precision() == before


def test_one_library_alone_can_be_measured(no_hardware, checkpoint):
    report = benchmark(checkpoint, "cpu", repeats=1, against="nothing", rows=["first token"])
    assert set(report.timings_s["first token"]) <= {"florence_lab fp32", "florence_lab bf16"}
    assert report.outputs_match == {}


def test_an_unknown_row_is_refused():
    with pytest.raises(ValueError, match="unknown row 'one anser'; did you mean 'one answer'"):
        benchmark(rows=["one anser"])


@pytest.mark.slow
def test_all_rows_are_measured(no_hardware, checkpoint):
    report = benchmark(checkpoint, "cpu", repeats=1)
    assert report.failures == {}
    assert {*report.timings_s, PEAK_MEMORY} == set(ROWS)
    assert all(report.outputs_match.values())


@pytest.mark.slow
def test_training_steps_are_timed(no_hardware, checkpoint):
    report = benchmark(checkpoint, "cpu", repeats=3, rows=[LORA_STEP, LORA_STEP_CACHED])
    assert report.failures == {}
    assert set(report.timings_s) == {LORA_STEP, LORA_STEP_CACHED}
    assert all(len(seconds) == 3 for by_backend in report.timings_s.values() for seconds in by_backend.values())


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
    assert main(["benchmark", "--model_type", "florence-2-nano", "--against", "nothing", "--json", str(out)]) == 0
    assert calls == [("florence-2-nano", "auto", 5, "nothing", ROWS, None)]
    options = ["--rows", "one answer", "captions", "--repeats", "2", "--time_limit", "5min", "--out", str(out)]
    assert main(["benchmark", *options]) == 0
    assert calls[1] == ("florence-2-base", "auto", 2, "transformers", ["one answer", "captions"], 300)
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
    monkeypatch.delitem(sys.modules, memory.__name__)
    monkeypatch.setattr(florence_lab.benchmark, "memory", memory)  # restored after the import
    assert importlib.import_module(memory.__name__) is not memory


@pytest.mark.slow
def test_the_memory_is_that_of_a_new_process(checkpoint):
    """However much memory this process has taken before."""
    taken = torch.ones(2**29)
    taken_gb = taken.nbytes / 1e9
    del taken
    assert 0.1 < peak_memory_gb("transformers fp32", checkpoint, "cpu") < taken_gb
