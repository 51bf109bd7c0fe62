"""Plots of a `Trace`: attention maps, candidates and location probabilities."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Polygon
from PIL import Image, ImageOps

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, shorten
from ..template.locations import NUM_BINS, bins_to_pixels
from ..visualization.figures import NotebookFigure
from ..visualization.style import DARK, LIGHT, PALETTE, font_properties, printable
from .spans import AnswerSpan
from .tracing import Trace

ATTENTION_COLORMAP = "inferno"
"""matplotlib's name of the colormap of attention, from dark (none) to yellow (most)."""

_OTHER_CANDIDATE = "#dcdcdc"
_MAX_TITLE_LENGTH = 18


@validate_arguments
def plot_attention(
    trace: Trace, span: str | int | AnswerSpan, ax: Axes, layer: int | None = None, head: int | None = None
) -> Axes:
    """Draw the attention of a span over the image, one square for each image token, and the outline of a shape.

    Colors range from no attention to the most attended token. The title shows the share of attention on the image.

    Args:
        trace: the prediction.
        span: see `Trace.span`.
        ax: where to draw. Its axes are x 0..width and y height..0 in pixels of the image.
        layer, head: see `Trace.attention_map`.

    Returns:
        `ax`.

    Raises:
        ValueError: as `Trace.attention_map`.
    """
    found, attention = trace.span(span), trace.attention_map(span, layer, head)
    _draw_attention(trace, attention, ax)
    if found.points is not None and len(found.points) > 1:
        for color, line_width in ((DARK, 3.0), (LIGHT, 1.4)):
            ax.add_patch(Polygon(found.points, fill=False, edgecolor=color, linewidth=line_width))
    ax.set_title(f"{_shorten(found.text)}  {attention.sum():.0%}", **font_properties(8.5))
    return ax


