"""Colors, line styles and fonts of overlays, and the measurement of text."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.patheffects import AbstractPathEffect, Normal, Stroke
from matplotlib.text import Text as TextArtist

AnyFigure = Figure | SubFigure
"""The type of `Axes.figure`."""

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#F0E442", "#CC79A7")
"""Okabe and Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/, without black, which is invisible on
dark images. The order keeps neighbors apart for viewers with red-green color blindness."""

LINE_STYLES = ("solid", (0, (4, 1.6)), (0, (1.2, 1.6)), (0, (6, 1.5, 1.2, 1.5)))
"""Matplotlib line styles, which distinguish labels beyond the number of colors."""

DARK, LIGHT = "#1a1a1a", "#ffffff"
"""Colors of text on light and on dark backgrounds."""

POINTS_PER_INCH = 72


def color_and_line_style(index: int) -> tuple[str, Any]:
    """Return the color and the matplotlib line style of the label with an index, repeated after 28 labels."""
    return PALETTE[index % len(PALETTE)], LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]


def contrast_outline(color: str, line_width: float) -> list[AbstractPathEffect]:
    """Return path effects that add a border of opposite lightness to a line, so that it is visible on any image."""
    return [Stroke(linewidth=line_width + 1.6, foreground=text_color_on(color), alpha=0.8), Normal()]


def text_color_on(color: Any) -> str:
    """Return `DARK` or `LIGHT`, whichever has the higher contrast to a background color (contrast ratio of WCAG 2)."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return DARK if (luminance + 0.05) ** 2 > 1.05 * 0.05 else LIGHT


def font_properties(size: float) -> dict[str, Any]:
    """Return keyword arguments of matplotlib text: font size in points, font families, no mathematics.

    Generated text may contain "$", which matplotlib would otherwise interpret as mathematics.
    """
    return {"fontsize": size, "family": _font_families(), "parse_math": False, "usetex": False}


@cache
def _font_families() -> list[str]:
    """Return matplotlib's own font, followed by installed fonts for other scripts."""
    wanted = (
        "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Hiragino Sans GB",
        "Microsoft YaHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS",
        "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Malgun Gothic",
    )  # fmt: skip
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in wanted if name in installed)]


@cache
def _has_glyph(character: str) -> bool:
    fonts = (get_font(findfont(FontProperties(family=name))) for name in _font_families())
    return any(font.get_char_index(ord(character)) for font in fonts)


def printable(text: str) -> str:
    """Return the text as one line, with a box in place of characters that no installed font has.

    Matplotlib warns about each missing character.
    """
    return "".join(c if _has_glyph(c) else "\u25a1" for c in " ".join(text.split()))


def text_size(figure: AnyFigure, text: str, font_size: float) -> np.ndarray:
    """Return (width, height) of a text in pixels of the figure; `font_size` is in points."""
    artist = TextArtist(0, 0, text, **font_properties(font_size))
    artist.set_figure(figure)
    return np.array(artist.get_window_extent().size)


def fitting_length(figure: AnyFigure, text: str, font_size: float, max_width: float) -> int:
    """Return the length of the longest prefix that is at most `max_width` pixels wide, at least 1."""
    low, high = 1, min(len(text), 1 + int(8 * max_width / font_size))
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_size(figure, text[:middle], font_size)[0] <= max_width
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def elide(figure: AnyFigure, text: str, font_size: float, max_width: float) -> str:
    """Return the text, shortened with an ellipsis if it is wider than `max_width` pixels."""
    if not text or text_size(figure, text, font_size)[0] <= max_width:
        return text
    ellipsis_width = text_size(figure, "\u2026", font_size)[0]
    return text[: fitting_length(figure, text, font_size, max_width - ellipsis_width)].rstrip(" ,.;:") + "\u2026"
