"""Labels: their text and their positions."""

from dataclasses import replace

import numpy as np
import pytest
from drawing import BOXES, blank, draw, label_extents, labels, largest_overlap, located, outlines, parse
from matplotlib.colors import to_hex

from florence_lab.visualization import to_png

pytestmark = pytest.mark.filterwarnings("error")

CORNERS = located("a", (0, 0, 60, 40), (340, 0, 400, 40), (0, 260, 60, 300), (340, 260, 400, 300), (0, 0, 400, 300))
STACK = "".join(located(f"cat {i}", (100 + 3 * i, 80 + 3 * i, 300 + 3 * i, 220 + 3 * i)) for i in range(10))
LONG = located("a very long label " * 9, (350, 100, 399, 200))


def crowd(count=60, size=(1000, 800)):
    rng = np.random.default_rng(0)
    corner = rng.uniform((0, 0), (900, 700), (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(25, 95, (count, 2))], axis=1)
    names = ("galaxy", "star", "cluster of stars")
    raw = "".join(located(names[i % 3], box, size=size) for i, box in enumerate(boxes))
    return parse(raw, size=size, scores=rng.uniform(0.3, 1, count))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [(None, ["sheep", "sheep", "tree"]), ((0.934, 0.5, 1), ["sheep 0.50", "sheep 0.93", "tree 1.00"])],
)
def test_a_label_contains_the_score_if_it_is_known(scores, expected):
    assert sorted(text.get_text() for text in labels(draw(parse(BOXES, scores=scores)))) == expected


def test_a_label_has_the_color_of_its_outline():
    ax = draw(parse(BOXES))
    colors = {color for (color, _), _ in outlines(ax)}
    backgrounds = {text.get_text(): to_hex(text.get_bbox_patch().get_facecolor()) for text in labels(ax)}
    assert set(backgrounds.values()) == colors
    assert backgrounds["sheep"] != backgrounds["tree"]


@pytest.mark.parametrize("figsize", [(6, 4.5), (2.5, 2)], ids=["large", "small"])
@pytest.mark.parametrize("raw", [BOXES, CORNERS, STACK, LONG], ids=["boxes", "corners", "stack", "long"])
def test_labels_stay_within_the_axes_and_do_not_overlap(raw, figsize):
    result = parse(raw)
    ax = draw(replace(result, scores=np.full(len(result), 0.5)), figsize=figsize)
    x0, y0, x1, y1 = ax.get_window_extent().extents
    extents = label_extents(ax)
    assert len(extents) == len(result)
    assert (extents[:, :2] >= (x0 - 1, y0 - 1)).all()
    assert (extents[:, 2:] <= (x1 + 1, y1 + 1)).all()
    assert largest_overlap(extents) < 1


@pytest.mark.parametrize("dpi", [40, 110])
def test_labels_stay_within_the_axes_at_another_resolution(dpi):
    ax = draw(parse(CORNERS))
    ax.figure.set_dpi(dpi)
    ax.figure.canvas.draw()
    x0, y0, x1, y1 = ax.get_window_extent().extents
    tolerance = 0.03 * dpi
    assert (label_extents(ax) >= np.array([x0, y0, x0, y0]) - tolerance).all()
    assert (label_extents(ax) <= np.array([x1, y1, x1, y1]) + tolerance).all()


def test_sixty_labels_are_smaller_and_do_not_overlap():
    ax = draw(crowd(), figsize=(10, 8))
    assert len(labels(ax)) == 60
    assert largest_overlap(label_extents(ax)) < 1
    few = draw(parse(BOXES), figsize=(10, 8))
    assert 5 <= labels(ax)[0].get_fontsize() < labels(few)[0].get_fontsize()


def test_a_label_is_close_to_its_box():
    result = parse(located("one", (40, 40, 100, 100)) + located("two", (300, 200, 360, 260)))
    ax = draw(result)
    for text in labels(ax):
        ((x, y, _, _),) = result[result.labels == text.get_text()].boxes
        extent = ax.transData.inverted().transform(text.get_bbox_patch().get_window_extent().get_points())
        assert np.abs(extent.mean(axis=0) - (x, y)).max() < 40
        assert text.arrow_patch is None


def test_a_label_far_from_its_box_is_connected_with_it():
    same_box = "".join(located(f"cat {i}", (190, 140, 210, 160)) for i in range(16))
    ax = draw(parse(same_box))
    assert any(text.arrow_patch is not None for text in labels(ax))


def test_a_long_label_is_elided_and_keeps_its_score():
    (text,) = labels(draw(parse(located("word " * 60, (100, 100, 200, 200)), scores=[0.25])))
    assert text.get_text().startswith("word word")
    assert text.get_text().endswith("… 0.25")


def test_an_instance_without_label_and_score_gets_no_label():
    raw = located("", (20, 60, 120, 160))
    assert labels(draw(parse(raw, "<REGION_PROPOSAL>"))) == []
    (text,) = labels(draw(parse(raw, "<REGION_PROPOSAL>", scores=[0.5])))
    assert text.get_text() == "0.50"


def test_the_size_of_a_label_does_not_depend_on_the_resolution_of_the_image():
    extents = []
    for w, h in ((400, 300), (1600, 1200)):
        raw = located("a", (0.2 * w, 0.2 * h, 0.5 * w, 0.5 * h), size=(w, h))
        extents.append(label_extents(draw(parse(raw, size=(w, h)))))
    np.testing.assert_allclose(*extents, atol=1)


@pytest.mark.parametrize("label", ["$5 and $6", r"$\frac{$", "猫 кошка قطة हिन्दी 🐈", "\ufffd\x07", "a\nb"])
def test_any_text_can_be_a_label_and_a_caption(label):
    assert len(labels(draw(parse(located("x", (50, 50, 200, 200))).with_labels(label)))) == 1
    to_png(blank((64, 48)), parse(label, "<CAPTION>", (64, 48)))
