"""Figures for notebooks, and sizes."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from florence_lab.visualization import NotebookFigure
from florence_lab.visualization.figures import (
    MAX_PNG_BYTES,
    axes_extent,
    display_size,
    figure_fraction,
    label_font_size,
    pixel_aspect,
)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 48), (640, 480)),
        ((1, 1), (640, 640)),
        ((800, 600), (800, 600)),
        ((3000, 400), (1000, 133)),
        ((300, 4000), (75, 1000)),
        ((20000, 10), (1000, 64)),
        ((10, 20000), (64, 1000)),
    ],
)
def test_images_are_displayed_at_a_readable_size(size, expected):
    assert display_size(size) == expected


def test_only_thin_images_are_stretched():
    assert pixel_aspect((800, 600)) == 1
    assert pixel_aspect((3000, 400)) == pytest.approx(1, rel=0.01)
    assert pixel_aspect((20000, 10)) == pytest.approx(64 / 10 * 20)


def test_a_notebook_figure_renders_itself():
    figure = NotebookFigure(2, 1)
    image = Image.open(io.BytesIO(figure.to_png()))
    assert (image.size, image.mode, image.format) == ((200, 100), "RGB", "PNG")
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert figure._repr_png_() == figure.to_png()


def test_a_large_png_is_reduced_to_256_colors():
    figure = NotebookFigure(8, 6)
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    figure.figimage(noise)
    png = figure.to_png()
    assert len(png) < MAX_PNG_BYTES
    assert Image.open(io.BytesIO(png)).mode == "P"


def test_the_extent_of_axes_includes_their_aspect():
    ax = Figure(figsize=(4, 2), dpi=50).add_axes((0, 0, 1, 1), aspect=1)
    assert axes_extent(ax).tolist() == [50, 0, 150, 100]


def test_inches_as_fractions_of_the_figure():
    assert figure_fraction(Figure(figsize=(4, 2)), (1, 1, 2, 0.5)) == (0.25, 0.5, 0.5, 0.25)


def test_labels_are_smaller_in_small_axes_and_for_many_labels():
    large, small = (Figure(figsize=(size, size)).add_axes((0, 0, 1, 1)) for size in (8, 1))
    assert label_font_size(large, 1) == label_font_size(large, 14) == 10
    assert label_font_size(small, 1) == 6.5
    assert label_font_size(small, 1000) == 5.5
    assert 5.5 < label_font_size(large, 28) == pytest.approx(10 * 0.5**0.3)
