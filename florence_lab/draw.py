"""A result over its picture, with matplotlib: a picture and a result in, an Axes, a PNG or a gallery out.

Data coordinates are pixels of the image, with (0, 0) at the top left corner of the top left pixel. Everything that is
meant to be read (text, line widths, gaps) is in points, so it looks the same on a 64 x 48 and on an 8000 x 6000 picture.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Text as TextArtist
from PIL import Image

from .images import load_image
from .results import Boxes, Polygons, Quads, Result, Text
from .tasks import get_task
from .template import FlorenceTemplate

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#F0E442", "#CC79A7")
"""Okabe and Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/, without its black, which the dark
parts of pictures swallow; in an order that keeps neighbours far apart under red-green blindness."""

LINE_STYLES = ("solid", (0, (4, 1.6)), (0, (1.2, 1.6)), (0, (6, 1.5, 1.2, 1.5)))
"""One more trait for more labels than the palette has colours."""

DARK, LIGHT = "#1a1a1a", "#ffffff"
DPI = 100
LONG_SIDE = (640, 1000)  # pixels between which a picture is drawn when the figure is ours
SHORT_SIDE = 64  # pixels; thinner pictures are stretched, or a 20000 x 10 would be half a pixel high
CAPTION_WIDTH = 360  # pixels that a text gets at least, under a narrow picture
CAPTION_LINES = 30
MAX_BYTES = 700_000  # of a PNG; above it 256 colours have to do

_LINE_SPACING = 1.5  # of the caption, in font sizes
_SPACE = 0.33  # between runs of the caption, in font sizes
_MARGIN = 0.5  # around the caption, in font sizes
_CHIP_PAD = 0.22  # between a chip's text and its edge, in font sizes
_MOVED = 0.6  # cost of a label that stands at none of its box's corners, see `_costs`
_TITLE_HEIGHT = 0.2  # inches, of each of its lines
_POINTS = 72  # to the inch


class _Item(NamedTuple):
    """One instance, ready to be drawn."""

    name: str
    outlines: tuple[np.ndarray, ...]  # each K x 2, pixels of the image
    colour: str
    line_style: Any
    filled: bool
    score: float | None


class _Run(NamedTuple):
    """A piece of one line of the caption."""

    text: str
    colour: str | None  # of the chip behind it
    spaced: bool  # whether a space stands in front of it


class Sheet(Figure):
    """A figure of its own, none of pyplot's, that a notebook shows as the last line of a cell.

    A plain `Figure` is shown only where pyplot has been imported, and would stay in pyplot's memory if it were pyplot's.
    """

    def __init__(self, width: float, height: float, **settings: Any) -> None:
        """Width and height in inches, at `DPI`."""
        super().__init__(dpi=DPI, facecolor="white", figsize=(width, height), **settings)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        return _png(self)


# ---------------------------------------------------------------------- what people call


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


def gallery(panels: Sequence[tuple[Any, Result]], columns: int = 3) -> Sheet:
    """Many results side by side, each under its task token and its phrase, question or region.

    Args:
        panels: pairs of a picture, as `show` takes it, and its result.
        columns: panels a row.

    Returns:
        A figure of its own (none of pyplot's), 420 pixels a column at its own dpi; a notebook shows it.
    """
    width, gap = 4.0, 0.2  # inches
    columns = max(1, min(columns, len(panels)))
    figure = Sheet(columns * (width + gap) + gap, 1)
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


# ---------------------------------------------------------------------- figures, and the picture in them


def _drawn_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) in pixels at which an image of (width, height) is drawn in a figure of ours."""
    width, height = image_size
    scale = np.clip(max(width, height), *LONG_SIDE) / max(width, height)
    return max(round(width * scale), SHORT_SIDE), max(round(height * scale), SHORT_SIDE)


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


def _aspect(image_size: tuple[int, int]) -> float:
    """How much higher than wide a pixel is drawn: 1, but for whole pixels of the figure and for too thin pictures."""
    across, down = np.divide(_drawn_size(image_size), image_size)
    return float(down / across)


def _frame(ax: Axes) -> np.ndarray:
    """(x0, y0, x1, y1) of the picture in pixels of the figure, y upwards."""
    ax.apply_aspect()  # which matplotlib itself does no sooner than it draws
    return ax.get_window_extent().extents


def _png(figure: Figure) -> bytes:
    canvas = figure.canvas
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    full = _saved(drawn)
    return full if len(full) <= MAX_BYTES else _saved(drawn.quantize(256))


def _saved(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", dpi=(DPI, DPI))
    return file.getvalue()


# ---------------------------------------------------------------------- instances


def _items(result: Boxes | Quads | Polygons) -> list[_Item]:
    """The instances: one colour and line style per label, and one each where there are no labels."""
    names = _names(result)
    keys = [name or i for i, name in enumerate(names)]
    traits = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    scores = [None] * len(names) if result.scores is None else result.scores.tolist()
    return [
        _Item(name, outlines, *_trait(traits[key]), filled, score)
        for name, (outlines, filled), key, score in zip(names, _outlines(result), keys, scores, strict=True)
    ]


def _trait(index: int) -> tuple[str, Any]:
    return PALETTE[index % len(PALETTE)], LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]


def _names(result: Boxes | Quads | Polygons) -> list[str]:
    """What to write at each instance: its label, or the phrase that was looked for where the model repeats none."""
    task = get_task(result.task)
    phrase = result.phrase if task.input == "phrase" and task.result != "grounding" else ""
    return [_tidy(label or phrase) for label in result.labels]


def _outlines(result: Boxes | Quads | Polygons) -> list[tuple[tuple[np.ndarray, ...], bool]]:
    """Per instance its outlines, and whether they follow a thing's shape, so that to fill them shows something."""
    if isinstance(result, Quads):
        return [((quad,), False) for quad in result.quads]
    if isinstance(result, Polygons):
        return [(outlines, True) for outlines in result.polygons]
    given = result.polygons or ((),) * len(result)
    return [(shape or (_corners(box),), bool(shape)) for shape, box in zip(given, result.boxes, strict=True)]


def _corners(box: np.ndarray) -> np.ndarray:
    """xyxy -> 4 x 2, clockwise from the top left."""
    x0, y0, x1, y1 = box
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


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


def _halo(colour: str, line_width: float) -> list:
    """A rim of the opposite lightness: of colour and rim, one stands out from any picture."""
    return [Stroke(linewidth=line_width + 1.6, foreground=_ink_on(colour), alpha=0.8), Normal()]


def _draw_region(ax: Axes, result: Result) -> None:
    """The region that went into the prompt, in white and black: the colours belong to the answers."""
    if get_task(result.task).input != "region":
        return
    for box in _region_boxes(result):
        ax.add_artist(
            Polygon(
                _corners(box),
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
    return FlorenceTemplate().parse_text(result.phrase, "<REGION_PROPOSAL>", result.image_size).boxes


# ---------------------------------------------------------------------- labels


def _draw_labels(ax: Axes, items: Sequence[_Item], font_size: float) -> None:
    """A chip for every instance that has something to say, each where it hides least."""
    frame = _frame(ax)
    shapes = [ax.transData.transform(np.concatenate(item.outlines)) for item in items]
    boxes = np.array([np.concatenate([shape.min(axis=0), shape.max(axis=0)]) for shape in shapes])
    em = font_size * ax.figure.dpi / _POINTS
    widest = min(0.6 * (frame[2] - frame[0]), (16 if len(items) > 20 else 26) * em)
    placed = np.zeros((0, 4))
    # small ones choose first: a label of a large box has more places to go to
    for i in np.argsort(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable"):
        room = np.clip(boxes[i, 2] - boxes[i, 0] - em, widest, frame[2] - frame[0] - em)
        text = _label(ax, items[i], font_size, room)
        size = _text_size(ax.figure, text, font_size) + 2 * _CHIP_PAD * em
        if text and (size <= frame[2:] - frame[:2]).all():
            place = _best_place(shapes[i], size, frame, placed, np.vstack([np.delete(boxes, i, axis=0), boxes[i]]))
            placed = np.vstack([placed, place])
            _draw_chip(ax, text, place, boxes[i], items[i].colour, font_size)


def _label(ax: Axes, item: _Item, font_size: float, widest: float) -> str:
    score = "" if item.score is None else f"{item.score:.2f}"
    taken = _text_size(ax.figure, f" {score}", font_size)[0] if score else 0
    if item.name and taken > widest / 2:
        score, taken = "", 0  # where there is little room the name says more
    return f"{_elided(ax.figure, item.name, font_size, widest - taken)} {score}".strip()


def _best_place(
    shape: np.ndarray, size: np.ndarray, frame: np.ndarray, placed: np.ndarray, boxes: np.ndarray
) -> np.ndarray:
    """Where in the frame a label of this (width, height) goes best: (x0, y0, x1, y1). All in pixels, y upwards.

    Args:
        shape: K x 2, the points of the instance.
        size: (width, height) of the label.
        frame: (x0, y0, x1, y1) of the picture.
        placed: P x 4, the labels that already stand.
        boxes: N x 4, the boxes around all instances, this one's last.
    """
    natural = _natural_places(shape, boxes[-1], size)
    grid = np.stack(np.meshgrid(*(np.arange(frame[i], frame[i + 2], size[1]) for i in (0, 1))), axis=-1).reshape(-1, 2)
    # the natural places in the order of habit; and where all of them are bad, anything in the frame
    habits = ((natural, 0.06 * np.arange(len(natural))), (grid, np.full(len(grid), _MOVED)))
    best, lowest = np.zeros(4), math.inf
    for corners, habit in habits:
        if lowest > _MOVED:
            corners = np.clip(corners, frame[:2], np.maximum(frame[2:] - size, frame[:2]))
            places = np.concatenate([corners, corners + size], axis=1)
            costs = habit + _costs(places, natural[0], placed, boxes)
            if costs.min() < lowest:
                best, lowest = places[np.argmin(costs)], costs.min()
    return best


def _costs(places: np.ndarray, ideal: np.ndarray, placed: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """M costs of M x 4 places. Worst is to lie on a label, then to hide what a box shows, then to be far from one's own."""
    width, height = places[0, 2:] - places[0, :2]
    own = boxes[-1]
    on_labels = _overlaps(places, placed + np.array([-1, -1, 1, 1])).sum(axis=1) / (width * height)
    areas = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1)
    hidden = np.minimum(_overlaps(places, boxes) / areas, 1).sum(axis=1)
    away = np.hypot(*np.maximum(0, np.maximum(own[:2] - places[:, 2:], places[:, :2] - own[2:])).T) / height
    from_ideal = np.hypot(*(places[:, :2] - ideal).T) / height
    return 100 * (on_labels > 1e-9) + 100 * on_labels + 2 * hidden + 0.3 * away + 0.05 * from_ideal


def _natural_places(shape: np.ndarray, box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """M x 2, the lower left corners of a label at the corners of its box, the most usual first."""
    (x0, y0, x1, y1), (width, height) = box, size
    gap = 0.12 * height
    # above what reaches highest: a box begins there at its left, a circle or a tilted quad has one peak
    peak = shape[shape[:, 1] >= y1 - max(0.05 * (y1 - y0), 0.3 * height), 0]
    left = peak.min() if np.ptp(peak) > 0.5 * (x1 - x0) else peak.mean() - width / 2
    return np.array(
        [
            (left, y1 + gap),  # above
            (left + gap, y1 - height - gap),  # inside, at the top
            (x0, y0 - height - gap),  # below
            (x1 - width, y1 + gap),
            (x1 - width - gap, y1 - height - gap),
            (x1 - width, y0 - height - gap),
            (x0 + gap, y0 + gap),  # inside, at the bottom
            (x1 - width - gap, y0 + gap),
            (x1 + gap, y1 - height),  # beside
            (x0 - width - gap, y1 - height),
        ]
    )


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """M x 4 and N x 4 boxes -> M x N, the areas that they share."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    sides = np.maximum(sides, 0)
    return sides[..., 0] * sides[..., 1]


def _draw_chip(ax: Axes, text: str, place: np.ndarray, box: np.ndarray, colour: str, font_size: float) -> TextArtist:
    """Text on a coloured ground at `place`, tied to the nearest point of `box`; both in pixels of the figure.

    A label that had to move away gets a line to its box.
    """
    to_points = _POINTS / ax.figure.dpi
    anchor = np.clip(place[:2], box[:2], box[2:])
    far = np.maximum(place[:2] - box[2:], box[:2] - place[2:]).max() > 0.6 * (place[3] - place[1])
    corner = (place[:2] - anchor) * to_points + _CHIP_PAD * font_size
    return ax.annotate(
        text,
        xy=ax.transData.inverted().transform(anchor),
        xytext=corner,
        textcoords="offset points",
        annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1, "path_effects": _halo(colour, 1)}
        if far
        else None,
        bbox={
            "boxstyle": f"round,pad={_CHIP_PAD},rounding_size=0.2",
            "facecolor": colour,
            "edgecolor": "none",
            "alpha": 0.92,
        },
        color=_ink_on(colour),
        zorder=4,
        **_font(font_size),
    )


def _draw_note(ax: Axes, text: str) -> None:
    """A remark about the answer as a whole, in the top left corner."""
    frame, size = _frame(ax), _label_size(ax, 1)
    em = size * ax.figure.dpi / _POINTS
    width, height = _text_size(ax.figure, text, size) + 2 * _CHIP_PAD * em
    x, y = frame[0] + min(em / 2, 4), frame[3] - height - min(em / 2, 4)
    place = np.array([x, y, x + width, y + height])
    _draw_chip(ax, text, place, place, "#e8e8e8", size)


# ---------------------------------------------------------------------- text under the picture


def _caption(result: Result) -> str:
    """What stands under the picture."""
    if isinstance(result, Text):
        return _tidy(result.text)
    return _tidy(result.phrase) if get_task(result.task).result == "grounding" else ""


def _caption_colours(result: Result, caption: str) -> list[str | None]:
    """The colour behind each character of the caption: that of the phrase it belongs to."""
    colours: list[str | None] = [None] * len(caption)
    if isinstance(result, Text):
        return colours
    items = {item.name: item.colour for item in _items(result) if item.name}
    for name in sorted(items, key=len, reverse=True):  # "the white sheep" before "sheep"
        words = list(re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", caption, re.IGNORECASE))
        for found in words or re.finditer(re.escape(name), caption, re.IGNORECASE):
            if not any(colours[found.start() : found.end()]):
                colours[found.start() : found.end()] = [items[name]] * len(found[0])
    return colours


def _write_caption(ax: Axes, result: Result) -> None:
    """Make room under the picture, within the Axes' own place, and write there what belongs there."""
    figure, caption = ax.figure, _caption(result)
    if not caption:
        return
    cell = ax.get_position(original=True)
    width, height = np.array([cell.width, cell.height]) * figure.bbox.size / figure.dpi
    font_size = _caption_size(width)
    line_height = _LINE_SPACING * font_size
    # in a figure of ours the picture fills the width; in a low Axes of others it keeps at least 40 % of the height
    picture = min(0.4 * height, width / result.image_size[0] * result.image_size[1] * _aspect(result.image_size))
    fitting = int(((height - picture) * _POINTS - 2 * _MARGIN * font_size) / line_height + 0.01)
    lines = _caption_lines(figure, result, width, max(1, min(fitting, CAPTION_LINES)))
    if figure.get_layout_engine() is None:  # else the layout makes the room, and moving the Axes would end it
        taken = _lines_height(figure, len(lines), font_size) / height * cell.height
        ax.set_position((cell.x0, cell.y0 + taken, cell.width, max(cell.height - taken, 1e-3)))
    ax.set_anchor("NW")
    face = to_rgba(figure.get_facecolor())
    ink = _ink_on(face) if face[3] else rcParams["text.color"]
    for number, runs in enumerate(lines):
        _write_line(ax, runs, -_MARGIN * font_size - (number + 0.78) * line_height, ink, font_size)


def _write_line(ax: Axes, runs: Sequence[_Run], y: float, ink: str, font_size: float) -> None:
    """One line of the caption, its baseline at y points from the picture's lower edge.

    Each run hangs on the end of the one before, for widths in points change with the dpi that a figure is saved at.
    """
    x, before, gap = 0, "axes fraction", _MARGIN
    for text, colour, spaced in runs:
        before = ax.annotate(
            text,
            xy=(x, 0),
            xycoords=(before, "axes fraction"),
            xytext=(gap * font_size + spaced * _SPACE * font_size, y),
            textcoords="offset points",
            annotation_clip=False,
            va="baseline",
            bbox={"boxstyle": "round,pad=0.14,rounding_size=0.2", "facecolor": colour, "edgecolor": "none"}
            if colour
            else None,
            color=_ink_on(colour) if colour else ink,
            **_font(font_size),
        )
        x, gap = 1, 0


def _caption_size(width: float) -> float:
    """Points, for a caption so many inches wide."""
    return float(np.clip(6 + 0.5 * width, 7, 11))


def _caption_height(figure: Figure, result: Result, width: float) -> float:
    """Inches that the caption takes when it is so many inches wide."""
    lines = _caption_lines(figure, result, width, CAPTION_LINES)
    return _lines_height(figure, len(lines), _caption_size(width))


def _lines_height(figure: Figure, count: int, font_size: float) -> float:
    """Inches for so many lines and the margins around them: whole pixels, so that the picture above stays sharp."""
    points = (count * _LINE_SPACING + 2 * _MARGIN) * font_size if count else 0
    return math.ceil(points / _POINTS * figure.dpi) / figure.dpi


def _caption_lines(figure: Figure, result: Result, width: float, most: int) -> list[list[_Run]]:
    """The caption in at most so many lines of at most `width` inches, each in runs of one colour."""
    font_size = _caption_size(width)
    # a little less than there is, for the same reason as in `_write_line`
    room = 0.96 * (width - 2 * _MARGIN * font_size / _POINTS) * figure.dpi
    caption = _caption(result)
    colours = _caption_colours(result, caption)
    spans = _wrapped(figure, caption, font_size, room, most + 1)
    lines = [(caption[start:end], colours[start:end]) for start, end in spans[:most]]
    if len(spans) > most:
        start = spans[most - 1][0]
        text = _elided(figure, caption[start:], font_size, room)
        lines[-1] = (text, [*colours[start : start + len(text) - 1], None])
    return [_runs(text, colours) for text, colours in lines]


def _runs(text: str, colours: Sequence[str | None]) -> list[_Run]:
    runs, spaced = [], False
    for colour, group in groupby(zip(text, colours, strict=True), key=lambda pair: pair[1]):
        piece = "".join(character for character, _ in group)
        if piece.strip():
            runs.append(_Run(piece.strip(), colour, spaced or piece.startswith(" ")))
        spaced = piece.endswith(" ")
    return runs


def _wrapped(figure: Figure, text: str, font_size: float, room: float, most: int) -> list[tuple[int, int]]:
    """(start, end) of the first lines of at most `room` pixels: broken at spaces, or anywhere if there are none."""
    spans = []
    start = 0
    while start < len(text) and len(spans) < most:
        end = start + _fitting(figure, text[start:], font_size, room)
        if end < len(text) and text[end] != " ":
            end = max(text.rfind(" ", start, end), 0) or end
        spans.append((start, end))
        start = end + (text[end : end + 1] == " ")
    return spans


# ---------------------------------------------------------------------- titles


def _write_title(figure: Figure, place: tuple[float, float, float], result: Result) -> None:
    """The task token, and below it what was asked; above the picture at (left, top, width) in inches."""
    left, top, width = place
    lines = [(_asked(result), 8, "normal", "#666666"), (result.task or "a free question", 9, "bold", DARK)]
    for number, (text, size, weight, colour) in enumerate(line for line in lines if line[0]):
        x, y, *_ = _in_figure(figure, (left, top + 0.08 + number * 0.9 * _TITLE_HEIGHT, 0, 0))
        # measured in regular letters; bold ones are wider by a tenth
        shown = _elided(figure, text, size, 0.9 * width * figure.dpi)
        figure.text(x, y, shown, va="baseline", weight=weight, color=colour, **_font(size))


def _asked(result: Result) -> str:
    """The phrase; a region in pixels, for people cannot read location tokens."""
    if get_task(result.task).input == "region":
        return "; ".join("region ({:.0f}, {:.0f}, {:.0f}, {:.0f})".format(*box) for box in _region_boxes(result))
    return _tidy(result.phrase)


def _panel_height(figure: Figure, result: Result, width: float) -> float:
    """Inches of the picture and its caption in a column so wide; a tall picture is kept to the column's square."""
    image_width, image_height = result.image_size
    picture = min(width * image_height / image_width * _aspect(result.image_size), width)
    return picture + _caption_height(figure, result, width)


def _in_figure(figure: Figure, inches: tuple[float, float, float, float]) -> tuple[float, ...]:
    """(left, bottom, width, height): inches -> parts of the figure."""
    return tuple(np.array(inches) / np.tile(figure.get_size_inches(), 2))


# ---------------------------------------------------------------------- fonts and colours


def _label_size(ax: Axes, count: int) -> float:
    """Points for so many labels: smaller in a small picture, and in a crowded one."""
    x0, y0, x1, y1 = _frame(ax) / ax.figure.dpi
    size = np.clip(4 + 0.8 * math.sqrt((x1 - x0) * (y1 - y0)), 6.5, 10)
    return float(max(size * min(1, (14 / max(count, 1)) ** 0.3), 5.5))


def _ink_on(colour: Any) -> str:
    """The dark or light that is better read on a colour, by WCAG 2's contrast of relative luminances."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return DARK if (luminance + 0.05) ** 2 > 1.05 * 0.05 else LIGHT


def _font(size: float) -> dict[str, Any]:
    # labels are a model's words: a "$" in them is money, not mathematics
    return {"fontsize": size, "family": _families(), "parse_math": False, "usetex": False}


@cache
def _families() -> list[str]:
    """matplotlib's own font, and behind it what this machine has for other scripts."""
    wanted = (
        "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Hiragino Sans GB",
        "Microsoft YaHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS",
        "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Malgun Gothic",
    )  # fmt: skip
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in wanted if name in installed)]


@cache
def _has_glyph(character: str) -> bool:
    fonts = (get_font(findfont(FontProperties(family=name))) for name in _families())
    return any(font.get_char_index(ord(character)) for font in fonts)


def _tidy(text: str) -> str:
    """One line of what can be drawn: a character in none of the fonts becomes a box (matplotlib would warn of each)."""
    return "".join(c if _has_glyph(c) else "\u25a1" for c in " ".join(text.split()))


def _text_size(figure: Figure, text: str, font_size: float) -> np.ndarray:
    """(width, height) in pixels of the figure."""
    artist = TextArtist(0, 0, text, **_font(font_size))
    artist.set_figure(figure)
    return np.array(artist.get_window_extent().size)


def _fitting(figure: Figure, text: str, font_size: float, room: float) -> int:
    """How many characters fit into so many pixels, at least one."""
    low, high = 1, min(len(text), 1 + int(8 * room / font_size))
    while low < high:
        middle = (low + high + 1) // 2
        fits = _text_size(figure, text[:middle], font_size)[0] <= room
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _elided(figure: Figure, text: str, font_size: float, room: float) -> str:
    """The text, or its beginning and an ellipsis if it is wider than so many pixels."""
    if not text or _text_size(figure, text, font_size)[0] <= room:
        return text
    dots = _text_size(figure, "\u2026", font_size)[0]
    return text[: _fitting(figure, text, font_size, room - dots)].rstrip(" ,.;:") + "\u2026"
