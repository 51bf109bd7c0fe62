import dataclasses
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon as PolygonPatch
from PIL import Image

from florence_lab.results import Result
from florence_lab.tasks import TASKS
from florence_lab.template.locations import format_location_tokens
from florence_lab.template.template import FlorenceTemplate
from florence_lab.visualization.gallery import gallery
from florence_lab.visualization.overlay import _only_axes, show, to_png
from florence_lab.visualization.style import DARK, LIGHT, PALETTE

pytestmark = pytest.mark.filterwarnings("error")
matplotlib.use("Agg")

SIZE = (400, 300)
CAPTION = "The white sheep looks at a tree, and at another sheep."
REGION = format_location_tokens((40, 30, 200, 150), SIZE)
CIRCLE = np.stack([100 + 60 * np.cos(np.linspace(0, 6, 20)), 150 + 60 * np.sin(np.linspace(0, 6, 20))], axis=1)


def named(label, *places, size=SIZE):
    return label + "".join(format_location_tokens(np.ravel(place), size) for place in places)


def parsed(raw, task="<OD>", size=SIZE, phrase="", scores=None) -> Result:
    result = FlorenceTemplate().parse_text(raw, task, size, phrase=phrase)
    return result if scores is None else dataclasses.replace(result, scores=np.array(scores, float))


BOXES = named("sheep", (20, 60, 120, 160), (200, 60, 300, 160)) + named("tree", (150, 180, 250, 290))
QUAD = ((50, 50), (150, 20), (160, 50), (60, 80))
SHAPE = format_location_tokens(CIRCLE.ravel(), SIZE)
RAW = {  # what a model may answer to each task, and the phrase or region in the question
    "<CAPTION>": ("A sheep.", ""),
    "<DETAILED_CAPTION>": ("A sheep on a meadow.", ""),
    "<MORE_DETAILED_CAPTION>": ("A sheep stands on a meadow and looks at a tree. " * 9, ""),
    "<OD>": (BOXES, ""),
    "<DENSE_REGION_CAPTION>": (named("a sheep that looks at a tree " * 4, (20, 60, 120, 160)), ""),
    "<REGION_PROPOSAL>": (named("", (20, 60, 120, 160), (200, 60, 300, 160)), ""),
    "<OCR>": ("OPEN $5 to $9", ""),
    "<OCR_WITH_REGION>": (named("OPEN $5 to $9", QUAD), ""),
    "<CAPTION_TO_PHRASE_GROUNDING>": (
        named("The white sheep", (20, 60, 120, 160)) + named("a tree", (150, 180, 250, 290)),
        CAPTION,
    ),
    "<REFERRING_EXPRESSION_SEGMENTATION>": (SHAPE, "a sheep"),
    "<OPEN_VOCABULARY_DETECTION>": (f"sheep<poly>{SHAPE}</poly>" + named("sheep", (200, 60, 300, 160)), "sheep"),
    "<REGION_TO_SEGMENTATION>": (SHAPE, REGION),
    "<REGION_TO_CATEGORY>": ("sheep" + REGION, REGION),
    "<REGION_TO_DESCRIPTION>": ("a white sheep" + REGION, REGION),
    "<REGION_TO_OCR>": ("OPEN" + REGION, REGION),
    "": ("two", "How many sheep are there?"),
}


def canvas(size=SIZE, colour="seagreen"):
    return Image.new("RGB", size, colour)


def shown(result, **figure):
    """An Axes with the result, drawn once, so that everything has its place."""
    figure = Figure(**{"figsize": (6, 4.5), "dpi": 100} | figure)
    FigureCanvasAgg(figure)
    ax = show(canvas(result.image_size), result, figure.add_axes((0, 0, 1, 1)))
    figure.canvas.draw()
    return ax


def is_below(ax, text):
    return text.get_window_extent().y1 <= ax.get_window_extent().y0


def labels(ax):
    return [text for text in ax.texts if not is_below(ax, text)]


def caption_words(ax):
    return " ".join(text.get_text() for text in ax.texts if is_below(ax, text))


def chip_extents(ax):
    return np.array([text.get_bbox_patch().get_window_extent().extents for text in labels(ax)])


def shared_areas(boxes):
    sides = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    return np.triu(np.maximum(sides, 0).prod(axis=-1), 1)


