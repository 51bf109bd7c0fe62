"""`BenchmarkReport`: the measurements of a run as tables, text and JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..output_files import write_text
from .workloads import SPEEDUPS, TOKENS_PER_ANSWER

NEXT_TOKEN = "each further token"
"""Row of the time per token, which follows from the rows "one answer" and "first token"."""


@dataclass(frozen=True)
class BenchmarkReport:
    """The measurements of one run.

    Attributes:
        environment: the model, the device and the releases of torch and transformers.
        timings_s: workload -> backend -> the seconds of each repetition.
        outputs_match: workload -> whether both libraries gave the same text in fp32.
        roofline_s: workload -> format (fp32, bf16) -> lower bound in seconds from measured GFLOP/s and memory bandwidth.
        hardware: GFLOP/s of matrix products by format, and the memory bandwidth in GB/s.
        peak_memory_gb: backend -> peak memory of a process that loads the model and answers once.
    """

    environment: dict[str, Any]
    timings_s: dict[str, dict[str, list[float]]]
    outputs_match: dict[str, bool]
    roofline_s: dict[str, dict[str, float]]
    hardware: dict[str, float]
    peak_memory_gb: dict[str, float]

    def medians(self) -> pd.DataFrame:
        """Return median seconds, workloads x backends, with a row for each further token and columns of lower bounds."""
        medians = {
            name: {backend: statistics.median(seconds) for backend, seconds in by_backend.items()}
            for name, by_backend in self.timings_s.items()
        }
        table = pd.DataFrame(medians).T
        if "one answer" in table.index and "first token" in table.index:
            further = table.loc["one answer"] - table.loc["first token"]
            table.loc[NEXT_TOKEN] = further / (TOKENS_PER_ANSWER - 1)
        return table.join(pd.DataFrame(self.roofline_s).T.add_prefix("limit "))

    def ratios(self) -> pd.DataFrame:
        """Return the speedups: `workload`, `comparison`, and `median`, `min`, `max` of the ratios of paired repetitions.

        Repetitions are paired because they follow each other: a machine that others use is faster at some times than at
        others.
        """
        rows = []
        for workload, baseline, candidate in SPEEDUPS:
            seconds = self.timings_s.get(workload, {})
            if baseline in seconds and candidate in seconds:
                ratios = [a / b for a, b in zip(seconds[baseline], seconds[candidate], strict=True)]
                comparison = f"{candidate} / {baseline}"
                rows.append((workload, comparison, statistics.median(ratios), min(ratios), max(ratios)))
        return pd.DataFrame(rows, columns=["workload", "comparison", "median", "min", "max"])

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in (self.environment | self.hardware).items()]
        lines += ["", "median seconds", self.medians().to_string(float_format="{:.4g}".format, na_rep="")]
        ratios = self.ratios()
        if len(ratios):
            lines += ["", "speedup", ratios.to_string(index=False, float_format="{:.2f}".format)]
        if self.outputs_match:
            lines += ["", f"same text in fp32: {self.outputs_match}"]
        peaks = {backend: round(gigabytes, 2) for backend, gigabytes in self.peak_memory_gb.items()}
        return "\n".join([*lines, "", f"peak memory in GB: {peaks}"])

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
        }

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON and return the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(self.to_json(), indent=1) + "\n")
        return path
