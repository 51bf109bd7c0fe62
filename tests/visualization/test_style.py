"""Colors, fonts and the measurement of text."""

import numpy as np
import pytest
from drawing import draw, labels, located, parse
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from florence_lab.visualization.style import (
    DARK,
    LIGHT,
    PALETTE,
    color_and_line_style,
    contrast_outline,
    elide,
    fitting_length,
    font_properties,
    printable,
    text_color_on,
    text_size,
)

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009),
# severity 1.0, on linear RGB
COLOR_VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def linear_rgb(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(linear):
    """Convert linear sRGB to CIE L*a*b* (D65)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.clip(linear, 0, 1) @ to_xyz.T / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def contrast_ratio(one, other):
    """Return the contrast ratio of WCAG 2."""
    low, high = sorted(linear_rgb(color) @ (0.2126, 0.7152, 0.0722) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture
def figure():
    figure = Figure(dpi=50)
    FigureCanvasAgg(figure)
    return figure


@pytest.mark.parametrize("vision", COLOR_VISION)
def test_colors_of_the_palette_differ_for_color_blind_viewers(vision):
    colors = lab(np.array([linear_rgb(color) for color in PALETTE]) @ np.transpose(COLOR_VISION[vision]))
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert np.diag(distances, 1).min() > 30  # neighbors; 2.3 is a just noticeable difference
    assert distances[np.triu_indices(len(colors), 1)].min() > 15


def test_28_labels_differ_in_color_or_line_style():
    assert len({color_and_line_style(i) for i in range(28)}) == 28
    assert color_and_line_style(28) == color_and_line_style(0) == (PALETTE[0], "solid")


def test_text_has_the_higher_contrast_to_its_background():
    for color in (*PALETTE, "white", "black", "#808080"):
        other = LIGHT if text_color_on(color) == DARK else DARK
        assert contrast_ratio(text_color_on(color), color) >= max(contrast_ratio(other, color), 4.1)


def test_labels_reach_level_aa_of_wcag_2():
    raw = "".join(located(f"label {i}", (10 + 50 * i, 100, 50 + 50 * i, 200)) for i in range(7))
    for text in labels(draw(parse(raw))):
        assert contrast_ratio(text.get_color(), text.get_bbox_patch().get_facecolor()[:3]) >= 4.5


def test_an_outline_or_its_border_is_visible_on_any_color():
    for background in ("white", "black", "#808080", *PALETTE):
        for color in PALETTE:
            stroke, _ = contrast_outline(color, 2)
            assert stroke._gc["linewidth"] == 3.6
            both = lab(np.stack([linear_rgb(color), linear_rgb(stroke._gc["foreground"])]))
            assert np.linalg.norm(both - lab(linear_rgb(background)[None]), axis=1).max() > 25


def test_characters_without_a_glyph_become_boxes():
    assert printable("a\ud800b\U0001fae8") == "a\u25a1b\u25a1"


def test_printable_text_is_one_line():
    assert printable(" a\n b\t c ") == "a b c"


@pytest.mark.filterwarnings("error")
def test_text_is_not_interpreted_as_mathematics(figure):
    assert font_properties(9)["fontsize"] == 9
    assert text_size(figure, r"$\frac{$", 9)[0] > text_size(figure, "$", 9)[0]


def test_the_size_of_text_grows_with_font_size_and_dpi(figure):
    width, height = text_size(figure, "sheep", 10)
    assert width > height > 0
    assert text_size(figure, "sheep", 20)[0] == pytest.approx(2 * width, rel=0.1)
    figure.set_dpi(100)
    assert text_size(figure, "sheep", 10)[0] == pytest.approx(2 * width, rel=0.1)


def test_the_longest_fitting_prefix(figure):
    text = "a sheep stands on a meadow"
    for length in (1, 5, 20):
        width = text_size(figure, text[:length], 9)[0]
        assert text_size(figure, text[: fitting_length(figure, text, 9, width)], 9)[0] == width
    assert fitting_length(figure, text, 9, 1e4) == len(text)
    assert fitting_length(figure, text, 9, 0) == 1


def test_long_text_is_elided(figure):
    text = "a sheep, which stands on a meadow"
    max_width = text_size(figure, "a sheep, which", 9)[0]
    assert elide(figure, text, 9, 1e4) == text
    assert elide(figure, "", 9, 0) == ""
    assert elide(figure, text, 9, max_width).endswith("…")
    assert text_size(figure, elide(figure, text, 9, max_width), 9)[0] <= max_width
    comma = text_size(figure, "a sheep, …", 9)[0]
    assert elide(figure, text, 9, comma) == "a sheep…"
