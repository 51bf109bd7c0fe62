"""`florence_lab.view` under a cell of a notebook."""

import base64
import io
import json
import re

import pytest
from explorer.browser.harness import NEEDS_BROWSER, TIMEOUT, notebook_in, playwright
from explorer.browser.user import Viewer
from PIL import Image

pytestmark = NEEDS_BROWSER

expect = playwright.expect
VIEW = """\
import florence_lab
from florence_lab.explorer.images import load_sample

result = florence_lab.load("florence-2-nano").predict(load_sample("sheep").image, "<OD>")
view = florence_lab.view(result)
view"""
MAX_NOTEBOOK = 400_000  # bytes: the fallback is a PNG of the sample, the interactive image is none of the file


@pytest.fixture(scope="module")
def notebook(jupyterlab, browser):
    with notebook_in(jupyterlab, browser, [VIEW, "view.threshold = 0.0"]) as notebook:
        notebook.run_cell(0)
        yield notebook


@pytest.fixture
def viewer(notebook):
    return Viewer(notebook.page.locator(".fl-viewer").first)


def test_hover_lights_an_instance(viewer):
    expect(viewer.list_items()).to_have_count(4, timeout=TIMEOUT * 1000)
    viewer.hover_instance(2)
    expect(viewer.drawn(2)).to_have_class(re.compile("fl-lit"))


def test_the_threshold_hides_instances_while_it_moves(viewer, notebook):
    scores = notebook.evaluate("[float(score) for score in result.scores]")
    threshold = round(sorted(scores)[2], 2)  # the slider has steps of 0.01
    count = sum(score >= threshold for score in scores)
    assert 0 < count < 4
    viewer.set_threshold(threshold)
    expect(viewer.shown()).to_have_count(count)
    notebook.wait_for("len(view.result)", count)
    notebook.run_cell(1)
    expect(viewer.shown()).to_have_count(4)


def test_a_click_selects_for_the_next_cell(viewer, notebook):
    viewer.list_items().nth(1).click()
    notebook.wait_for("len(view.selected or [])", 1)
    viewer.list_items().nth(1).click()
    notebook.wait_for("len(view.selected or [])", 0)


def test_there_are_no_tools_of_the_panel(viewer):
    expect(viewer.root.locator(".fl-upload")).to_be_hidden()
    expect(viewer.root.locator(".fl-history")).to_be_hidden()


def test_a_saved_notebook_holds_a_png_and_stays_small(notebook):
    saved = notebook.save()
    data = saved["cells"][0]["outputs"][0]["data"]
    assert "application/vnd.jupyter.widget-view+json" in data
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    size = len(json.dumps(saved))
    print(f"\nnotebook with a view: {size:,} bytes, PNG of {image.width} x {image.height}")
    assert image.width >= 512
    assert size < MAX_NOTEBOOK
