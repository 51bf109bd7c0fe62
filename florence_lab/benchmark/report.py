"""TODO"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .workloads import RATIOS, TOKENS


@dataclass(frozen=True)
class Benchmark:
    """What a run measured.

    Attributes:
        about: the machine, the releases, the model.
        seconds: row -> way -> each measurement.
        identical: row -> whether both ways in fp32 gave the same text, where there is text.
        limits: row -> format (fp32, bf16) -> seconds that the machine would need at the least.
        speeds: of matrix products in GFLOP/s by format, and of reading memory in GB/s.
        memory: way -> GB at the peak, in a process of its own.
    """

    about: dict[str, Any]
    seconds: dict[str, dict[str, list[float]]]
    identical: dict[str, bool]
    limits: dict[str, dict[str, float]]
    speeds: dict[str, float]
    memory: dict[str, float]

    def medians(self) -> pd.DataFrame:
        """Rows x ways, seconds; with a row for each further token, and the limits."""
        table = pd.DataFrame(
            {row: {w: statistics.median(s) for w, s in of.items()} for row, of in self.seconds.items()}
        ).T
        table.loc["each further token"] = (table.loc["one answer"] - table.loc["first token"]) / (TOKENS - 1)
        return table.join(pd.DataFrame(self.limits).T.add_prefix("limit "))

    def ratios(self) -> pd.DataFrame:
        """What florence_lab gains: the median of the ratios of measurements that followed one another, least and most."""
        rows = []
        for row, slow, fast in RATIOS:
            of = self.seconds.get(row, {})
            if slow in of and fast in of:
                each = [a / b for a, b in zip(of[slow], of[fast], strict=True)]
                rows.append((row, f"{fast} / {slow}", statistics.median(each), min(each), max(each)))
        return pd.DataFrame(rows, columns=["what", "speed", "times", "least", "most"])

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in (self.about | self.speeds).items()]
        lines += ["", "seconds, median", self.medians().to_string(float_format="{:.4g}".format, na_rep="")]
        if len(self.ratios()):
            lines += ["", self.ratios().to_string(index=False, float_format="{:.2f}".format)]
        lines += ["", f"same text in fp32: {self.identical}"] if self.identical else []
        return "\n".join([*lines, "", f"GB at the peak: { {way: round(gb, 2) for way, gb in self.memory.items()} }"])

    def save(self, path: str | Path) -> Path:
        """Writes all of it as JSON."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        ratios = self.ratios().to_dict("records")
        path.write_text(json.dumps(vars(self) | {"ratios": ratios}, indent=1) + "\n", encoding="utf-8")
        return path
