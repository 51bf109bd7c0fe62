"""What the panel costs in time and memory, in JupyterLab. Each test prints its figures."""

import itertools
import re
import statistics

import numpy as np
import pytest
from explorer.browser.figures import measure
from explorer.browser.harness import EXPLORE, NEEDS_BROWSER, TIMEOUT, notebook_in, playwright
from explorer.browser.user import User
from PIL import Image

from florence_lab.scenes import sample_path

pytestmark = NEEDS_BROWSER

expect = playwright.expect
NUM_RUNS = 150
WARM_UP = 10  # runs, after which every kind of answer, tab and menu has been on show once
SAMPLES = ("sheep", "street")
TASKS = ("<OD>", "<CAPTION>", "<DENSE_REGION_CAPTION>", "<OCR_WITH_REGION>", "<OCR>")
MAX_OVERHEAD = 0.1  # seconds from Run to done besides the model's own time, on an idle machine
BUSY_FACTOR = 5  # a machine that does something else beside
MIB = 2**20
VIEWER = """\
import florence_lab
from florence_lab.scenes import sample_path
from florence_lab.viewer import Viewer
from florence_lab.viewer.picture import make_picture
from PIL import Image

viewer = Viewer(has_tools=True, upload_limit=1000, files=[{"id": "png", "label": "PNG"}])
viewer.show_picture(make_picture(Image.open(sample_path("sheep")), "sheep"))
viewer"""
PLAIN = "from IPython.display import HTML\n\nHTML('<b>plain</b>')"


@pytest.fixture(scope="module")
def notebook(jupyterlab, browser):
    with notebook_in(
        jupyterlab, browser, [EXPLORE, "explorer.close()", VIEWER, "viewer.close()", PLAIN, "pass"]
    ) as notebook:
        yield notebook


@pytest.fixture
def user(notebook):
    notebook.run_cell(0)
    yield User(notebook.page)
    notebook.run_cell(1)


def test_150_runs_leave_nothing_behind(user, notebook):
    questions = itertools.cycle(itertools.product(TASKS, SAMPLES))
    figures, seconds = {}, []
    for number in range(NUM_RUNS + 1):
        if number in (0, WARM_UP, NUM_RUNS // 3, NUM_RUNS):
            figures[number] = measure(notebook.page, notebook)
            print(f"\nafter {number:3} runs: {figures[number]}", end="")
        if number < NUM_RUNS:
            task, sample = next(questions)
            user.choose("Image", sample)
            user.choose_task(task)
            seconds.append(user.ask())
    print(f"\n{NUM_RUNS} runs, {statistics.median(seconds):.2f} s each (median), {max(seconds):.2f} s at most")
    before, after = figures[WARM_UP], figures[NUM_RUNS]
    assert after.widgets <= before.widgets + 5
    assert after.nodes <= before.nodes * 1.1
    assert after.heap <= before.heap * 1.1
    assert after.listeners <= before.listeners * 1.1
    assert after.figures == 0


def test_seven_images_in_a_region_task_leave_one_drawing(user):
    user.choose_task("<REGION_TO_CATEGORY>")
    for name in (SAMPLES * 4)[:7]:
        user.choose_image(name)
        user.viewer.drag_region(35, 237, 157, 337)
    assert user.panel.locator("svg.fl-svg").count() == 1
    assert user.panel.locator("canvas").count() == 0
    assert user.viewer.root.locator("img.fl-image").count() == 1


def test_detection_in_12_megapixels_takes_as_long_as_the_model(user, notebook, tmp_path):
    path = tmp_path / "large.jpg"
    Image.open(sample_path("sheep")).convert("RGB").resize((4000, 3000)).save(path)
    user.open_path(str(path))
    user.viewer.wait_for_image("large")
    user.ask()  # which also encodes the image
    totals, overheads = [], []
    for _ in range(9):
        totals.append(user.ask())
        overheads.append(totals[-1] - read_model_seconds(notebook))
    overhead = statistics.median(overheads)
    print(
        f"\n<OD> of 12 megapixels: {statistics.median(totals):.3f} s, of which {overhead:.3f} s (median) are not the model's; "
        f"{min(overheads):.3f} to {max(overheads):.3f} s"
    )
    assert overhead < MAX_OVERHEAD * BUSY_FACTOR


def test_large_files_arrive_and_too_large_ones_are_refused_first(user, notebook, tmp_path):
    large, too_large = tmp_path / "large.png", tmp_path / "too_large.png"
    noise = np.random.default_rng(0).integers(0, 256, (3700, 3700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large, compress_level=0)
    assert large.stat().st_size > 40e6
    with too_large.open("wb") as file:
        file.truncate(80 * MIB)

    seconds = user.upload_and_time(large, expected="large")
    print(f"\n{large.stat().st_size / 1e6:.0f} MB arrived in {seconds:.1f} s")
    assert notebook.evaluate("list(explorer.shown_image.image.size)") == [3700, 3700]

    user.upload(too_large)
    expect(user.panel).to_contain_text("too_large.png", timeout=TIMEOUT * 1000)
    expect(user.panel).to_contain_text("64 M")
    assert notebook.evaluate("explorer.shown_image.name") == "large"


def test_a_closed_viewer_leaves_nothing_in_the_page(notebook):
    """JupyterLab itself keeps some nodes for each cell that is run, so that they are counted beside those of a plain cell."""

    def growth(cell):
        figures = []
        for _ in range(4):  # the first one is a warm-up
            notebook.run_cell(cell)
            notebook.page.wait_for_timeout(500)
            notebook.run_cell(cell + 1)
            notebook.page.wait_for_timeout(500)
            figures.append(measure(notebook.page))
        return [(getattr(figures[-1], name) - getattr(figures[1], name)) / 2 for name in ("nodes", "listeners")]

    plain, viewer = growth(4), growth(2)
    print(f"\nDOM nodes and listeners that stay: {viewer} of a closed viewer, {plain} of a plain cell")
    assert viewer[0] <= plain[0] + 20
    assert viewer[1] <= plain[1] + 5


def test_a_closed_panel_leaves_no_widget(notebook):
    before = measure(notebook.page, notebook).widgets
    notebook.run_cell(0)
    User(notebook.page).ask()
    notebook.run_cell(1)
    expect(notebook.page.locator(".fl-panel")).to_have_count(0)
    assert measure(notebook.page, notebook).widgets == before


def read_model_seconds(notebook):
    """The time of the decoder as the panel gives it."""
    times = notebook.evaluate("explorer.viewer.answers[0]['times']")
    return float(re.search(r"decoder (\d+\.\d+) s", times)[1])