def edges(ax):
    """Colour and line style of each outline, with its corners."""
    patches = [p for p in ax.patches if isinstance(p, PolygonPatch) and not p.get_fill()]
    return [((to_hex(p.get_edgecolor()), str(p.get_linestyle())), p.get_xy()[:-1]) for p in patches]


def png_size(png):
    return Image.open(io.BytesIO(png)).size


def crowd(count=60, size=(1000, 800)):
    rng = np.random.default_rng(0)
    corner = rng.uniform((0, 0), (900, 700), (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(25, 95, (count, 2))], axis=1)
    names = ("galaxy", "star", "cluster of stars")
    raw = "".join(named(names[i % 3], box, size=size) for i, box in enumerate(boxes))
    return parsed(raw, size=size, scores=rng.uniform(0.3, 1, count))


# ---------------------------------------------------------------------- every kind


def test_raw_covers_every_task():
    assert set(RAW) == {*TASKS, ""}


@pytest.mark.parametrize("task", RAW)
def test_every_task_changes_the_picture(task):
    raw, phrase = RAW[task]
    result = parsed(raw, task, phrase=phrase)
    drawn = Image.open(io.BytesIO(to_png(canvas(), result))).convert("RGB")
    others = np.any(np.asarray(drawn) != canvas().getpixel((0, 0)), axis=-1)
    assert others.sum() > 200
    assert show(canvas(), result, Figure().add_subplot()).images[0].get_extent() == [0, 400, 300, 0]


@pytest.mark.parametrize("task", ["<CAPTION>", "<OCR>", "<REGION_TO_DESCRIPTION>", ""])
def test_text_stands_under_the_picture(task):
    raw, phrase = RAW[task]
    result = parsed(raw, task, phrase=phrase)
    ax = shown(result)
    assert caption_words(ax) == result.text
    assert labels(ax) == []


def test_region_is_drawn_for_region_tasks():
    for task in ("<REGION_TO_CATEGORY>", "<REGION_TO_SEGMENTATION>"):
        raw, phrase = RAW[task]
        (_, corners), *_ = edges(shown(parsed(raw, task, phrase=phrase)))
        assert np.abs(corners - [(40, 30), (200, 30), (200, 150), (40, 150)]).max() <= 0.5 * 400 / 1000 + 1e-9


def test_unknown_kind_of_result():
    with pytest.raises(TypeError, match=r"Quads.*got Result"):
        show(canvas(), Result(raw="", image_size=SIZE))


# ---------------------------------------------------------------------- geometry


def test_boxes_are_drawn_where_they_are():
    result = parsed(BOXES)
    drawn = {tuple(corners.ravel()) for _, corners in edges(shown(result))}
    assert drawn == {(x0, y0, x1, y0, x1, y1, x0, y1) for x0, y0, x1, y1 in result.boxes.tolist()}


def test_quads_and_their_first_edge():
    result = parsed(named("OPEN", QUAD), "<OCR_WITH_REGION>")
    ax = shown(result)
    assert np.array_equal(edges(ax)[0][1], result.quads[0])
    (first,) = [line for line in ax.lines if isinstance(line, Line2D)]
    assert np.array_equal(first.get_xydata(), result.quads[0, :2])
    assert first.get_linewidth() > ax.patches[0].get_linewidth()


def test_polygons_are_filled_and_all_their_pieces_drawn():
    raw = "sheep" + SHAPE + "<sep>" + format_location_tokens((300, 200, 350, 200, 350, 280), SIZE)
    result = parsed(raw, "<REFERRING_EXPRESSION_SEGMENTATION>", phrase="sheep")
    ax = shown(result)
    faces = [patch for patch in ax.patches if patch.get_fill()]
    for drawn in (faces, [patch for patch in ax.patches if not patch.get_fill()]):
        assert all(np.array_equal(d.get_xy()[:-1], p) for d, p in zip(drawn, result.polygons[0], strict=True))
    assert all(0 < face.get_facecolor()[3] < 0.6 for face in faces)
    assert [text.get_text() for text in labels(ax)] == ["sheep"]


def test_open_vocabulary_detection_fills_outlines_but_not_boxes():
    raw, phrase = RAW["<OPEN_VOCABULARY_DETECTION>"]
    result = parsed(raw, "<OPEN_VOCABULARY_DETECTION>", phrase=phrase)
    assert sum(patch.get_fill() for patch in shown(result).patches) == 1


