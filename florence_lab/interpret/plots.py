"""TODO"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from PIL import Image, ImageOps

from ..template.locations import NUM_BINS, bins_to_pixels
from ..visualization.figures import NotebookFigure
from ..visualization.style import DARK, LIGHT, PALETTE, font_properties, printable

if TYPE_CHECKING:
    from .spans import AnswerSpan
    from .trace import Trace

HEAT = "inferno"
"""matplotlib's name of the colours of attention: dark is little, yellow is most."""


def plot_attention(
    ax: Axes, trace: Trace, of: str | int | AnswerSpan, layer: int | None = None, head: int | None = None
) -> Axes:
    """The attention of a word, a box or a token over the picture, one square per image token; a box with its outline.

    Colours run from nothing to the most attended token; how much of the attention went to the picture at all stands
    above. Parameters and errors as in `Trace.heat`.

    Returns:
        The Axes: x 0..width and y height..0 in pixels of the picture, its frame switched off.
    """
    part, heat = trace.find(of), trace.heat(of, layer, head)
    _draw_heat(ax, trace, heat)
    if part.outline is not None and len(part.outline) > 1:
        for colour, line_width in ((DARK, 3.0), (LIGHT, 1.4)):
            ax.add_patch(Polygon(part.outline, fill=False, edgecolor=colour, linewidth=line_width))
    ax.set_title(_title(part.name, f"{heat.sum():.0%}"), **font_properties(8.5))
    return ax


def _draw_heat(ax: Axes, trace: Trace, heat: np.ndarray) -> None:
    width, height = trace.result.image_size
    extent = (0, width, height, 0)
    if trace.result.image is not None:
        ax.imshow(_pale(trace.result.image), extent=extent)
    share = heat / max(float(heat.max()), 1e-12)
    # little attention hides little of the picture
    ax.imshow(share, extent=extent, cmap=HEAT, vmin=0, vmax=1, alpha=0.12 + 0.73 * share**0.5, interpolation="nearest")
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()


def _pale(image: Image.Image) -> np.ndarray:
    """Grey, so that all colour is attention; and no larger than figures show."""
    image = ImageOps.grayscale(image)
    image.thumbnail((800, 800))
    return np.asarray(image.convert("RGB"))


def _title(name: str, more: str) -> str:
    name = printable(name)
    return f"{name if len(name) <= 18 else name[:17] + '…'}  {more}"


