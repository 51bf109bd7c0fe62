"""Drawing results over their image."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import matplotlib
import numpy as np
import pytest
from drawing import (
    BOXES,
    GENERATED,
    QUAD,
    SHAPE,
    SIZE,
    blank,
    captions,
    draw,
    example,
    label_extents,
    labels,
    located,
    outlines,
    parse,
    words,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from support import boxes

from florence_lab import ArgumentError, ImageError
from florence_lab.results import Text
from florence_lab.tasks import TASKS
from florence_lab.template.locations import format_location_tokens
from florence_lab.visualization import gallery, show, to_png

pytestmark = pytest.mark.filterwarnings("error")


def opened(png):
    return Image.open(io.BytesIO(png))


# ---------------------------------------------------------------------- every type of result


def test_the_examples_cover_every_task():
    assert set(GENERATED) == {*TASKS, ""}


@pytest.mark.parametrize("task", ["<CAPTION>", "<OD>", "<OCR_WITH_REGION>", "<REGION_TO_SEGMENTATION>"])
def test_each_type_of_result_is_rendered(task):
    drawn = np.asarray(opened(to_png(blank(), example(task))).convert("RGB"))
    assert np.any(drawn != blank().getpixel((0, 0)), axis=-1).sum() > 200


@pytest.mark.parametrize("task", ["<CAPTION>", "<OCR>", "<REGION_TO_DESCRIPTION>", ""])
def test_text_is_drawn_under_the_image(task):
    ax = draw(example(task))
    assert words(captions(ax)) == example(task).text
    assert labels(ax) == []


@pytest.mark.parametrize("task", ["<REGION_TO_CATEGORY>", "<REGION_TO_SEGMENTATION>"])
def test_the_region_in_the_prompt_is_drawn(task):
    (_, corners), *_ = outlines(draw(example(task)))
    np.testing.assert_allclose(corners, [(40, 30), (200, 30), (200, 150), (40, 150)], atol=0.2)


def test_a_result_of_another_type_is_refused():
    @dataclass(frozen=True, eq=False, kw_only=True)
    class Depth(Text):
        pass

    with pytest.raises(TypeError, match=r"type Depth; the types are Text, Boxes, Quads, Polygons$"):
        show(blank(), Depth(raw="", image_size=SIZE, text=""))


@pytest.mark.parametrize("task", ["<CAPTION>", "<OD>", "<OCR_WITH_REGION>", "<REFERRING_EXPRESSION_SEGMENTATION>"])
def test_an_empty_result_says_that_nothing_was_found(task):
    ax = draw(parse("", task, phrase=GENERATED[task][1]))
    assert words(labels(ax)) == "nothing found"
    ((x0, y0, x1, y1),) = label_extents(ax)
    left, bottom, right, top = ax.get_window_extent().extents
    assert left <= x0 < x1 <= right
    assert bottom <= y0 < y1 <= top


# ---------------------------------------------------------------------- coordinates


def test_boxes_are_drawn_at_their_coordinates():
    result = parse(BOXES)
    drawn = {tuple(corners.ravel()) for _, corners in outlines(draw(result))}
    assert drawn == {(x0, y0, x1, y0, x1, y1, x0, y1) for x0, y0, x1, y1 in result.boxes.tolist()}


def test_the_first_edge_of_a_quad_is_thick():
    result = parse(located("OPEN", QUAD), "<OCR_WITH_REGION>")
    ax = draw(result)
    np.testing.assert_array_equal(outlines(ax)[0][1], result.quads[0])
    (first,) = ax.lines
    np.testing.assert_array_equal(first.get_xydata(), result.quads[0, :2])
    assert first.get_linewidth() > ax.patches[0].get_linewidth()


def test_all_polygons_of_an_instance_are_filled_and_outlined():
    raw = SHAPE + "<sep>" + format_location_tokens((300, 200, 350, 200, 350, 280), SIZE)
    result = parse(raw, "<REFERRING_EXPRESSION_SEGMENTATION>", phrase="sheep")
    ax = draw(result)
    faces = [patch for patch in ax.patches if patch.get_fill()]
    edges = [patch for patch in ax.patches if not patch.get_fill()]
    for patches in (faces, edges):
        for patch, polygon in zip(patches, result.polygons[0], strict=True):
            np.testing.assert_array_equal(patch.get_xy()[:-1], polygon)
    assert [face.get_facecolor()[3] for face in faces] == [0.35, 0.35]
    assert words(labels(ax)) == "sheep"


def test_large_instances_are_drawn_below_small_ones():
    small, large = (50, 50, 60, 60), (10, 10, 300, 200)
    drawn = outlines(draw(parse(located("cat", small) + located("mat", large))))
    assert [corners[0, 0] > 40 for _, corners in drawn] == [False, True]


def test_a_pixel_covers_its_square_of_the_axes():
    image = blank((10, 10), "black")
    image.putpixel((3, 4), (255, 255, 255))
    drawn = np.asarray(opened(to_png(image, parse("x", "<CAPTION>", (10, 10)))))
    rows, columns = np.nonzero(drawn[:640, :640, 0] > 127)
    assert (rows.min(), rows.max() + 1) == pytest.approx((4 * 64, 5 * 64), abs=1)
    assert (columns.min(), columns.max() + 1) == pytest.approx((3 * 64, 4 * 64), abs=1)


@pytest.mark.parametrize("size", [(613, 411), (99, 1000)])
def test_the_image_fills_the_png(size):
    drawn = np.asarray(opened(to_png(blank(size, "black"), parse("", size=size))))
    assert all(edge.max() < 30 for edge in (drawn[-1], drawn[:, -1], drawn[30:, 0]))


def test_an_image_of_another_size_is_scaled_to_the_coordinates_of_the_result():
    ax = show(blank((40, 30)), parse(BOXES), Figure().add_subplot())
    assert ax.images[0].get_extent() == [0, 400, 300, 0]
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 400), (300, 0))
    assert not ax.axison


# ---------------------------------------------------------------------- files


def test_the_image_may_be_a_path(tmp_path):
    blank().save(tmp_path / "meadow.png")
    assert to_png(tmp_path / "meadow.png", parse(BOXES)) == to_png(blank(), parse(BOXES))


def test_the_png_of_a_large_image_is_small():
    noise = np.random.default_rng(0).integers(0, 256, (750, 1000, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((3000, 2250), Image.Resampling.NEAREST)
    png = to_png(image, parse(located("noise", (900, 900, 1200, 1200), size=image.size), size=image.size))
    assert opened(png).size == (1000, 750)
    assert len(png) < 1_000_000


def test_a_large_image_is_reduced_before_it_is_drawn():
    ax = show(blank((5000, 10)), parse("", size=(5000, 10)), Figure().add_subplot())
    assert ax.images[0].get_array().shape == (4, 2000, 3)


def test_threads_render_the_same_png():
    result = parse(BOXES, scores=(0.9, 0.8, 0.7))
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: to_png(blank(), result), range(5)))) == 1


def test_the_style_of_the_user_does_not_change_the_png():
    plain = to_png(blank(), parse(BOXES))
    settings = {"axes.grid": True, "text.usetex": True, "figure.facecolor": "red", "font.family": "serif"}
    with matplotlib.rc_context(settings):
        assert to_png(blank(), parse(BOXES)) == plain


# ---------------------------------------------------------------------- figures


def test_to_png_needs_neither_pyplot_nor_torch_nor_pandas():
    code = (
        "import sys; from PIL import Image; from florence_lab.results import Text; "
        "image = Image.new('RGB', (64, 48)); "
        "Text(raw='x', text='x', image_size=(64, 48), task='<CAPTION>', image=image)._repr_png_(); "
        "assert not {'matplotlib.pyplot', 'torch', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_show_without_axes_creates_a_figure_of_pyplot():
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    pyplot.close("all")
    gallery([(blank(), parse(BOXES))])
    show(blank(), parse(BOXES), Figure().add_subplot())
    assert pyplot.get_fignums() == []
    ax = show(blank(), parse(BOXES))
    assert pyplot.get_fignums() == [ax.figure.number]
    assert pyplot.gca() is ax
    pyplot.close("all")


def test_neighboring_axes_stay_where_they_are():
    figure = Figure(figsize=(8, 4), dpi=50)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    before = right.get_position().extents
    cell = left.get_position(original=True)
    assert show(blank(), parse("A sheep. " * 40, "<CAPTION>"), left) is left
    figure.canvas.draw()
    assert len(figure.axes) == 2
    np.testing.assert_array_equal(right.get_position().extents, before)
    lowest = min(text.get_window_extent().y0 for text in left.texts) / figure.bbox.height
    assert lowest >= cell.y0  # the text takes its space from the Axes


def test_a_layout_engine_makes_room_for_the_text():
    figure = Figure(figsize=(8, 6), dpi=50, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1)
    show(blank(), parse("A sheep. " * 40, "<CAPTION>"), upper)
    show(blank(), parse(BOXES), lower)
    figure.canvas.draw()
    assert min(text.get_window_extent().y0 for text in upper.texts) >= lower.get_window_extent().y1


def test_results_are_drawn_into_a_subfigure():
    figure = Figure(figsize=(8, 4), dpi=50)
    FigureCanvasAgg(figure)
    ax = show(blank(), example("<CAPTION>"), figure.subfigures(1, 2)[1].add_axes((0, 0, 1, 1)))
    figure.canvas.draw()
    assert words(captions(ax)) == "A sheep."
    assert captions(ax)[0].get_window_extent().x0 >= figure.bbox.width / 2


def rgba(png):
    return np.asarray(opened(png))


@pytest.mark.parametrize("size", [(200, 100), (33, 401), (1777, 1201), (3000, 9)])
def test_an_overlay_without_an_image_is_transparent_and_has_the_size_of_the_image(size):
    width, height = size
    result = boxes(("", 0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height), image_size=size)
    pixels = rgba(to_png(None, result))
    assert pixels.shape == (height, width, 4)
    assert pixels[0, 0, 3] == 0
    assert pixels[height // 2, width // 2, 3] == 0 or height < 20  # the inside of the box
    assert pixels[height // 2, round(0.2 * width) - 1 : round(0.2 * width) + 2, 3].max() > 200  # its left edge


def test_an_overlay_without_an_image_and_without_shapes_of_a_text_is_empty():
    result = Text(raw="a cat", text="a cat", image_size=(64, 48), task="<CAPTION>")
    assert not rgba(to_png(None, result))[..., 3].any()


def test_an_overlay_without_an_image_that_is_too_large_is_refused():
    with pytest.raises(ArgumentError, match="100000 x 100000"):
        to_png(None, boxes(image_size=(100_000, 100_000)))


def test_a_result_is_shown_without_its_image():
    ax = show(None, boxes(("a", 1, 1, 9, 9)), Figure().add_subplot())
    assert not ax.images
    assert ax.get_xlim() == (0, 100)


@pytest.mark.parametrize("image", [5, "missing.png", Image.new("RGB", (0, 0)), np.zeros((0, 0, 3), np.uint8)])
def test_an_image_that_cannot_be_read_is_refused_before_a_figure_is_made(image):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    with pytest.raises(ImageError):
        show(image, boxes())
    assert pyplot.get_fignums() == before