@validate_arguments
def show_attention(
    trace: Trace,
    *spans: str | int | AnswerSpan,
    layer: int | None = None,
    head: int | None = None,
    columns: int = 5,
) -> NotebookFigure:
    """Return a figure with the attention of each span over the image.

    Args:
        trace: the prediction.
        spans: see `Trace.span`; all spans of the answer by default.
        layer, head: see `Trace.attention_map`.
        columns: number of panels in a row.

    Raises:
        ValueError: as `Trace.attention_map`, and for an empty answer.
    """
    found = [trace.span(span) for span in spans] or list(trace.spans)
    if not found:
        raise ArgumentError("the answer is empty: it has no words or boxes to show")
    columns = min(columns, len(found))
    figure, axes = create_panels(-(-len(found) // columns), columns, trace.result.image_size, large=len(found) == 1)
    for ax, span in zip(axes.flat, found, strict=False):
        plot_attention(trace, span, ax, layer, head)
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    return figure


@validate_arguments
def show_attention_heads(trace: Trace, span: str | int | AnswerSpan) -> NotebookFigure:
    """Return a figure with the attention of a span in each layer (rows, the first at the top) and head (columns).

    Raises:
        ValueError: as `Trace.span`.
    """
    layers, heads = trace.cross_attention.shape[:2]
    figure, axes = create_panels(layers, heads, trace.result.image_size)
    for (layer, head), ax in np.ndenumerate(axes):
        attention = trace.attention_map(span, layer, head)
        _draw_attention(trace, attention, ax)
        ax.set_title(f"layer {layer}, head {head}  {attention.sum():.0%}", **font_properties(7))
    return figure


@validate_arguments
def show_top_tokens(trace: Trace, start: int = 0, stop: int | None = 30) -> NotebookFigure:
    """Return a bar chart of the candidates for each token: the generated token in color, the others in gray.

    A bar is as long as the probabilities of its candidates together. Location tokens are labeled with their bin. A bar
    without color belongs to a token outside the candidates, as beam search and sampling may generate.

    Args:
        trace: the prediction.
        start, stop: which tokens, as in a slice; the first 30 by default.

    Raises:
        ValueError: if the slice contains no token.
    """
    rows = range(len(trace.tokens))[start:stop]
    if not rows:
        raise ArgumentError(f"no token in {start}:{stop}; the answer has the tokens 0 … {len(trace.tokens) - 1}")
    figure = NotebookFigure(8, 0.27 * len(rows) + 0.6, layout="constrained")
    ax = figure.subplots()
    for y, row in enumerate(rows):
        _draw_candidates(trace, row, y, ax)
    ax.set_yticks(range(len(rows)))
    labels = [f"{printable(trace.tokens[row])}  {trace.probabilities[row]:.2f}" for row in rows]
    ax.set_yticklabels(labels, **font_properties(8))
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    ax.set_xlabel("probability", **font_properties(8))
    ax.tick_params(axis="both", length=0, labelsize=8)
    ax.spines[:].set_visible(False)
    return figure


@validate_arguments
def show_location_probabilities(trace: Trace, span: str | int | AnswerSpan) -> NotebookFigure:
    """Return a figure with the probabilities of all location tokens at each coordinate of a shape.

    The x coordinates are plotted above the image, the y coordinates beside it, each in the color of its line in the image.

    Args:
        trace: the prediction.
        span: a box, quad box or polygon (`"box 1"`), or the position of a location token.

    Raises:
        ValueError: if the span is a word, or as for `Trace.span`.
    """
    found = trace.span(span)
    if found.points is None:
        shapes = ", ".join(repr(s.text) for s in trace.spans if s.points is not None)
        raise ArgumentError(f"{shorten(span)} has no location tokens; shapes of this answer: {shapes or 'none'}")
    size = trace.result.image_size
    width, height = 4.6 * np.array(size) / max(size)
    figure = NotebookFigure(width + 1.1, height + 1.1, layout="constrained")
    axes = figure.subplots(2, 2, width_ratios=(width, 0.9), height_ratios=(0.9, height), sharex="col", sharey="row")
    (above, corner), (ax, beside) = axes
    corner.set_axis_off()
    if trace.result.image is not None:
        ax.imshow(trace.result.image, extent=(0, size[0], size[1], 0), aspect="auto")
    ax.add_patch(Polygon(found.points, fill=False, edgecolor=LIGHT, linewidth=1.5))
    order = {position: i for s in trace.spans if s.points is not None for i, position in enumerate(s.positions)}
    for position in found.positions:
        _draw_coordinate(trace, position, order[position], ax, above, beside)
    ax.set(xlim=(0, size[0]), ylim=(size[1], 0))
    for side in (above, beside, ax):
        side.tick_params(labelsize=7)
    above.set_ylim(bottom=0)
    beside.set_xlim(left=0)
    above.set_title(f"{printable(found.text)}: probabilities of the location tokens", **font_properties(8.5))
    return figure


def create_panels(
    rows: int, columns: int, image_size: tuple[int, int], large: bool = False
) -> tuple[NotebookFigure, np.ndarray]:
    """Return a figure with rows x columns Axes that have the aspect ratio of an image."""
    side = 4.5 if large else max(1.1, min(2.2, 11 / columns))  # inches
    width, height = side * np.array(image_size) / max(image_size)
    layout = ConstrainedLayoutEngine(compress=True, w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    figure = NotebookFigure(max(columns * width, 2.2), rows * (height + 0.28), layout=layout)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _draw_attention(trace: Trace, attention: np.ndarray, ax: Axes) -> None:
    width, height = trace.result.image_size
    extent = (0, width, height, 0)
    if trace.result.image is not None:
        ax.imshow(_to_gray(trace.result.image), extent=extent)
    share = attention / max(float(attention.max()), 1e-12)
    opacity = 0.12 + 0.73 * share**0.5  # the image stays visible where there is little attention
    ax.imshow(share, extent=extent, cmap=ATTENTION_COLORMAP, vmin=0, vmax=1, alpha=opacity, interpolation="nearest")
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()


def _draw_candidates(trace: Trace, row: int, y: int, ax: Axes) -> None:
    left = 0.0
    for token, probability in trace.top_tokens[row]:
        color = PALETTE[1] if token == trace.tokens[row] else _OTHER_CANDIDATE
        ax.barh(y, probability, left=left, height=0.82, color=color, edgecolor="white", linewidth=0.8)
        label = printable(token.removeprefix("<loc_").removesuffix(">") if "<loc_" in token else token)
        if probability > 0.011 * len(label) + 0.008:  # the bar is wide enough for the label
            ax.text(left + probability / 2, y, label, ha="center", va="center", **font_properties(7.5))
        left += probability


def _draw_coordinate(trace: Trace, position: int, index: int, ax: Axes, above: Axes, beside: Axes) -> None:
    axis = index % 2  # coordinates alternate x, y, x, y …
    pixels = bins_to_pixels(np.arange(NUM_BINS), (trace.result.image_size[axis],) * 2)
    color = PALETTE[index % len(PALETTE)]
    probabilities = trace.location_probabilities[position]
    fill, line = (above.fill_between, ax.axvline) if axis == 0 else (beside.fill_betweenx, ax.axhline)
    fill(pixels, probabilities, step="mid", color=color, alpha=0.8)
    line(pixels[int(probabilities.argmax())], color=color, linewidth=1.8, linestyle=(0, (3, 2)))


def _to_gray(image: Image.Image) -> np.ndarray:
    """The image in gray, so that all color is attention, at most 800 pixels wide and high."""
    image = ImageOps.grayscale(image)
    image.thumbnail((800, 800))
    return np.asarray(image.convert("RGB"))


def _shorten(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _MAX_TITLE_LENGTH else text[: _MAX_TITLE_LENGTH - 1] + "…"
