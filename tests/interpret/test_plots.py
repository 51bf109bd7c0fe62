"""Plots of a trace."""

import io
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from florence_lab.interpret import (
    plot_attention,
    show_attention,
    show_attention_heads,
    show_location_probabilities,
    show_top_tokens,
    trace,
)


def png_size(figure):
    return Image.open(io.BytesIO(figure._repr_png_())).size


def test_an_attention_map_covers_the_image(detection):
    figure = show_attention(detection, "box 1")
    (ax,) = figure.axes
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 320), (180, 0))
    assert [[*image.get_extent()] for image in ax.images] == [[0, 320, 180, 0]] * 2
    assert ax.images[1].get_array().shape == detection.token_grid
    width, height = png_size(figure)
    assert width > height


def test_attention_is_drawn_into_given_axes(detection):
    _, ax = plt.subplots()
    assert plot_attention(detection, "box 1", ax, layer=0) is ax
    share = detection.attention_map("box 1", layer=0).sum()
    assert ax.get_title() == f"box 1  {share:.0%}"
    assert len(ax.patches) == 2  # the box, with a contrasting outline
    plt.close("all")


def test_all_spans_are_shown_by_default(detection):
    titles = [ax.get_title() for ax in show_attention(detection).axes if ax.get_title()]
    assert [title.split("  ")[0] for title in titles] == [span.text for span in detection.spans]


def test_an_empty_answer_has_no_attention_to_show(nano, scene):
    traced = trace(nano, scene.image, "<OD>", max_new_tokens=1)
    assert traced.spans == ()
    with pytest.raises(ValueError, match="the answer is empty"):
        show_attention(traced)


def test_each_layer_and_head_has_a_panel(detection):
    layers, heads = detection.cross_attention.shape[:2]
    figure = show_attention_heads(detection, "box 1")
    assert len(figure.axes) == layers * heads
    assert figure.axes[-1].get_title().startswith(f"layer {layers - 1}, head {heads - 1}")


def test_candidates_of_some_tokens_are_shown(detection):
    (ax,) = show_top_tokens(detection, 1, 6).axes
    assert [label.get_text().split()[0] for label in ax.get_yticklabels()] == [t.strip() for t in detection.tokens[1:6]]
    assert len(ax.patches) == 15  # three candidates for each of five tokens
    with pytest.raises(ValueError, match=r"no token in 5000:6000; the answer has the tokens 0"):
        show_top_tokens(detection, 5000, 6000)


def test_location_probabilities_are_shown_along_the_sides(detection):
    above, _, _, beside = show_location_probabilities(detection, "box 1").axes
    assert (len(above.collections), len(beside.collections)) == (2, 2)  # two x, two y
    above, _, _, beside = show_location_probabilities(detection, detection.span("box 1").positions[1]).axes
    assert (len(above.collections), len(beside.collections)) == (0, 1)  # the second coordinate is a y


def test_a_word_has_no_location_probabilities(detection):
    word = detection.spans[0].text
    with pytest.raises(ValueError, match=f"'{word}' has no location tokens; shapes of this answer: 'box 1'"):
        show_location_probabilities(detection, word)


def test_a_result_without_its_image_is_drawn(detection):
    bare = replace(detection, result=replace(detection.result, image=None))
    for figure in (show_attention(bare, "box 1"), show_location_probabilities(bare, "box 1")):
        assert min(png_size(figure)) > 50
