"""SVG and PDF files of the drawing."""

import base64
import io
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from drawing import BOXES, blank, example, parse
from PIL import Image

from florence_lab import ImageError
from florence_lab.visualization import gallery, to_pdf, to_png, to_svg

pytestmark = pytest.mark.filterwarnings("error")

_SVG = "{http://www.w3.org/2000/svg}"
TASKS = [
    "<CAPTION>",
    "<OD>",
    "<OCR_WITH_REGION>",
    "<REFERRING_EXPRESSION_SEGMENTATION>",
    "<CAPTION_TO_PHRASE_GROUNDING>",
]


def elements(svg, name):
    return list(ElementTree.fromstring(svg).iter(_SVG + name))


def texts(svg):
    return ["".join(element.itertext()) for element in elements(svg, "text")]


def pdf_streams(pdf):
    """Return the decompressed streams of a PDF file."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    return b"".join(zlib.decompress(stream) for stream in streams if stream[:1] == b"x")


@pytest.mark.parametrize("task", TASKS)
def test_svg_and_pdf_have_the_proportions_of_the_png(task):
    width, height = Image.open(io.BytesIO(to_png(blank(), example(task)))).size
    root = ElementTree.fromstring(to_svg(blank(), example(task)))
    assert np.array(root.get("viewBox").split()[2:], float) == pytest.approx([width * 0.72, height * 0.72], abs=1)
    box = re.search(rb"/MediaBox \[ ([\d. ]+) \]", to_pdf(blank(), example(task)))[1]
    assert np.array(box.split()[2:], float) == pytest.approx([width * 0.72, height * 0.72], abs=1)


def test_shapes_are_vectors_text_is_text_and_the_image_is_embedded():
    svg = to_svg(blank(), parse(BOXES))
    assert sorted(texts(svg)) == ["sheep", "sheep", "tree"]
    assert len(elements(svg, "image")) == 1
    assert len(elements(svg, "path")) >= 6  # three boxes, three backgrounds
    assert not elements(to_svg(None, parse(BOXES)), "image")


def test_the_text_of_a_pdf_can_be_selected():
    content = pdf_streams(to_pdf(blank(), parse(BOXES)))
    # kerning stands between the letters of a text
    runs = [re.findall(rb"\((.*?)\)", run) for run in re.findall(rb"\bBT\b(.*?)\bET\b", content, re.DOTALL)]
    assert sorted(b"".join(letters) for letters in runs) == [b"sheep", b"sheep", b"tree"]


def test_odd_labels_are_escaped():
    result = parse(BOXES).with_labels("<script> & $x_1$ \u7f8a")
    assert texts(to_svg(blank(), result))[0].startswith("<script> & $x_1$ ")


def test_a_large_image_is_embedded_at_the_resolution_of_print():
    (image,) = elements(to_svg(blank((4000, 3000)), parse("", size=(4000, 3000))), "image")
    content = base64.b64decode(image.get("{http://www.w3.org/1999/xlink}href").partition(",")[2])
    assert max(Image.open(io.BytesIO(content)).size) == pytest.approx(1500, abs=2)


def test_the_figure_of_a_gallery_can_be_written_too():
    figure = gallery([(blank(), parse(BOXES)), (blank(), example("<CAPTION>"))], titles=["first", "second"])
    before = figure.to_png()
    assert {"first", "second", "tree"} <= set(texts(figure.to_svg()))
    assert figure.to_pdf().startswith(b"%PDF")
    assert figure.to_png() == before  # its resolution is as before


def test_threads_and_the_settings_of_the_user_do_not_disturb_each_other():
    settings = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: sorted(texts(to_svg(blank(), parse(BOXES)))), range(6)))
    assert drawn == [["sheep", "sheep", "tree"]] * 6
    assert dict(matplotlib.rcParams) == settings


@pytest.mark.parametrize("write", [to_svg, to_pdf])
def test_what_cannot_be_drawn_is_refused(write):
    with pytest.raises(ImageError):
        write("missing.png", parse(BOXES))
    with pytest.raises(TypeError):
        write(blank(), "result")
