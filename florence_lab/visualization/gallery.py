"""TODO"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from ..results import Result
from ..tasks import get_task
from .captions import _caption_height
from .figures import NotebookFigure, _aspect, _in_figure
from .overlay import _region_boxes, show
from .style import DARK, _elided, font_properties, printable

_TITLE_HEIGHT = 0.2  # inches, of each of its lines


def gallery(panels: Sequence[tuple[Any, Result]], columns: int = 3) -> NotebookFigure:
    """Many results side by side, each under its task token and its phrase, question or region.

    Args:
        panels: pairs of a picture, as `show` takes it, and its result.
        columns: panels a row.

    Returns:
        A figure of its own (none of pyplot's), 420 pixels a column at its own dpi; a notebook shows it.
    """
    width, gap = 4.0, 0.2  # inches
    columns = max(1, min(columns, len(panels)))
    figure = NotebookFigure(columns * (width + gap) + gap, 1)
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heads = [_TITLE_HEIGHT * (1 + any(_asked(result) for _, result in row)) for row in rows]
    heights = [max(_panel_height(figure, result, width) for _, result in row) for row in rows]
    top = gap + sum(heads) + sum(heights) + gap * len(rows)
    figure.set_size_inches(figure.get_figwidth(), max(top, 1))

    for row, head, height in zip(rows, heads, heights, strict=True):
        top -= gap + head
        for column, (image, result) in enumerate(row):
            left = gap + column * (width + gap)
            own = _panel_height(figure, result, width)
            _write_title(figure, (left, top, width), result)
            show(image, result, figure.add_axes(_in_figure(figure, (left, top - own, width, own))))
        top -= height
    return figure


def _write_title(figure: Figure, place: tuple[float, float, float], result: Result) -> None:
    """The task token, and below it what was asked; above the picture at (left, top, width) in inches."""
    left, top, width = place
    lines = [(_asked(result), 8, "normal", "#666666"), (result.task or "a free question", 9, "bold", DARK)]
    for number, (text, size, weight, colour) in enumerate(line for line in lines if line[0]):
        x, y, *_ = _in_figure(figure, (left, top + 0.08 + number * 0.9 * _TITLE_HEIGHT, 0, 0))
        # measured in regular letters; bold ones are wider by a tenth
        shown = _elided(figure, text, size, 0.9 * width * figure.dpi)
        figure.text(x, y, shown, va="baseline", weight=weight, color=colour, **font_properties(size))


def _asked(result: Result) -> str:
    """The phrase; a region in pixels, for people cannot read location tokens."""
    if get_task(result.task).input == "region":
        return "; ".join("region ({:.0f}, {:.0f}, {:.0f}, {:.0f})".format(*box) for box in _region_boxes(result))
    return printable(result.phrase)


def _panel_height(figure: Figure, result: Result, width: float) -> float:
    """Inches of the picture and its caption in a column so wide; a tall picture is kept to the column's square."""
    image_width, image_height = result.image_size
    picture = min(width * image_height / image_width * _aspect(result.image_size), width)
    return picture + _caption_height(figure, result, width)
