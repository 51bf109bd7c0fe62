"""Results to draw, and what was drawn, for the tests of visualization."""

from dataclasses import replace

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from PIL import Image

from florence_lab.template.locations import format_location_tokens
from florence_lab.template.prompts import Prompt
from florence_lab.template.template import FlorenceTemplate
from florence_lab.visualization import show

SIZE = (400, 300)
QUAD = ((50, 50), (150, 20), (160, 50), (60, 80))
CIRCLE = np.stack([100 + 60 * np.cos(np.linspace(0, 6, 20)), 150 + 60 * np.sin(np.linspace(0, 6, 20))], axis=1)
CAPTION = "The white sheep looks at a tree, and at another sheep."
REGION = format_location_tokens((40, 30, 200, 150), SIZE)


def located(label, *places, size=SIZE):
    """Return a label with its locations (boxes, quads or polygons in pixels) in the answer grammar."""
    return label + "".join(format_location_tokens(np.ravel(place), size) for place in places)


def parse(raw, task="<OD>", size=SIZE, phrase="", scores=None):
    """Return the result of a generated text."""
    result = FlorenceTemplate().parse_text(raw, Prompt.from_task(task, phrase), size)
    return result if scores is None else replace(result, scores=np.array(scores, float))


BOXES = located("sheep", (20, 60, 120, 160), (200, 60, 300, 160)) + located("tree", (150, 180, 250, 290))
SHAPE = format_location_tokens(CIRCLE.ravel(), SIZE)
GENERATED = {
    "<CAPTION>": ("A sheep.", ""),
    "<DETAILED_CAPTION>": ("A sheep on a meadow.", ""),
    "<MORE_DETAILED_CAPTION>": ("A sheep stands on a meadow and looks at a tree. " * 9, ""),
    "<OD>": (BOXES, ""),
    "<DENSE_REGION_CAPTION>": (located("a sheep that looks at a tree " * 4, (20, 60, 120, 160)), ""),
    "<REGION_PROPOSAL>": (located("", (20, 60, 120, 160), (200, 60, 300, 160)), ""),
    "<OCR>": ("OPEN $5 to $9", ""),
    "<OCR_WITH_REGION>": (located("OPEN $5 to $9", QUAD), ""),
    "<CAPTION_TO_PHRASE_GROUNDING>": (
        located("The white sheep", (20, 60, 120, 160))
        + located("sheep", (200, 60, 300, 160))
        + located("a tree", (150, 180, 250, 290)),
        CAPTION,
    ),
    "<REFERRING_EXPRESSION_SEGMENTATION>": (SHAPE, "a sheep"),
    "<OPEN_VOCABULARY_DETECTION>": (f"sheep<poly>{SHAPE}</poly>" + located("sheep", (200, 60, 300, 160)), "sheep"),
    "<REGION_TO_SEGMENTATION>": (SHAPE, REGION),
    "<REGION_TO_CATEGORY>": ("sheep" + REGION, REGION),
    "<REGION_TO_DESCRIPTION>": ("a white sheep" + REGION, REGION),
    "<REGION_TO_OCR>": ("OPEN" + REGION, REGION),
    "": ("two", "How many sheep are there?"),
}
"""Task -> a generated text, and the phrase, region or question in the prompt."""


def example(task):
    """Return the result of the text in `GENERATED`."""
    raw, phrase = GENERATED[task]
    return parse(raw, task, phrase=phrase)


def blank(size=SIZE, color="seagreen"):
    """Return an image of one color."""
    return Image.new("RGB", size, color)


def draw(result, **settings):
    """Draw a result into Axes that fill a figure, render it once so that everything has its position, return the Axes."""
    figure = Figure(**{"figsize": (6, 4.5), "dpi": 50} | settings)
    FigureCanvasAgg(figure)
    ax = show(blank(result.image_size), result, figure.add_axes((0, 0, 1, 1)))
    figure.canvas.draw()
    return ax


def captions(ax):
    """Return the texts under the image."""
    return [text for text in ax.texts if text.get_window_extent().y1 <= ax.get_window_extent().y0]


def labels(ax):
    """Return the texts on the image."""
    below = captions(ax)
    return [text for text in ax.texts if text not in below]


def words(texts):
    """Return the texts joined by spaces."""
    return " ".join(text.get_text() for text in texts)


def label_extents(ax):
    """Return the N x 4 extents of the labels with their backgrounds, in pixels of the figure."""
    return np.array([text.get_bbox_patch().get_window_extent().extents for text in labels(ax)])


def largest_overlap(extents):
    """Return the largest area that two of N x 4 extents share."""
    extents = np.asarray(extents)
    sides = np.minimum(extents[:, None, 2:], extents[None, :, 2:]) - np.maximum(extents[:, None, :2], extents[:, :2])
    return np.triu(np.maximum(sides, 0).prod(axis=-1), 1).max()


def outlines(ax):
    """Return the ((color, line style), corners) of each outline."""
    patches = [p for p in ax.patches if isinstance(p, Polygon) and not p.get_fill()]
    return [((to_hex(p.get_edgecolor()), str(p.get_linestyle())), p.get_xy()[:-1]) for p in patches]
