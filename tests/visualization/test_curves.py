"""Curves of a run: from its log, and live in a notebook."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from florence_lab.visualization.curves import LiveLossPlot, plot_loss, read_training_log


def lines(count):
    return [{"step": i + 1, "loss": 5 / (i + 1), "lr": 1e-3} for i in range(count)]


def test_a_step_done_twice_counts_once(tmp_path):
    rows = [{"step": 1, "loss": 3}, {"step": 2, "loss": 9}, {"step": 2, "loss": 2}, {"step": 3, "loss": 1}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [(line["step"], line["loss"]) for line in read_training_log(tmp_path / "log.jsonl")] == [
        (1, 3),
        (2, 2),
        (3, 1),
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 90])
def test_the_loss_is_drawn_step_by_step_and_smoothed(count):
    figure = Figure()
    ax = figure.subplots()
    plot_loss(lines(count), ax)
    each, smooth = (line.get_data() for line in ax.lines)
    assert list(each[1]) == [line["loss"] for line in lines(count)]
    if count == 90:
        assert smooth[1][0] == pytest.approx(np.mean([5, 5 / 2]))
        assert smooth[1][1] == pytest.approx(np.mean([5, 5 / 2, 5 / 3]))
    else:
        assert list(smooth[1]) == list(each[1])
    assert len(figure.axes) == (2 if count else 1)


def test_a_live_curve_updates_what_it_has_shown(tmp_path, monkeypatch):
    """One display for the curve and one for the picture, however often they are drawn."""
    shown, updated = [], []

    class Handle:
        def update(self, picture):
            updated.append(picture)

    def display(picture, display_id):
        shown.append(picture)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    Image.new("RGB", (4, 4)).save(tmp_path / "answers.png")
    curve = LiveLossPlot(every=0)
    first, second, third = lines(3)
    curve(first)
    assert (len(shown), len(updated)) == (1, 0)
    curve(second | {"picture": str(tmp_path / "answers.png")})
    assert (len(shown), len(updated)) == (2, 1)
    curve(third)
    assert (len(shown), len(updated)) == (2, 3)
    assert updated[-1].data == (tmp_path / "answers.png").read_bytes()
    assert updated[-2].data.startswith(b"\x89PNG")


def test_a_live_curve_is_not_drawn_for_every_step(monkeypatch):
    drawn = []
    monkeypatch.setattr("IPython.display.display", lambda picture, display_id: drawn.append(picture))
    curve = LiveLossPlot(every=60)
    for line in lines(50):
        curve(line)
    assert len(drawn) == 1
    assert len(curve.lines) == 50
