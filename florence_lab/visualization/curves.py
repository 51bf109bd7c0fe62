"""Curves of a training run: loss, learning rate and metrics, as files and live in a notebook."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..argument_validation import Range, validate_arguments
from ..exceptions import ArgumentError

_DPI = 100


@validate_arguments
def read_training_log(path: str | Path) -> list[dict[str, Any]]:
    """Read the `log.jsonl` of a run: one dict with `step`, `loss` and more for each logged step, in order.

    A run that was resumed logs some steps twice; the last line of a step counts.

    Raises:
        ArgumentError: as `read_log`.
    """
    by_step: dict[int, dict[str, Any]] = {}
    for line in read_log(path):
        by_step[line["step"]] = by_step.get(line["step"], {}) | line
    return [by_step[step] for step in sorted(by_step)]


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Read all lines of a log as they were written. What a kill left of a line is dropped.

    Args:
        path: a file of JSON lines, each an object with a number `step`.

    Raises:
        ArgumentError: if the file has lines, but none of them is of a log.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    entries = [entry for line in text.split("\n") if (entry := _parse_line(line)) is not None]
    if not entries and text[: text.rfind("\n") + 1].strip():
        raise ArgumentError(f"{path} is not the log of a training run: no line is a JSON object with a number 'step'")
    return entries


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_entry = isinstance(entry, dict) and isinstance(entry.get("step"), int)
    return entry if is_entry else None


def shipped_training_log() -> Path:
    """Return the path of the training log of the shipped florence-2-nano: means over 50 steps each."""
    return Path(str(resources.files("florence_lab") / "assets" / "pretraining.jsonl"))


@validate_arguments
def plot_loss(log: Sequence[dict[str, Any]], ax: Axes) -> None:
    """Plot the loss over the steps, raw and smoothed, and the learning rate on a second axis.

    The smoothed curve is a centered moving average over 1/30 of the steps.

    Args:
        log: dicts with `step`, `loss` and, if known, `lr`, as `read_training_log` returns them. Those without `loss`, such as
            evaluations, are left out.
        ax: where to draw.
    """
    import pandas as pd

    log = [line for line in log if line.get("loss") is not None]
    steps, losses = np.array([(line["step"], line["loss"]) for line in log], float).reshape(-1, 2).T
    window = max(1, len(steps) // 30)
    smoothed = pd.Series(losses).rolling(window, center=True, min_periods=1).mean()
    ax.plot(steps, losses, color="C0", alpha=0.25, linewidth=0.8)
    ax.plot(steps, smoothed, color="C0", linewidth=1.8)
    ax.set(xlabel="step", ylabel="loss", ylim=(0, None))
    ax.grid(alpha=0.3)
    if log and all("lr" in line for line in log):
        lr_ax = ax.twinx()
        lr_ax.plot(steps, [line["lr"] for line in log], color="0.6", linewidth=1, linestyle="--")
        lr_ax.set(ylabel="learning rate", ylim=(0, None))
        lr_ax.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


@validate_arguments
def plot_run(log: str | Path, folder: str | Path) -> None:
    """Plot a fine-tuning run: `loss.png`, and `metrics.png` if the log has metrics.

    Args:
        log: path of a JSON lines file. Training steps have `step` and `loss`; evaluations have `step`, `eval_loss` and
            metrics, whose names contain "/". Nothing is plotted if the file does not exist yet.
        folder: where the images are written; it is created if necessary.
    """
    if not Path(log).exists():
        return
    lines = read_log(log)
    evaluations = [line for line in lines if "eval_loss" in line]
    Path(folder).mkdir(parents=True, exist_ok=True)
    _plot_losses([line for line in lines if "loss" in line], evaluations).savefig(Path(folder, "loss.png"), dpi=_DPI)
    names = [name for name in dict.fromkeys(n for line in evaluations for n in line) if "/" in name]
    if names:
        _plot_metrics(evaluations, names).savefig(Path(folder, "metrics.png"), dpi=_DPI)


def _plot_losses(training: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.subplots()
    plot_loss(training, ax)
    (line,) = ax.plot(*_series(evaluations, "eval_loss"), "o-", color="C1", label="eval_loss")
    if evaluations:
        ax.legend(handles=[line])
    return figure


def _plot_metrics(evaluations: Sequence[dict[str, Any]], names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.subplots()
    for name in names:
        ax.plot(*_series(evaluations, name), "o-", markersize=3, label=name.removeprefix("eval_"))
    ax.set(xlabel="step", ylim=(0, 1.02))
    ax.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    return figure


def _series(lines: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Return steps and values of the lines that have a value of that name."""
    having = [line for line in lines if line.get(name) is not None]
    return [line["step"] for line in having], [line[name] for line in having]


class LiveLossPlot:
    """The loss curve of a run that is going on, for notebooks. Call it with each line of the log.

    If a line has the path of an image under `picture`, such as a gallery of answers, the latest one is displayed below the
    curve.

    Attributes:
        every: the least time between two updates in seconds.
        lines: the log so far.

    Example:
        >>> live = LiveLossPlot()
        >>> sft(arguments, on_log=live)
        >>> live.show()
    """

    @validate_arguments
    def __init__(self, every: Annotated[float, Range(0)] = 2.0) -> None:
        self.every = every
        self.lines: list[dict[str, Any]] = []
        self._last_update = float("-inf")
        self._image: bytes | None = None
        self._handles: list[Any] = []

    @validate_arguments
    def __call__(self, line: dict[str, Any]) -> None:
        """Append a line of the log, and update the display if the last update is long enough ago."""
        self.lines.append(line)
        if "picture" in line:
            self._image = Path(line["picture"]).read_bytes()
        if time.monotonic() - self._last_update >= self.every:
            self.show()

    def show(self) -> None:
        """Update the display now. Call it once more at the end of a run."""
        from IPython.display import Image, display

        self._last_update = time.monotonic()
        images = [Image(data) for data in (self._loss_png(), self._image) if data]
        for handle, image in zip(self._handles, images, strict=False):
            handle.update(image)
        self._handles += [display(image, display_id=True) for image in images[len(self._handles) :]]

    def _loss_png(self) -> bytes:
        figure = Figure(figsize=(7, 2.8), layout="constrained")
        plot_loss(self.lines, figure.subplots())
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=_DPI)
        return file.getvalue()