def test_pixel_corner_is_the_origin():
    image = canvas((10, 10), "black")
    image.putpixel((3, 4), (255, 255, 255))
    drawn = np.asarray(Image.open(io.BytesIO(to_png(image, parsed("x", "<CAPTION>", (10, 10))))))
    rows, columns = np.nonzero(drawn[:640, :640, 0] > 127)
    assert (rows.min(), rows.max() + 1) == pytest.approx((4 * 64, 5 * 64), abs=1)
    assert (columns.min(), columns.max() + 1) == pytest.approx((3 * 64, 4 * 64), abs=1)


def test_picture_fills_the_png():
    for size in ((640, 427), (613, 411), (3000, 400), (99, 1000)):
        drawn = np.asarray(Image.open(io.BytesIO(to_png(canvas(size, "black"), parsed("", size=size)))))
        assert all(edge.max() < 30 for edge in (drawn[-1], drawn[:, -1], drawn[30:, 0]))


# ---------------------------------------------------------------------- labels


def test_score_stands_in_the_label_only_where_known():
    without, with_scores = (parsed(BOXES, scores=scores) for scores in (None, (0.934, 0.5, 1)))
    assert sorted(t.get_text() for t in labels(shown(without))) == ["sheep", "sheep", "tree"]
    assert sorted(t.get_text() for t in labels(shown(with_scores))) == ["sheep 0.50", "sheep 0.93", "tree 1.00"]


EDGY = named("a", (0, 0, 60, 40), (340, 0, 400, 40), (0, 260, 60, 300), (340, 260, 400, 300), (0, 0, 400, 300))
STACK = "".join(named(f"cat {i}", (100 + 3 * i, 80 + 3 * i, 300 + 3 * i, 220 + 3 * i)) for i in range(10))


@pytest.mark.parametrize("figsize", [(6, 4.5), (2.5, 2)])
@pytest.mark.parametrize("raw", [BOXES, EDGY, STACK, named("a very long label " * 9, (350, 100, 399, 200))])
def test_labels_are_inside_the_frame_and_apart(raw, figsize):
    result = parsed(raw)
    ax = shown(dataclasses.replace(result, scores=np.full(len(result), 0.5)), figsize=figsize)
    x0, y0, x1, y1 = ax.get_window_extent().extents
    chips = chip_extents(ax)
    assert len(chips) == len(result)
    assert (chips[:, :2] >= (x0 - 1, y0 - 1)).all()
    assert (chips[:, 2:] <= (x1 + 1, y1 + 1)).all()
    assert shared_areas(chips).max() < 1


@pytest.mark.parametrize("dpi", [50, 220])
def test_labels_stay_inside_at_another_resolution(dpi):
    ax = shown(parsed(EDGY))
    ax.figure.set_dpi(dpi)
    ax.figure.canvas.draw()
    x0, y0, x1, y1 = ax.get_window_extent().extents
    chips, slack = chip_extents(ax), 0.03 * dpi
    assert (chips >= np.array([x0, y0, x0, y0]) - slack).all()
    assert (chips <= np.array([x1, y1, x1, y1]) + slack).all()


def test_crowd_has_all_its_labels_apart_and_smaller():
    result = crowd()
    ax = shown(result, figsize=(10, 8))
    assert len(labels(ax)) == 60
    assert shared_areas(chip_extents(ax)).max() < 1
    few = shown(parsed(BOXES), figsize=(10, 8))
    assert 5 <= labels(ax)[0].get_fontsize() < labels(few)[0].get_fontsize()


def test_label_is_near_its_own_box():
    result = parsed(named("one", (40, 40, 100, 100)) + named("two", (300, 200, 360, 260)))
    ax = shown(result)
    for text in labels(ax):
        corner = result.boxes[result.labels.index(text.get_text()), :2]
        chip = ax.transData.inverted().transform(text.get_bbox_patch().get_window_extent().get_points())
        assert np.abs(chip.mean(axis=0) - corner).max() < 40


def test_long_labels_are_elided_but_keep_their_score():
    (text,) = labels(shown(parsed(named("word " * 60, (100, 100, 200, 200)), scores=[0.25])))
    assert text.get_text().startswith("word word")
    assert text.get_text().endswith("… 0.25")


