"""Many results side by side in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError
from ..results import Result
from ..tasks import get_task
from .captions import caption_height
from .figures import NotebookFigure, figure_fraction, pixel_aspect
from .instances import region_boxes
from .overlay import show
from .style import DARK, elide, font_properties, printable

# in inches
_COLUMN_WIDTH = 4.0
_GAP = 0.2
_TITLE_LINE_HEIGHT = 0.2


@validate_arguments
def gallery(
    panels: Sequence[tuple[Any, Result]], columns: int = 3, titles: Sequence[str] | None = None
) -> NotebookFigure:
    """Draw many results side by side, titled with their task token and their phrase, question or region.

    Args:
        panels: pairs of an image, as for `show`, and its result.
        columns: number of panels in a row.
        titles: one title for each panel in place of the task token, such as the names of models.

    Returns:
        A figure independent of pyplot, 420 pixels wide for each column, which a notebook displays.

    Raises:
        ValueError: for another number of titles than of panels.

    Example:
        >>> gallery([(result.image, result) for result in results]).savefig("gallery.png")
    """
    if titles is not None and len(titles) != len(panels):
        raise ArgumentError(f"{len(panels)} panels, but {len(titles)} titles")
    headings = iter([result.task or get_task("").name for _, result in panels] if titles is None else titles)
    columns = max(1, min(columns, len(panels)))
    figure = NotebookFigure(columns * (_COLUMN_WIDTH + _GAP) + _GAP, 1)
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    title_heights = [_TITLE_LINE_HEIGHT * (1 + any(_prompt_line(result) for _, result in row)) for row in rows]
    row_heights = [max(_panel_height(figure, result) for _, result in row) for row in rows]
    top = _GAP + sum(title_heights) + sum(row_heights) + _GAP * len(rows)
    figure.set_size_inches(figure.get_figwidth(), max(top, 1))

    for row, title_height, row_height in zip(rows, title_heights, row_heights, strict=True):
        top -= _GAP + title_height
        for column, (image, result) in enumerate(row):
            left = _GAP + column * (_COLUMN_WIDTH + _GAP)
            height = _panel_height(figure, result)
            _draw_title(figure, left, top, next(headings), _prompt_line(result))
            show(image, result, figure.add_axes(figure_fraction(figure, (left, top - height, _COLUMN_WIDTH, height))))
        top -= row_height
    return figure


def _draw_title(figure: Figure, left: float, bottom: float, heading: str, prompt_line: str) -> None:
    """Draw the heading and below it the prompt line, above (left, bottom) in inches."""
    lines = [(prompt_line, 8, "normal", "#666666"), (printable(heading), 9, "bold", DARK)]
    for number, (text, font_size, weight, color) in enumerate(line for line in lines if line[0]):
        x, y, *_ = figure_fraction(figure, (left, bottom + 0.08 + number * 0.9 * _TITLE_LINE_HEIGHT, 0, 0))
        # `elide` measures regular letters; bold ones are about 10% wider
        text = elide(figure, text, font_size, 0.9 * _COLUMN_WIDTH * figure.dpi)
        figure.text(x, y, text, va="baseline", weight=weight, color=color, **font_properties(font_size))


def _prompt_line(result: Result) -> str:
    """Return the phrase or question; a region in pixels instead of location tokens."""
    if get_task(result.task).input == "region":
        return "; ".join("region ({:.0f}, {:.0f}, {:.0f}, {:.0f})".format(*box) for box in region_boxes(result))
    return printable(result.phrase)


def _panel_height(figure: Figure, result: Result) -> float:
    """Return the height in inches of an image and the text under it. A tall image is reduced to a square of the column."""
    image_width, image_height = result.image_size
    height = min(_COLUMN_WIDTH * image_height / image_width * pixel_aspect(result.image_size), _COLUMN_WIDTH)
    return height + caption_height(figure, result, _COLUMN_WIDTH)
