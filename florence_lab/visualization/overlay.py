"""Drawing results over their image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon as PolygonPatch
from matplotlib.patheffects import Normal, Stroke
from PIL import Image

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, ArgumentTypeError
from ..geometry import Polygon, box_corners
from ..images import load_image
from ..results import Boxes, Instances, Polygons, Quads, Result, Text
from ..tasks import get_task
from .captions import CAPTION_WIDTH, caption_height, caption_text, draw_caption
from .figures import DISPLAY_LONG_SIDE, DPI, NotebookFigure, display_size, encode_png, label_font_size, pixel_aspect
from .instances import DrawableInstance, drawable_instances, region_boxes
from .labels import draw_labels, draw_message
from .style import DARK, LIGHT, contrast_outline

NOTHING_FOUND = "nothing found"


@validate_arguments
def show(image: Any, result: Result, ax: Axes | None = None) -> Axes:
    """Draw a result over its image and return the Axes.

    The coordinates of the Axes are pixels of `result.image_size`: x from 0 to width, y from height to 0. Its frame is
    switched off. Text under the image takes its space from the Axes.

    Args:
        image: a PIL image, or another source that `florence_lab.images.load_image` accepts. An image of another size than
            `result.image_size` is scaled. None draws the result alone.
        result: a `Text`, `Boxes`, `Quads` or `Polygons`.
        ax: where to draw; by default a new figure of pyplot, which a notebook displays.

    Raises:
        TypeError: for a result of another type.
        ImageError: for an image that cannot be read.

    Example:
        >>> show("sheep.png", result).figure.savefig("overlay.pdf")
    """
    drawer = _drawer(result, _DRAWERS)
    get_task(result.task)  # an unknown task is refused before a figure is made
    loaded = None if image is None else load_image(image)
    if ax is None:
        # the only place that uses pyplot, whose figures stay in memory until they are closed
        from matplotlib import pyplot

        ax = fit_figure(pyplot.figure(dpi=DPI), result)
    _draw_image(ax, loaded, result.image_size)
    drawer(ax, result)
    return ax


@validate_arguments
def to_png(image: Any, result: Result) -> bytes:
    """Return the image with its result as a PNG file.

    The image is scaled to 640 to 1,000 pixels on its longer side; text under it is added to the height. The function does
    not use pyplot and is thread-safe.

    Args:
        image: as for `show`; None returns a transparent overlay of exactly `result.image_size` pixels, to be composited over
            the image. It has shapes and labels only, no text under the image.
        result: as for `show`.

    Raises:
        TypeError, ImageError: as `show`.
        ValueError: for a transparent overlay of more than `PIL.Image.MAX_IMAGE_PIXELS` pixels.

    Example:
        >>> overlay = Image.open(io.BytesIO(to_png(None, result)))
        >>> image.paste(overlay, mask=overlay)
    """
    return _transparent_png(result) if image is None else draw_figure(image, result).to_png()


@validate_arguments
def to_svg(image: Any, result: Result) -> bytes:
    """Return the image with its result as an SVG file, the same drawing as `to_png`.

    Shapes are vectors, text can be selected and edited, the image is embedded with 960 to 1,500 pixels on its
    longer side. The function does not use pyplot and is thread-safe.

    Args:
        image: as for `show`; None draws the result alone.
        result: as for `show`.

    Raises:
        TypeError, ImageError: as `show`.

    Example:
        >>> Path("overlay.svg").write_bytes(to_svg(result.image, result))
    """
    return draw_figure(image, result).to_svg()


@validate_arguments
def to_pdf(image: Any, result: Result) -> bytes:
    """Return the image with its result as a PDF file of one page, for papers. Everything else is as for `to_svg`."""
    return draw_figure(image, result).to_pdf()


def draw_figure(image: Any, result: Result) -> NotebookFigure:
    """Return a figure independent of pyplot with the drawing of `show`, of the size that `to_png` has."""
    figure = NotebookFigure(1, 1)
    show(image, result, fit_figure(figure, result))
    return figure


def fit_figure(figure: Figure, result: Result) -> Axes:
    """Resize an empty figure to the image and the text under it, and return new Axes that fill it."""
    width, height = display_size(result.image_size)
    if caption_text(result):
        width = max(width, CAPTION_WIDTH)
    figure.set_size_inches(width / DPI, height / DPI)
    figure.set_size_inches(width / DPI, height / DPI + caption_height(figure, result, width / DPI))
    return figure.add_axes((0, 0, 1, 1))


@validate_arguments
def draw_text(ax: Axes, result: Text) -> None:
    """Draw the text, wrapped, under the image, and the region in the prompt if there is one."""
    draw_caption(ax, result)
    _draw_region(ax, result)
    if not result.text.strip():
        draw_message(ax, NOTHING_FOUND)


@validate_arguments
def draw_boxes(ax: Axes, result: Boxes) -> None:
    """Draw boxes, or polygons where open-vocabulary detection gives them, with label and score.

    Phrase grounding also draws its caption under the image, with each phrase in the color of its boxes.
    """
    draw_caption(ax, result)
    _draw_instances(ax, result, _outline_patches)


@validate_arguments
def draw_quads(ax: Axes, result: Quads) -> None:
    """Draw quad boxes with their text. A thick line marks the edge from corner 0 to corner 1, the top of the text."""
    _draw_instances(ax, result, _quad_patches)


@validate_arguments
def draw_polygons(ax: Axes, result: Polygons) -> None:
    """Draw filled polygons with label and score, and the region in the prompt if there is one."""
    _draw_region(ax, result)
    _draw_instances(ax, result, _outline_patches)


_DRAWERS: dict[type[Result], Callable[[Axes, Any], None]] = {
    Text: draw_text,
    Boxes: draw_boxes,
    Quads: draw_quads,
    Polygons: draw_polygons,
}


_SHAPE_DRAWERS: dict[type[Result], Callable[[Axes, Any], None]] = {
    Text: lambda ax, result: _draw_region(ax, result),
    Boxes: lambda ax, result: _draw_instances(ax, result, _outline_patches),
    Quads: draw_quads,
    Polygons: draw_polygons,
}
"""As `_DRAWERS`, without the text under the image."""


def _drawer(result: Result, drawers: dict[type[Result], Callable[[Axes, Any], None]]) -> Callable[[Axes, Any], None]:
    drawer = drawers.get(type(result))
    if drawer is None:
        known = ", ".join(kind.__name__ for kind in drawers)
        raise ArgumentTypeError(f"cannot draw a result of type {type(result).__name__}; the types are {known}")
    return drawer


def _transparent_png(result: Result) -> bytes:
    """Return the shapes of a result as an RGBA file of `result.image_size`, transparent elsewhere."""
    drawer = _drawer(result, _SHAPE_DRAWERS)
    width, height = result.image_size
    limit = Image.MAX_IMAGE_PIXELS or math.inf
    if width * height > limit:
        raise ArgumentError(f"an overlay of {width} x {height} pixels is too large; the maximum are {limit:,} pixels")
    # the resolution scales lines and labels as in the package's own figures
    dpi = DPI * max(width, height) / max(display_size(result.image_size))
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="none")
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    drawer(ax, result)
    canvas.draw()
    # matplotlib rounds the size down, which may lose a pixel
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    return encode_png(drawn if drawn.size == (width, height) else drawn.resize((width, height)))


def _draw_image(ax: Axes, image: Image.Image | None, image_size: tuple[int, int]) -> None:
    width, height = image_size
    if image is None:
        ax.set_aspect(pixel_aspect(image_size))
    else:
        scale = 2 * DISPLAY_LONG_SIDE[1] / max(image.size)
        if scale < 1:
            # matplotlib needs 1 GB for an image of 8000 x 6000 pixels, which no figure can show
            smaller = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(smaller, Image.Resampling.LANCZOS, reducing_gap=2)
        ax.imshow(np.asarray(image), extent=(0, width, height, 0), aspect=pixel_aspect(image_size))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()


def _draw_instances(
    ax: Axes, result: Instances, patches: Callable[[DrawableInstance, Polygon, float], Sequence[Artist]]
) -> None:
    """Draw outlines and labels. `patches` makes the artists of one outline for a line width in points."""
    instances = drawable_instances(result)
    if not instances:
        draw_message(ax, NOTHING_FOUND)
        return
    font_size = label_font_size(ax, sum(bool(instance.label) for instance in instances))
    # large ones first, so that instances inside them stay visible
    for instance in sorted(instances, key=_negative_box_area):
        for outline in instance.outlines:
            for artist in patches(instance, outline, font_size / 5):
                ax.add_artist(artist)
    draw_labels(ax, instances, font_size)


def _negative_box_area(instance: DrawableInstance) -> float:
    return -float(np.prod(np.ptp(np.concatenate(instance.outlines), axis=0)))


def _outline_patches(instance: DrawableInstance, outline: Polygon, line_width: float) -> list[Artist]:
    edge = _edge_patch(instance, outline, line_width)
    if not instance.is_filled:
        return [edge]
    return [PolygonPatch(outline, facecolor=to_rgba(instance.color, 0.35), edgecolor="none", zorder=2), edge]


def _quad_patches(instance: DrawableInstance, outline: Polygon, line_width: float) -> list[Artist]:
    x, y = outline[:2].T
    top = Line2D(x, y, color=instance.color, linewidth=1.9 * line_width, solid_capstyle="butt", zorder=2.1)
    return [_edge_patch(instance, outline, 0.8 * line_width), top]


def _edge_patch(instance: DrawableInstance, outline: Polygon, line_width: float) -> PolygonPatch:
    return PolygonPatch(
        outline,
        fill=False,
        edgecolor=instance.color,
        linewidth=line_width,
        linestyle=instance.line_style,
        joinstyle="miter",
        zorder=2,
        path_effects=contrast_outline(instance.color, line_width),
    )


def _draw_region(ax: Axes, result: Result) -> None:
    """Draw the region in the prompt in white and black, which no instance has."""
    if get_task(result.task).input != "region":
        return
    border = Stroke(linewidth=3.2, foreground=DARK, dashes={"dash_offset": 0, "dash_list": None})
    for box in region_boxes(result):
        ax.add_artist(
            PolygonPatch(
                box_corners(box),
                fill=False,
                edgecolor=LIGHT,
                linewidth=1.6,
                linestyle=(0, (4, 2.5)),
                zorder=2,
                path_effects=[border, Normal()],
            )
        )
