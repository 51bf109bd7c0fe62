"""Text under the image."""

import numpy as np
import pytest
from drawing import SIZE, blank, captions, draw, example, labels, largest_overlap, parse, words
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from florence_lab.visualization import show
from florence_lab.visualization.captions import MAX_CAPTION_LINES, caption_height, caption_text
from florence_lab.visualization.overlay import fit_figure
from florence_lab.visualization.style import DARK, LIGHT, printable

pytestmark = pytest.mark.filterwarnings("error")

GROUNDING = "<CAPTION_TO_PHRASE_GROUNDING>"


def test_only_texts_and_grounded_captions_are_written_under_the_image():
    assert caption_text(example("<CAPTION>")) == "A sheep."
    assert caption_text(example(GROUNDING)) == example(GROUNDING).phrase
    for task in ("<OD>", "<OPEN_VOCABULARY_DETECTION>", "<REGION_TO_SEGMENTATION>"):
        assert caption_text(example(task)) == ""


def test_grounded_phrases_have_the_color_of_their_boxes():
    ax = draw(example(GROUNDING))
    assert words(captions(ax)).replace(" ", "") == example(GROUNDING).phrase.replace(" ", "")
    colored = {t.get_text(): to_hex(t.get_bbox_patch().get_facecolor()) for t in captions(ax) if t.get_bbox_patch()}
    of_labels = {text.get_text(): to_hex(text.get_bbox_patch().get_facecolor()) for text in labels(ax)}
    assert colored == of_labels  # the "sheep" in "The white sheep" does not get the color of "sheep"
    assert len(set(colored.values())) == 3


@pytest.mark.parametrize("dpi", [40, 100])
def test_runs_do_not_overlap_at_another_resolution(dpi):
    ax = draw(example(GROUNDING))
    ax.figure.set_dpi(dpi)
    ax.figure.canvas.draw()
    extents = [text.get_window_extent().extents for text in captions(ax)]
    assert len(extents) > 3
    assert largest_overlap(extents) == 0


@pytest.mark.parametrize(
    ("size", "text"),
    [(SIZE, "word " * 150), ((64, 48), "一只猫" * 60), ((3000, 300), "word " * 150), ((100, 2000), "x" * 400)],
)
def test_long_text_is_wrapped_within_the_figure(size, text):
    figure = Figure(dpi=100)
    FigureCanvasAgg(figure)
    result = parse(text, "<MORE_DETAILED_CAPTION>", size)
    ax = show(blank(size), result, fit_figure(figure, result))
    extents = np.array([text.get_window_extent().extents for text in ax.texts])
    assert len(extents) > 1
    assert (extents[:, :2] >= 0).all()
    assert (extents[:, 2:] <= figure.bbox.size).all()
    assert largest_overlap(extents) == 0
    assert words(ax.texts).replace(" ", "") == printable(text).replace(" ", "")


def test_very_long_text_is_elided():
    figure = Figure(dpi=100)
    FigureCanvasAgg(figure)
    result = parse("word " * 5000, "<CAPTION>")
    ax = show(blank(), result, fit_figure(figure, result))
    assert len(ax.texts) == MAX_CAPTION_LINES
    assert words(ax.texts).endswith("…")


def test_low_axes_keep_40_percent_of_their_height_for_the_image():
    ax = draw(parse("word " * 5000, "<CAPTION>"))
    assert words(captions(ax)).endswith("…")
    assert ax.get_window_extent().height >= 0.39 * ax.figure.bbox.height


def test_the_height_of_a_caption_is_whole_pixels():
    figure = Figure(dpi=100)
    FigureCanvasAgg(figure)
    heights = [caption_height(figure, parse("word " * n, "<CAPTION>"), 4) for n in (1, 30, 60)]
    np.testing.assert_allclose(np.array(heights) * 100, np.round(np.array(heights) * 100))
    assert 0 < heights[0] < heights[1] < heights[2]
    assert caption_height(figure, example("<OD>"), 4) == 0


@pytest.mark.parametrize(("background", "color"), [("white", DARK), ("#111111", LIGHT)])
def test_a_caption_contrasts_with_the_figure(background, color):
    ax = draw(parse("x", "<CAPTION>"), facecolor=background)
    assert ax.texts[0].get_color() == color
