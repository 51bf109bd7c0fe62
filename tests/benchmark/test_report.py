"""The arithmetic and the files of the report."""

import json

import pandas as pd
import pytest

from florence_lab.benchmark.report import BenchmarkReport

BACKENDS = "transformers fp32", "florence_lab fp32", "florence_lab bf16"


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
        {"one answer": {"florence_lab fp32": 12.5}},
        {"florence_lab fp32": 16},
        {"LoRA step": {"transformers fp32": "OutOfMemoryError: out of memory"}},
    )


def test_the_table_has_medians_the_time_per_token_and_lower_bounds(report):
    table = report.medians()
    assert table.loc["one answer", "transformers fp32"] == 7.3
    assert table.loc["each further token", "transformers fp32"] == pytest.approx(0.1)
    assert table.loc["one answer", "limit bf16"] == 1.0


def test_speedups_are_medians_of_paired_repetitions(report):
    rows = [
        ("one answer", "florence_lab fp32 / transformers fp32", 1.0, 1.0, 64 / 7.3),
        ("one answer", "florence_lab bf16 / transformers fp32", 7.3, 2.0, 64 / 7.3),
    ]
    expected = pd.DataFrame(rows, columns=["workload", "comparison", "median", "min", "max"])
    ratios = report.ratios()
    pd.testing.assert_frame_equal(ratios[ratios.workload == "one answer"].reset_index(drop=True), expected)


def test_each_time_is_compared_with_the_limit_of_its_format(report):
    percent = report.percent_of_limit()
    assert percent.loc["one answer", "transformers fp32"] == pytest.approx(100 * 2 / 7.3)
    assert percent.loc["one answer", "florence_lab bf16"] == pytest.approx(100 * 1 / 3.65)
    assert list(percent.index) == ["one answer"]
    assert not any(name.startswith("limit") for name in percent)


def test_tables_are_markdown_with_one_width(report):
    tables = [block.splitlines() for block in report.to_markdown().split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    assert "| one answer | 7.3 | 7.3 | 3.65 | 2 | 1 |" in report.to_markdown()


def test_the_text_contains_all_measurements(report):
    for part in (
        "model: none",
        "one answer",
        "each further token",
        "limit bf16",
        "7.30",
        "same text in fp32",
        "0.5",
        "12.5",
        "16",
        "out of memory",
    ):
        assert part in str(report)


def test_the_file_has_the_keys_of_earlier_versions(report, tmp_path):
    saved = json.loads(report.save(tmp_path / "new" / "report.json").read_text())
    earlier = ["about", "seconds", "identical", "limits", "speeds", "memory", "ratios"]
    assert list(saved) == [*earlier, "first_calls", "batch_sizes", "failures"]
    assert saved["seconds"] == report.timings_s
    assert list(saved["ratios"][0]) == ["what", "speed", "times", "least", "most"]


def test_some_workloads_alone_can_be_reported(report):
    alone = BenchmarkReport({}, {"one answer": report.timings_s["one answer"]}, {}, {}, {}, {})
    assert list(alone.medians().index) == ["one answer"]
