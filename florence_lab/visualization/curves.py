"""How a run is going, drawn: its loss, and while it runs a picture in the notebook that grows."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def read_training_log(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's `log.jsonl`: `step`, `loss` and more; a step that was done twice counts as done last."""
    lines = map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())
    of_step = {line["step"]: line for line in lines}
    return [of_step[step] for step in sorted(of_step)]


def shipped_training_log() -> Path:
    """The log of the run that made the shipped florence-2-nano, the mean of every 50 steps."""
    return Path(__file__).parent.parent / "assets" / "pretraining.jsonl"


def plot_loss(lines: Sequence[dict[str, Any]], ax: Axes) -> None:
    """The loss over the steps, each and smoothed over a thirtieth of what there is, and the learning rate in grey.

    Args:
        lines: one per step or so, each with `step`, `loss` and, if known, `lr`.
        ax: where to draw.
    """
    steps, losses = np.array([(line["step"], line["loss"]) for line in lines], float).reshape(-1, 2).T
    width = max(1, len(steps) // 30)
    smooth = pd.Series(losses).rolling(width, center=True, min_periods=1).mean()
    ax.plot(steps, losses, color="C0", alpha=0.25, linewidth=0.8)
    ax.plot(steps, smooth, color="C0", linewidth=1.8)
    ax.set(xlabel="step", ylabel="loss", ylim=(0, None))
    ax.grid(alpha=0.3)
    if lines and "lr" in lines[0]:
        rate = ax.twinx()
        rate.plot(steps, [line["lr"] for line in lines], color="0.6", linewidth=1, linestyle="--")
        rate.set(ylabel="learning rate", ylim=(0, None))
        rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def plot_run(log: str | Path, folder: str | Path) -> None:
    """Pictures of a fine-tuning run: `loss.png`, and a `metrics.png` of what was measured besides, if anything was.

    Args:
        log: JSON lines, each with `step`; those of training have `loss`, those of a measurement `eval_loss` and more.
        folder: for the pictures.
    """
    if not Path(log).exists():  # a checkpoint may come before the first line
        return
    lines = [json.loads(line) for line in Path(log).read_text(encoding="utf-8").splitlines()]
    measured = [line for line in lines if "eval_loss" in line]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    plot_loss([line for line in lines if "loss" in line], axes)
    axes.plot(*_series(measured, "eval_loss"), "o-", color="C1", label="eval_loss")
    if measured:
        axes.legend(handles=axes.lines[-1:])
    Path(folder).mkdir(exist_ok=True)
    figure.savefig(Path(folder, "loss.png"), dpi=100)
    names = [name for name in dict.fromkeys(n for line in measured for n in line) if "/" in name]
    if names:
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        for name in names:
            axes.plot(*_series(measured, name), "o-", markersize=3, label=name.removeprefix("eval_"))
        axes.set(xlabel="step", ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", fontsize=7)
        figure.savefig(Path(folder, "metrics.png"), dpi=100)


def _series(lines: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    return [line["step"] for line in lines], [line[name] for line in lines]


class LiveLossPlot:
    """A run's loss curve in a notebook, drawn anew every few seconds; call it with each line of the log.

    Where a line names a `picture` of answers, the latest one stands under the curve.
    """

    def __init__(self, every: float = 2.0):
        self.every = every
        self.lines: list[dict[str, Any]] = []
        self._drawn = 0.0
        self._picture: bytes | None = None
        self._shown: list[Any] = []

    def __call__(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if "picture" in line:
            self._picture = Path(line["picture"]).read_bytes()
        if time.monotonic() - self._drawn >= self.every:
            self.show()

    def show(self) -> None:
        """Draw all there is so far; to be called once more when the run is over."""
        from IPython.display import Image, display

        self._drawn = time.monotonic()
        pictures = [Image(data) for data in (self._curve(), self._picture) if data]
        for handle, picture in zip(self._shown, pictures, strict=False):
            handle.update(picture)
        self._shown += [display(picture, display_id=True) for picture in pictures[len(self._shown) :]]

    def _curve(self) -> bytes:
        from io import BytesIO

        figure = Figure(figsize=(7, 2.8), layout="constrained")
        plot_loss(self.lines, figure.subplots())
        file = BytesIO()
        figure.savefig(file, format="png", dpi=100)
        return file.getvalue()
