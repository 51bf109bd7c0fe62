"""TODO"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon
from matplotlib.patheffects import Normal, Stroke
from PIL import Image

from ..geometry import box_corners
from ..images import load_image
from ..results import Boxes, Polygons, Quads, Result, Text
from ..tasks import get_task
from ..template.locations import bins_to_pixels, parse_location_tokens
from .captions import CAPTION_WIDTH, _caption, _caption_height, _write_caption
from .figures import DPI, LONG_SIDE, _aspect, _drawn_size, _label_size, _png
from .instances import _items
from .labels import _draw_labels, _draw_note
from .style import DARK, LIGHT, _halo

if TYPE_CHECKING:
    from .instances import _Item


def show(image: Any, result: Result, ax: Axes | None = None) -> Axes:
    """Draw a result over its picture.

    Args:
        image: a PIL image, or whatever else `florence_lab.images.load_image` takes; of any size, since the picture is
            laid under the coordinates of `result.image_size`.
        result: a `Text`, `Boxes`, `Quads` or `Polygons`.
        ax: where to draw. Without it there is a new pyplot figure, which a notebook shows.

    Returns:
        The Axes: x 0..width and y height..0 in pixels, its frame switched off. What is under the picture (a text, or
        the caption of a phrase grounding) takes its room from the Axes' own place.
    """
    drawer = _DRAWERS.get(type(result))
    if drawer is None:
        known = ", ".join(kind.__name__ for kind in _DRAWERS)
        raise TypeError(f"can draw {known}, but got {type(result).__name__}")
    if ax is None:
        # the only place that may touch pyplot: its figures stay in memory until somebody closes them
        from matplotlib import pyplot

        ax = _only_axes(pyplot.figure(dpi=DPI), result)
    _draw_picture(ax, load_image(image), result.image_size)
    drawer(ax, result)
    return ax


def to_png(image: Any, result: Result) -> bytes:
    """The picture with its result as a PNG of 640 to 1,000 pixels on the long side, whatever the picture has.

    A text under the picture comes on top of that. It touches no state of pyplot, and may be called from any thread.
    """
    figure = Figure(dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    show(image, result, _only_axes(figure, result))
    return _png(figure)


def draw_text(ax: Axes, result: Text) -> None:
    """The text, wrapped, under the picture; and the region that was asked about, if there was one."""
    _write_caption(ax, result)
    _draw_region(ax, result)
    if not result.text.strip():
        _draw_note(ax, "nothing found")


def draw_boxes(ax: Axes, result: Boxes) -> None:
    """Boxes, or outlines where open-vocabulary detection gave them, with label and confidence.

    Under a phrase grounding stands its caption, every phrase in the colour of its boxes.
    """
    _write_caption(ax, result)
    _draw_items(ax, result, _patches)


def draw_quads(ax: Axes, result: Quads) -> None:
    """Quad boxes with their text. The edge along which the text begins, corner 0 to corner 1, is the thick one."""
    _draw_items(ax, result, _quad_patches)


def draw_polygons(ax: Axes, result: Polygons) -> None:
    """Filled outlines with label and confidence; and the region that was asked about, if there was one."""
    _draw_region(ax, result)
    _draw_items(ax, result, _patches)


_DRAWERS: dict[type[Result], Callable[[Axes, Any], None]] = {
    Text: draw_text,
    Boxes: draw_boxes,
    Quads: draw_quads,
    Polygons: draw_polygons,
}


def _only_axes(figure: Figure, result: Result) -> Axes:
    """Size the figure to the picture and the text under it, and give it one Axes that fills it."""
    width, height = _drawn_size(result.image_size)
    if _caption(result):
        width = max(width, CAPTION_WIDTH)
    figure.set_size_inches(width / DPI, height / DPI)
    figure.set_size_inches(width / DPI, height / DPI + _caption_height(figure, result, width / DPI))
    return figure.add_axes((0, 0, 1, 1))


def _draw_picture(ax: Axes, image: Image.Image, image_size: tuple[int, int]) -> None:
    width, height = image_size
    scale = 2 * LONG_SIDE[1] / max(image.size)
    if scale < 1:
        # an 8000 x 6000 photograph costs matplotlib a gigabyte, and no figure shows so many pixels
        smaller = [max(1, round(side * scale)) for side in image.size]
        image = image.resize(smaller, Image.Resampling.LANCZOS, reducing_gap=2)
    ax.imshow(np.asarray(image), extent=(0, width, height, 0), aspect=_aspect(image_size))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()


def _draw_items(
    ax: Axes,
    result: Boxes | Quads | Polygons,
    patches: Callable[[_Item, np.ndarray, float], list[Patch | Line2D]],
) -> None:
    items = _items(result)
    if not items:
        _draw_note(ax, "nothing found")
        return
    font_size = _label_size(ax, sum(bool(item.name) for item in items))
    # large ones first, so that what lies inside them stays on top
    for item in sorted(items, key=lambda item: -float(np.prod(np.ptp(np.concatenate(item.outlines), axis=0)))):
        for outline in item.outlines:
            for artist in patches(item, outline, font_size / 5):
                ax.add_artist(artist)
    _draw_labels(ax, items, font_size)


def _patches(item: _Item, outline: np.ndarray, line_width: float) -> list[Patch]:
    face = Polygon(outline, facecolor=to_rgba(item.colour, 0.35), edgecolor="none", zorder=2)
    return [face] * item.filled + [_edge(item, outline, line_width)]


def _quad_patches(item: _Item, outline: np.ndarray, line_width: float) -> list[Patch | Line2D]:
    first = Line2D(*outline[:2].T, color=item.colour, linewidth=1.9 * line_width, solid_capstyle="butt", zorder=2.1)
    return [_edge(item, outline, 0.8 * line_width), first]


def _edge(item: _Item, outline: np.ndarray, line_width: float) -> Polygon:
    return Polygon(
        outline,
        fill=False,
        edgecolor=item.colour,
        linewidth=line_width,
        linestyle=item.line_style,
        joinstyle="miter",
        zorder=2,
        path_effects=_halo(item.colour, line_width),
    )


def _draw_region(ax: Axes, result: Result) -> None:
    """The region that went into the prompt, in white and black: the colours belong to the answers."""
    if get_task(result.task).input != "region":
        return
    for box in _region_boxes(result):
        ax.add_artist(
            Polygon(
                box_corners(box),
                fill=False,
                edgecolor=LIGHT,
                linewidth=1.6,
                linestyle=(0, (4, 2.5)),
                zorder=2,
                path_effects=[
                    Stroke(linewidth=3.2, foreground=DARK, dashes={"dash_offset": 0, "dash_list": None}),
                    Normal(),
                ],
            )
        )


def _region_boxes(result: Result) -> np.ndarray:
    """N x 4, xyxy: the region in the result's phrase; none where the phrase is something else."""
    return bins_to_pixels(parse_location_tokens(result.phrase), result.image_size).reshape(-1, 4)
