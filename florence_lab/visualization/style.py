"""TODO"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Text as TextArtist

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#F0E442", "#CC79A7")
"""Okabe and Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/, without its black, which the dark
parts of pictures swallow; in an order that keeps neighbours far apart under red-green blindness."""

LINE_STYLES = ("solid", (0, (4, 1.6)), (0, (1.2, 1.6)), (0, (6, 1.5, 1.2, 1.5)))
"""One more trait for more labels than the palette has colours."""

DARK, LIGHT = "#1a1a1a", "#ffffff"

_POINTS = 72  # to the inch


def _trait(index: int) -> tuple[str, Any]:
    return PALETTE[index % len(PALETTE)], LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]


def _halo(colour: str, line_width: float) -> list:
    """A rim of the opposite lightness: of colour and rim, one stands out from any picture."""
    return [Stroke(linewidth=line_width + 1.6, foreground=_ink_on(colour), alpha=0.8), Normal()]


def _ink_on(colour: Any) -> str:
    """The dark or light that is better read on a colour, by WCAG 2's contrast of relative luminances."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return DARK if (luminance + 0.05) ** 2 > 1.05 * 0.05 else LIGHT


def font_properties(size: float) -> dict[str, Any]:
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


def printable(text: str) -> str:
    """One line of what can be drawn: a character in none of the fonts becomes a box (matplotlib would warn of each)."""
    return "".join(c if _has_glyph(c) else "\u25a1" for c in " ".join(text.split()))


def _text_size(figure: Figure, text: str, font_size: float) -> np.ndarray:
    """(width, height) in pixels of the figure."""
    artist = TextArtist(0, 0, text, **font_properties(font_size))
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
