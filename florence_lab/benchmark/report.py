"""`BenchmarkReport`: the measurements of a run as tables, text and JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..output_files import write_text
from .workloads import FIRST_TOKEN, NEXT_TOKEN, ONE_ANSWER, TOKENS_PER_ANSWER

COMPARISONS = (
    ("transformers fp32", "florence_lab fp32"),
    ("transformers bf16", "florence_lab bf16"),
    ("transformers fp32", "florence_lab bf16"),
)
"""Pairs of a baseline and a candidate. A speedup is the time of the baseline divided by the time of the candidate."""


@dataclass(frozen=True)
class BenchmarkReport:
    """The measurements of one run.

    Attributes:
        environment: the model, the device and the releases of torch and transformers.
        timings_s: workload -> backend -> the seconds of each repetition; those of captions are for one image.
        outputs_match: workload -> whether both libraries gave the same texts in fp32 for the same pixel values.
        roofline_s: workload -> format (fp32, bf16) -> lower bound in seconds from measured GFLOP/s and memory bandwidth.
        hardware: GFLOP/s of matrix products by format, and the memory bandwidth in GB/s.
        peak_memory_gb: backend -> peak memory of a process that loads the model and answers once.
        first_call_s: workload -> backend -> the seconds of the call before the repetitions, with compilation and graph capture.
        batch_sizes: backend -> the batch size at which its captions are fastest.
        failures: row -> backend -> why it has no measurement.
    """

    environment: dict[str, Any]
    timings_s: dict[str, dict[str, list[float]]]
    outputs_match: dict[str, bool]
    roofline_s: dict[str, dict[str, float]]
    hardware: dict[str, float]
    peak_memory_gb: dict[str, float]
    first_call_s: dict[str, dict[str, float]] = field(default_factory=dict)
    batch_sizes: dict[str, int] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)

    def medians(self) -> pd.DataFrame:
        """Return median seconds, workloads x backends, with a row for each further token and columns of lower bounds."""
        medians = {
            name: {backend: statistics.median(seconds) for backend, seconds in by_backend.items()}
            for name, by_backend in self.timings_s.items()
        }
        table = pd.DataFrame(medians).T
        if ONE_ANSWER in table.index and FIRST_TOKEN in table.index:
            further = table.loc[ONE_ANSWER] - table.loc[FIRST_TOKEN]
            table.loc[NEXT_TOKEN] = further / (TOKENS_PER_ANSWER - 1)
        return table.join(pd.DataFrame(self.roofline_s).T.add_prefix("limit "))

    def percent_of_limit(self) -> pd.DataFrame:
        """Return how near each median is to the lower bound of its format, workloads x backends, in percent."""
        table = self.medians()
        limits = {name: f"limit {name.split()[-1]}" for name in table.columns}
        return pd.DataFrame(
            {
                name: 100 * table[limit] / table[name]
                for name, limit in limits.items()
                if limit in table.columns and limit != name
            }
        ).dropna(how="all")

    def ratios(self) -> pd.DataFrame:
        """Return the speedups: `workload`, `comparison`, and `median`, `min`, `max` of the ratios of paired repetitions.

        Repetitions are paired because they follow each other: a machine that others use is faster at some times than at
        others. Those of fine-tuning are steps of one run after the other.
        """
        rows = []
        for workload, seconds in self.timings_s.items():
            for baseline, candidate in COMPARISONS:
                if baseline in seconds and candidate in seconds:
                    ratios = [a / b for a, b in zip(seconds[baseline], seconds[candidate], strict=True)]
                    comparison = f"{candidate} / {baseline}"
                    rows.append((workload, comparison, statistics.median(ratios), min(ratios), max(ratios)))
        return pd.DataFrame(rows, columns=["workload", "comparison", "median", "min", "max"])

    def to_markdown(self) -> str:
        """Return the tables of the report in Markdown."""
        tables = {
            "Median seconds": _markdown(self.medians(), "{:.4g}"),
            "Percent of the limit": _markdown(self.percent_of_limit(), "{:.0f}"),
            "Speedup": _markdown(self.ratios().set_index("workload"), "{:.2f}"),
            "Seconds of the first call": _markdown(pd.DataFrame(self.first_call_s).T, "{:.3g}"),
            "Peak memory in GB": _markdown(pd.DataFrame([self.peak_memory_gb], index=[ONE_ANSWER]), "{:.2f}"),
        }
        return "\n\n".join(f"{title}:\n\n{table}" for title, table in tables.items() if table)

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.environment.items()]
        lines += [f"{name}: {value:.4g}" for name, value in self.hardware.items()]
        if self.batch_sizes:
            lines.append(f"best batch size: {self.batch_sizes}")
        if self.outputs_match:
            lines.append(f"same text in fp32: {self.outputs_match}")
        lines += ["", self.to_markdown()]
        failures = [f"{row}, {name}: {why}" for row, by_name in self.failures.items() for name, why in by_name.items()]
        return "\n".join([*lines, *(["", "Not measured:", *failures] if failures else [])])

    def to_json(self) -> dict[str, Any]:
        """Return the report as a dictionary of JSON values."""
        columns = {"workload": "what", "comparison": "speed", "median": "times", "min": "least", "max": "most"}
        return {
            "about": self.environment,
            "seconds": self.timings_s,
            "identical": self.outputs_match,
            "limits": self.roofline_s,
            "speeds": self.hardware,
            "memory": self.peak_memory_gb,
            "ratios": self.ratios().rename(columns=columns).to_dict("records"),
            "first_calls": self.first_call_s,
            "batch_sizes": self.batch_sizes,
            "failures": self.failures,
        }

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON and return the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(self.to_json(), indent=1) + "\n")
        return path


def _markdown(table: pd.DataFrame, number_format: str) -> str:
    """A table with its index as the first column; "" for an empty one. (pandas' own function needs another package.)"""
    if table.empty:
        return ""
    rows = [["", *map(str, table.columns)], ["---"] * (1 + len(table.columns))]
    rows += [
        [str(index), *(_cell(value, number_format) for value in row)]
        for index, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: Any, number_format: str) -> str:
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else number_format.format(value)
