"""The arithmetic and the files of the report."""

import json

import pandas as pd
import pytest

from florence_lab.benchmark.report import BenchmarkReport
from florence_lab.benchmark.workloads import SPEEDUPS, WORKLOADS

BACKENDS = "transformers fp32", "florence_lab fp32", "florence_lab auto"


@pytest.fixture
def report():
    timings = {
        "first token": {backend: [1.0, 1.0, 1.0] for backend in BACKENDS},
        "one answer": dict(zip(BACKENDS, ([7.3, 7.3, 64.0], [7.3, 7.3, 7.3], [3.65, 1.0, 7.3]), strict=True)),
    }
    return BenchmarkReport(
        {"model": "none"},
        timings,
        {"one answer": True},
        {"one answer": {"fp32": 2.0, "bf16": 1.0}},
        {"memory GB/s": 4.0},
        {"florence_lab fp32": 0.5},
    )


def test_the_table_has_medians_the_time_per_token_and_lower_bounds(report):
    table = report.medians()
    assert table.loc["one answer", "transformers fp32"] == 7.3
    assert table.loc["each further token", "transformers fp32"] == pytest.approx(0.1)
    assert table.loc["one answer", "limit bf16"] == 1.0


def test_speedups_are_medians_of_paired_repetitions(report):
    rows = [
        ("one answer", "florence_lab auto / transformers fp32", 7.3, 2.0, 64 / 7.3),
        ("one answer", "florence_lab fp32 / transformers fp32", 1.0, 1.0, 64 / 7.3),
    ]
    expected = pd.DataFrame(rows, columns=["workload", "comparison", "median", "min", "max"])
    pd.testing.assert_frame_equal(report.ratios(), expected)


def test_the_text_contains_all_measurements(report):
    for part in ("model: none", "one answer", "each further token", "limit bf16", "7.30", "same text in fp32", "0.5"):
        assert part in str(report)


def test_the_file_has_the_keys_of_earlier_versions(report, tmp_path):
    saved = json.loads(report.save(tmp_path / "new" / "report.json").read_text())
    assert list(saved) == ["about", "seconds", "identical", "limits", "speeds", "memory", "ratios"]
    assert saved["seconds"] == report.timings_s
    assert list(saved["ratios"][0]) == ["what", "speed", "times", "least", "most"]


def test_some_workloads_alone_can_be_reported(report):
    alone = BenchmarkReport({}, {"one answer": report.timings_s["one answer"]}, {}, {}, {}, {})
    assert list(alone.medians().index) == ["one answer"]


def test_speedups_compare_backends_on_which_the_workload_is_measured():
    for workload, *backends in SPEEDUPS:
        assert all(backend.startswith(WORKLOADS[workload].backends) for backend in backends)


def test_workloads_keep_the_names_of_earlier_versions():
    names = ["vision tower", "first token", "one answer", "one answer, 3 beams", "15 tasks", "32 captions"]
    assert list(WORKLOADS) == names