def test_points_do_not_depend_on_the_image():
    """A label is as large on the same picture in four times the resolution."""
    small, large = (parsed(named("a", (0.2 * w, 0.2 * h, 0.5 * w, 0.5 * h), size=(w, h)), size=(w, h)) for w, h in
                    ((400, 300), (1600, 1200)))  # fmt: skip
    a, b = chip_extents(shown(small)), chip_extents(shown(large))
    assert np.abs(a - b).max() < 1


def test_labels_are_text_not_mathematics_and_any_script():
    for label in ("$5 and $6", r"$\frac{$", "猫 кошка قطة हिन्दी 🐈", "\ud800\x07", "a\nb"):
        ax = shown(dataclasses.replace(parsed(named("x", (50, 50, 200, 200))), labels=(label,)))
        assert len(labels(ax)) == 1
        to_png(canvas(), parsed(label, "<CAPTION>"))
    assert labels(shown(parsed(named("$5 and $6", (50, 50, 200, 200)))))[0].get_text() == "$5 and $6"


# ---------------------------------------------------------------------- colours


def test_one_colour_for_each_label():
    ax = shown(parsed(BOXES))
    result = parsed(BOXES)
    by_box = {tuple(corners[0]): trait for trait, corners in edges(ax)}
    sheep, other_sheep, tree = (by_box[tuple(box[:2])] for box in result.boxes.tolist())
    assert sheep == other_sheep != tree
    for text in labels(ax):
        trait = tree if text.get_text() == "tree" else sheep
        assert to_hex(text.get_bbox_patch().get_facecolor()) == trait[0]


def test_more_labels_than_colours_differ_in_line_style():
    raw = "".join(named(f"thing {i}", (10 + 12 * i, 20, 20 + 12 * i, 200)) for i in range(28))
    assert len({trait for trait, _ in edges(shown(parsed(raw)))}) == 28


def test_boxes_without_labels_differ():
    traits = {trait for trait, _ in edges(shown(parsed(RAW["<REGION_PROPOSAL>"][0], "<REGION_PROPOSAL>")))}
    assert len(traits) == 2


# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009),
# severity 1.0, on linear RGB
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def linear(rgb):
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(linear_rgb):
    """Linear sRGB -> CIE L*a*b* under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.clip(linear_rgb, 0, 1) @ to_xyz.T / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("kind", BLINDNESS)
def test_palette_is_told_apart_by_colour_blind_people(kind):
    colours = lab(linear(np.array([to_rgb(c) for c in PALETTE])) @ np.transpose(BLINDNESS[kind]))
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert np.diag(distances, 1).min() > 30  # neighbours; 2.3 is a just noticeable difference
    assert distances[np.triu_indices(len(colours), 1)].min() > 15


def test_text_contrasts_with_its_ground():
    def luminance(colour):
        return linear(np.array(to_rgb(colour))) @ (0.2126, 0.7152, 0.0722)

    raw = "".join(named(f"thing {i}", (10 + 50 * i, 100, 50 + 50 * i, 200)) for i in range(7))
    for text in labels(shown(parsed(raw))):
        pair = sorted([luminance(text.get_color()), luminance(text.get_bbox_patch().get_facecolor()[:3])])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5  # WCAG 2, level AA


@pytest.mark.parametrize("ground", ["white", "black", "#808080", *PALETTE])
def test_boxes_stand_out_from_any_ground(ground):
    result = parsed("".join(named(f"thing {i}", (10 + 50 * i, 50, 45 + 50 * i, 250)) for i in range(7)))
    drawn = np.asarray(Image.open(io.BytesIO(to_png(canvas(colour=ground), result))).convert("RGB")) / 255
    for i, colour in enumerate(PALETTE):
        middle = round((45 + 50 * i) * 640 / 400)
        across = lab(linear(drawn[240, middle - 15 : middle + 4]))  # over the right edge of the box
        assert np.linalg.norm(across - across[0], axis=1).max() > 25, colour


# ---------------------------------------------------------------------- the caption


def test_phrases_of_a_grounding_have_the_colour_of_their_boxes():
    raw = (
        named("The white sheep", (20, 60, 120, 160))
        + named("sheep", (200, 60, 300, 160))
        + named("a tree", (9, 9, 90, 50))
    )
    ax = shown(parsed(raw, "<CAPTION_TO_PHRASE_GROUNDING>", phrase=CAPTION))
    words = [text for text in ax.texts if is_below(ax, text)]
    assert "".join(t.get_text() for t in words).replace(" ", "") == CAPTION.replace(" ", "")
    coloured = {t.get_text(): to_hex(t.get_bbox_patch().get_facecolor()) for t in words if t.get_bbox_patch()}
    assert coloured == {
        text.get_text(): to_hex(text.get_bbox_patch().get_facecolor()) for text in labels(ax)
    }  # three phrases, and the "sheep" in "The white sheep" is no phrase of its own
    assert len(set(coloured.values())) == 3


@pytest.mark.parametrize("dpi", [60, 100, 230])
def test_runs_of_a_caption_follow_each_other(dpi):
    ax = shown(parsed(*RAW["<CAPTION_TO_PHRASE_GROUNDING>"][:1], "<CAPTION_TO_PHRASE_GROUNDING>", phrase=CAPTION))
    ax.figure.set_dpi(dpi)
    ax.figure.canvas.draw()
    extents = np.array([t.get_window_extent().extents for t in ax.texts if is_below(ax, t)])
    assert len(extents) > 3
    assert shared_areas(extents).max() == 0


@pytest.mark.parametrize("size", [SIZE, (64, 48), (3000, 300), (100, 2000)])
@pytest.mark.parametrize("text", ["word " * 150, "一只猫" * 60, "x" * 400])
def test_long_text_is_wrapped_within_the_figure(size, text):
    figure = Figure(dpi=100)
    FigureCanvasAgg(figure)
    result = parsed(text, "<MORE_DETAILED_CAPTION>", size)
    ax = show(canvas(size), result, _only_axes(figure, result))
    figure.canvas.draw()
    extents = np.array([t.get_window_extent().extents for t in ax.texts])
    assert len(extents) > 1
    assert (extents[:, :2] >= 0).all()
    assert (extents[:, 2:] <= figure.bbox.size).all()
    assert shared_areas(extents).max() == 0
    assert len(caption_words(ax).replace(" ", "")) == len(text.replace(" ", ""))  # and all of it is there


def test_endless_text_is_elided():
    size = png_size(to_png(canvas(), parsed("word " * 5000, "<CAPTION>")))
    assert size[1] < 480 + 30 * 25
    ax = shown(parsed("word " * 5000, "<CAPTION>"))
    assert caption_words(ax).endswith("…")
    assert ax.get_window_extent().height >= 0.35 * 450  # the picture keeps its part of somebody's Axes


def test_caption_can_be_read_on_a_dark_figure():
    ink = {shown(parsed("x", "<CAPTION>"), facecolor=colour).texts[0].get_color() for colour in ("white", "#111111")}
    assert ink == {DARK, LIGHT}


# ---------------------------------------------------------------------- nothing


@pytest.mark.parametrize("task", [task for task in RAW if task])
def test_empty_results_say_so(task):
    result = parsed("", task, phrase=RAW[task][1])
    ax = shown(result)
    assert [t.get_text() for t in labels(ax)] == ["nothing found"]
    assert png_size(to_png(canvas(), result))[0] == 640


def test_note_is_inside_the_frame():
    ax = shown(parsed(""))
    ((x0, y0, x1, y1),) = chip_extents(ax)
    left, bottom, right, top = ax.get_window_extent().extents
    assert left <= x0 < x1 <= right
    assert bottom <= y0 < y1 <= top


# ---------------------------------------------------------------------- figures and files


@pytest.mark.parametrize("size", [(64, 48), (1, 1), (640, 480), (3000, 400), (300, 4000), (20000, 10), (10, 20000)])
def test_png_is_of_a_readable_size(size):
    long, short = sorted(png_size(to_png(canvas(size), parsed("", size=size))), reverse=True)
    assert 640 <= long <= 1000
    assert short >= 64


def test_huge_photograph_gives_no_huge_png():
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((8000, 6000), Image.Resampling.NEAREST)
    result = parsed(named("noise", (1000, 1000, 6000, 5000), size=image.size), size=image.size)
    png = to_png(image, result)
    assert png_size(png) == (1000, 750)
    assert len(png) < 1_000_000


def test_picture_of_another_size_lies_under_the_results_coordinates():
    ax = show(canvas((40, 30)), parsed(BOXES), Figure().add_subplot())
    assert ax.images[0].get_extent() == [0, 400, 300, 0]
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 400), (300, 0))


def test_to_png_uses_no_pyplot():
    code = (
        "import sys; from PIL import Image; from florence_lab import draw; from florence_lab.results import Text;"
        "draw.to_png(Image.new('RGB', (64, 48)), Text(raw='x', text='x', image_size=(64, 48), task='<CAPTION>'));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_figures_of_pyplot():
    from matplotlib import pyplot

    pyplot.switch_backend("agg")  # whatever was chosen by what ran before
    pyplot.close("all")
    to_png(canvas(), parsed(BOXES))
    gallery([(canvas(), parsed(BOXES))])
    show(canvas(), parsed(BOXES), Figure().add_subplot())
    assert pyplot.get_fignums() == []
    ax = show(canvas(), parsed(BOXES))
    assert pyplot.get_fignums() == [ax.figure.number]
    assert pyplot.gca() is ax
    pyplot.close("all")


def test_show_leaves_its_neighbours_alone():
    figure = Figure(figsize=(8, 4))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    before = right.get_position().extents, figure.get_size_inches()
    cell = left.get_position(original=True)
    assert show(canvas(), parsed("A sheep. " * 40, "<CAPTION>"), left) is left
    figure.canvas.draw()
    assert len(figure.axes) == 2
    assert np.array_equal(right.get_position().extents, before[0])
    assert np.array_equal(figure.get_size_inches(), before[1])
    lowest = min(text.get_window_extent().y0 for text in left.texts) / figure.bbox.height
    assert lowest >= cell.y0  # the text took its room from the Axes itself


def test_a_layout_engine_makes_the_room():
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1)
    show(canvas(), parsed("A sheep. " * 40, "<CAPTION>"), upper)
    show(canvas(), parsed(BOXES), lower)
    figure.canvas.draw()
    assert min(t.get_window_extent().y0 for t in upper.texts) >= lower.get_window_extent().y1


def test_same_png_from_many_threads():
    result = parsed(BOXES, scores=(0.9, 0.8, 0.7))
    expected = to_png(canvas(), result)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: to_png(canvas(), result), range(8))) == {expected}


def test_users_style_does_not_break_the_picture():
    plain = to_png(canvas(), parsed(BOXES))
    with matplotlib.rc_context(
        {"axes.grid": True, "text.usetex": True, "figure.facecolor": "red", "font.family": "serif"}
    ):
        assert to_png(canvas(), parsed(BOXES)) == plain


def test_image_from_a_path(tmp_path):
    canvas().save(tmp_path / "meadow.png")
    assert to_png(tmp_path / "meadow.png", parsed(BOXES)) == to_png(canvas(), parsed(BOXES))


def test_result_shows_itself_in_a_notebook():
    result = dataclasses.replace(parsed(BOXES), image=canvas())
    assert result._repr_png_() == to_png(canvas(), result)


def test_gallery_has_a_titled_panel_for_each_task():
    panels = [(canvas(), parsed(raw, task, phrase=phrase)) for task, (raw, phrase) in RAW.items()]
    figure = gallery(panels, columns=3)
    figure.canvas.draw()
    titles = [text.get_text() for text in figure.texts]
    assert [title for title in titles if title.startswith("<")] == list(TASKS)
    assert "a sheep" in titles
    assert "How many sheep are there?" in titles
    assert any(title.startswith("region (40, 30, 200, 150)") for title in titles)
    assert len(figure.axes) == len(RAW)

    written = [t.get_window_extent().extents for t in (*figure.texts, *(t for ax in figure.axes for t in ax.texts))]
    assert (np.array(written)[:, :2] >= 0).all()
    assert (np.array(written)[:, 2:] <= figure.bbox.size).all()
    cells = np.array(
        [ax.get_window_extent().extents for ax in figure.axes] + [t.get_window_extent().extents for t in figure.texts]
    )
    assert shared_areas(cells).max() == 0


def test_gallery_of_few_and_of_none():
    assert len(gallery([(canvas(), parsed(BOXES))], columns=3).axes) == 1
    assert gallery([]).axes == []
