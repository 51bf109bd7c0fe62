"""`Calibration`: a logistic regression from the evidence for a box to the probability that the box is right."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..output_files import write_text

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """A logistic regression on named features.

    Attributes:
        names: the F features.
        weights: F weights.
        bias: the intercept.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the probability that each box is right: N x F -> N float64."""
        logits = np.asarray(features, np.float64) @ np.array(self.weights) + self.bias
        return 1 / (1 + np.exp(-logits))

    def save(self, path: str | Path) -> Path:
        """Write the calibration as JSON."""
        write_text(Path(path), json.dumps(asdict(self), indent=2) + "\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration that `save` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(tuple(content["names"]), tuple(content["weights"]), content["bias"])
