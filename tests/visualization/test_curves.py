"""Curves of a training run."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from florence_lab.exceptions import ArgumentError
from florence_lab.visualization.curves import (
    LiveLossPlot,
    plot_loss,
    plot_run,
    read_training_log,
    shipped_training_log,
)


def log(count):
    return [{"step": i + 1, "loss": 5 / (i + 1), "lr": 1e-3} for i in range(count)]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, by file name, in place of the files."""
    saved = {}
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **settings: saved.update({path.name: figure}))
    return saved


# ---------------------------------------------------------------------- logs


def test_the_last_line_of_a_repeated_step_counts(tmp_path):
    path = write(tmp_path / "log.jsonl", [{"step": s, "loss": x} for s, x in ((1, 3), (3, 9), (2, 2), (3, 1))])
    assert [(line["step"], line["loss"]) for line in read_training_log(str(path))] == [(1, 3), (2, 2), (3, 1)]


@pytest.mark.parametrize(
    "tail", ['{"step": 2, "lo', "\0\0", '{"step": 2}{"step": 3}\n', "5\n", '{"step": "a"}\n', "[" * 100_000]
)
def test_what_a_kill_left_of_a_line_is_dropped(tmp_path, tail):
    path = write(tmp_path / "log.jsonl", [{"step": 1, "loss": 3, "eval_loss": 2}])
    with path.open("a") as file:
        file.write(tail)
    assert read_training_log(path) == [{"step": 1, "loss": 3, "eval_loss": 2}]
    plot_run(path, tmp_path / "images")
    assert (tmp_path / "images" / "loss.png").is_file()


def test_a_file_that_is_no_log_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"query": "<OD>"}\n')
    with pytest.raises(ArgumentError, match=r"rows\.jsonl is not the log of a training run"):
        read_training_log(tmp_path / "rows.jsonl")


def test_an_empty_log_has_no_lines(tmp_path):
    for text in ("", '{"step": 1, "lo'):
        (tmp_path / "log.jsonl").write_text(text)
        assert read_training_log(tmp_path / "log.jsonl") == []


def test_the_evaluations_of_a_step_are_added_to_its_loss(tmp_path):
    lines = [{"step": 1, "loss": 3, "lr": 0.1}, {"step": 1, "eval_loss": 2}, {"step": 2, "eval_loss": 1}]
    read = read_training_log(write(tmp_path / "log.jsonl", lines))
    assert read == [{"step": 1, "loss": 3, "lr": 0.1, "eval_loss": 2}, {"step": 2, "eval_loss": 1}]
    ax = Figure().subplots()
    plot_loss(read, ax)
    assert list(ax.lines[0].get_ydata()) == [3]


def test_the_log_of_nano_is_shipped():
    lines = read_training_log(shipped_training_log())
    assert len(lines) > 100
    assert lines[0].keys() >= {"step", "loss", "lr"}
    assert lines[-1]["loss"] < lines[0]["loss"] / 2


# ---------------------------------------------------------------------- plots


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_short_loss_curve_is_not_smoothed(count):
    ax = Figure().subplots()
    plot_loss(log(count), ax)
    raw, smoothed = (line.get_ydata() for line in ax.lines)
    assert list(raw) == list(smoothed) == [line["loss"] for line in log(count)]


def test_the_loss_is_smoothed_over_a_thirtieth_of_the_steps():
    ax = Figure().subplots()
    plot_loss(log(90), ax)
    raw, smoothed = (line.get_data() for line in ax.lines)
    assert list(raw[0]) == list(smoothed[0]) == list(range(1, 91))
    assert smoothed[1][:2] == pytest.approx([np.mean([5, 5 / 2]), np.mean([5, 5 / 2, 5 / 3])])


def test_the_learning_rate_has_an_axis_of_its_own():
    figure = Figure()
    plot_loss(log(3), figure.subplots())
    assert figure.axes[1].get_ylabel() == "learning rate"
    assert list(figure.axes[1].lines[0].get_ydata()) == [1e-3] * 3


def test_a_log_without_learning_rate_has_one_axis():
    figure = Figure()
    plot_loss([{"step": 1, "loss": 2}], figure.subplots())
    assert len(figure.axes) == 1


def test_losses_and_metrics_of_a_run_are_plotted(tmp_path, figures):
    lines = [
        *log(2),
        {"step": 2, "eval_loss": 1.5, "eval_<OD>/mAP": 0.25},
        {"step": 4, "eval_loss": 1.25, "eval_<OD>/mAP": 0.5},
    ]
    plot_run(write(tmp_path / "logging.jsonl", lines), tmp_path / "deep" / "images")
    assert (tmp_path / "deep" / "images").is_dir()
    evaluation = figures["loss.png"].axes[0].lines[-1]
    assert (list(evaluation.get_xdata()), list(evaluation.get_ydata())) == ([2, 4], [1.5, 1.25])
    (metric,) = figures["metrics.png"].axes[0].lines
    assert (metric.get_label(), list(metric.get_ydata())) == ("<OD>/mAP", [0.25, 0.5])


def test_a_metric_that_some_evaluations_lack_is_plotted_where_it_is_known(tmp_path, figures):
    lines = [{"step": 1, "eval_loss": 2}, {"step": 2, "eval_loss": 1, "eval_<OD>/mAP": 0.5}]
    plot_run(write(tmp_path / "logging.jsonl", lines), tmp_path)
    (metric,) = figures["metrics.png"].axes[0].lines
    assert (list(metric.get_xdata()), list(metric.get_ydata())) == ([2], [0.5])


def test_a_run_without_metrics_has_no_plot_of_metrics(tmp_path, figures):
    plot_run(write(tmp_path / "logging.jsonl", log(3)), tmp_path)
    assert list(figures) == ["loss.png"]
    assert figures["loss.png"].axes[0].get_legend() is None


def test_a_run_without_log_is_not_plotted(tmp_path):
    plot_run(tmp_path / "logging.jsonl", tmp_path / "images")
    assert list(tmp_path.iterdir()) == []


def test_plots_of_a_run_are_png_files(tmp_path):
    plot_run(write(tmp_path / "logging.jsonl", log(3)), tmp_path)
    with Image.open(tmp_path / "loss.png") as image:
        assert image.size == (800, 400)


# ---------------------------------------------------------------------- the live plot


def test_a_live_plot_updates_its_displays(tmp_path, monkeypatch):
    """One display for the curve and one for the image, however often they are drawn."""
    shown, updated = [], []

    class Handle:
        def update(self, image):
            updated.append(image)

    def display(image, display_id):
        shown.append(image)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    Image.new("RGB", (4, 4)).save(tmp_path / "answers.png")
    live = LiveLossPlot(every=0)
    first, second, third = log(3)
    live(first)
    assert (len(shown), len(updated)) == (1, 0)
    live(second | {"picture": str(tmp_path / "answers.png")})
    assert (len(shown), len(updated)) == (2, 1)
    live(third)
    assert (len(shown), len(updated)) == (2, 3)
    assert updated[-1].data == (tmp_path / "answers.png").read_bytes()
    assert updated[-2].data.startswith(b"\x89PNG")


def test_a_live_plot_is_not_drawn_for_every_step(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda image, display_id: shown.append(image))
    live = LiveLossPlot(every=60)
    for line in log(50):
        live(line)
    assert len(shown) == 1
    assert live.lines == log(50)