def show_attention(
    trace: Trace, *of: str | int | AnswerSpan, layer: int | None = None, head: int | None = None, columns: int = 5
) -> NotebookFigure:
    """The attention of words, boxes or tokens over the picture, a panel each; without any, of the whole answer.

    Above each stands how much of the attention went to the picture (the rest: its mean token and the prompt).

    Args:
        of: as in `Trace.find`.
        layer, head: as in `Trace.heat`.
        columns: panels a row.

    Raises:
        ValueError: as `Trace.heat`; or if the answer is empty.
    """
    parts = [trace.find(one) for one in of] or list(trace.parts)
    if not parts:
        raise ValueError("the answer is empty: there is no word or box to show")
    columns = min(columns, len(parts))
    sheet, axes = _panels(-(-len(parts) // columns), columns, trace.result.image_size, large=len(parts) == 1)
    for ax, part in zip(axes.flat, parts, strict=False):
        plot_attention(ax, trace, part, layer, head)
    for ax in axes.flat[len(parts) :]:
        ax.set_axis_off()
    return sheet


def show_attention_heads(trace: Trace, of: str | int | AnswerSpan) -> NotebookFigure:
    """The attention of a word, a box or a token in every layer (rows, the first at the top) and every head (columns).

    Raises:
        ValueError: as `Trace.find`.
    """
    layers, heads = trace.attention.shape[:2]
    sheet, axes = _panels(layers, heads, trace.result.image_size)
    for (layer, head), ax in np.ndenumerate(axes):
        heat = trace.heat(of, layer, head)
        _draw_heat(ax, trace, heat)
        ax.set_title(f"layer {layer}, head {head}  {heat.sum():.0%}", **font_properties(7))
    return sheet


def _panels(
    rows: int, columns: int, image_size: tuple[int, int], large: bool = False
) -> tuple[NotebookFigure, np.ndarray]:
    """A sheet of panels in the shape of the picture: rows x columns Axes."""
    side = 4.5 if large else max(1.1, min(2.2, 11 / columns))  # inches
    width, height = side * np.array(image_size) / max(image_size)
    sheet = NotebookFigure(max(columns * width, 2.2), rows * (height + 0.28), layout="compressed")
    sheet.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    return sheet, sheet.subplots(rows, columns, squeeze=False)


def show_top_tokens(trace: Trace, start: int = 0, stop: int | None = 30) -> NotebookFigure:
    """The decoder's choices, a row for each token: what it wrote in colour, its most probable rivals in grey.

    A row is as long as the probabilities of its `top` choices together; all the others fill it up to 1. Of location tokens
    the bars name the bin only. A row without colour is a token outside the `top`, which beams and sampling may bring.

    Args:
        start, stop: which tokens, as in a slice; the first 30 by default, since a long answer makes a long figure.

    Raises:
        ValueError: if there is no token among them.
    """
    rows = range(len(trace.tokens))[start:stop]
    if not rows:
        raise ValueError(f"no token in {start}:{stop}; this answer has the tokens 0 … {len(trace.tokens) - 1}")
    sheet = NotebookFigure(8, 0.27 * len(rows) + 0.6, layout="constrained")
    ax = sheet.subplots()
    for y, row in enumerate(rows):
        left = 0.0
        for choice in trace.choices[row]:
            chosen = choice.token == trace.tokens[row]
            colour = PALETTE[1] if chosen else "#dcdcdc"
            ax.barh(y, choice.probability, left=left, height=0.82, color=colour, edgecolor="white", linewidth=0.8)
            label = printable(
                choice.token.removeprefix("<loc_").removesuffix(">") if "<loc_" in choice.token else choice.token
            )
            if choice.probability > 0.011 * len(label) + 0.008:
                ax.text(left + choice.probability / 2, y, label, ha="center", va="center", **font_properties(7.5))
            left += choice.probability
    ax.set_yticks(range(len(rows)))
    labels = [f"{printable(trace.tokens[row])}  {trace.probabilities[row]:.2f}" for row in rows]
    ax.set_yticklabels(labels, **font_properties(8))
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    ax.set_xlabel("probability", **font_properties(8))
    ax.tick_params(axis="both", length=0, labelsize=8)
    ax.spines[:].set_visible(False)
    return sheet


def show_location_probabilities(trace: Trace, of: str | int | AnswerSpan) -> NotebookFigure:
    """The probabilities of all location tokens at each coordinate of a box, along the picture's sides.

    Above the picture those of its x, beside it those of its y; the box is drawn in the colours of its coordinates.

    Args:
        of: a box, quad box or outline (`"box 1"`), or the position of one location token.

    Raises:
        ValueError: if it is a word, with the boxes there are; and as `Trace.find`.
    """
    part = trace.find(of)
    if part.outline is None:
        boxes = ", ".join(repr(p.name) for p in trace.parts if p.outline is not None)
        raise ValueError(f"{of!r} has no location tokens; this answer's boxes: {boxes or 'none'}")
    size = trace.result.image_size
    width, height = 4.6 * np.array(size) / max(size)
    sheet = NotebookFigure(width + 1.1, height + 1.1, layout="constrained")
    axes = sheet.subplots(2, 2, width_ratios=(width, 0.9), height_ratios=(0.9, height), sharex="col", sharey="row")
    (above, corner), (ax, beside) = axes
    corner.set_axis_off()
    if trace.result.image is not None:
        ax.imshow(trace.result.image, extent=(0, size[0], size[1], 0), aspect="auto")
    ax.add_patch(Polygon(part.outline, fill=False, edgecolor=LIGHT, linewidth=1.5))
    order = {position: i for p in trace.parts if p.outline is not None for i, position in enumerate(p.positions)}
    for position in part.positions:
        i = order[position]
        along = i % 2  # x, y, x, y …
        pixels = bins_to_pixels(np.arange(NUM_BINS), (size[along],))
        colour = PALETTE[i % len(PALETTE)]
        curve = trace.locations[position]
        (above.fill_between if along == 0 else beside.fill_betweenx)(pixels, curve, step="mid", color=colour, alpha=0.8)
        line = ax.axvline if along == 0 else ax.axhline
        line(pixels[int(curve.argmax())], color=colour, linewidth=1.8, linestyle=(0, (3, 2)))
    ax.set(xlim=(0, size[0]), ylim=(size[1], 0))
    for side in (above, beside, ax):
        side.tick_params(labelsize=7)
    above.set_ylim(bottom=0)
    beside.set_xlim(left=0)
    above.set_title(f"{printable(part.name)}: the probability of every location token", **font_properties(8.5))
    return sheet
