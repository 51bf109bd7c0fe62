"""The review of labels in JupyterLab, by mouse and keys, down to the files of the dataset."""

import json
import re

import pytest
from explorer.browser.harness import NEEDS_BROWSER, TIMEOUT, notebook_in, playwright
from stand_in import draw_images

pytestmark = NEEDS_BROWSER

expect = playwright.expect
REVIEW = "import florence_lab\n\nreview = florence_lab.review(folder)\nreview"


@pytest.fixture
def folder(tmp_path, run):
    """A labelled folder of images that are large enough to draw on."""
    run(draw_images(tmp_path / "large", 12, size=(400, 300)), format="yolo", review=(0.5, 0.8))
    return tmp_path / "data"


@pytest.fixture(scope="module")
def opened(jupyterlab, browser):
    """A notebook, which takes longer to open than its cell to run."""
    with notebook_in(jupyterlab, browser, [REVIEW]) as notebook:
        yield notebook


@pytest.fixture
def notebook(opened, folder):
    """A notebook that shows the review of the folder."""
    opened.evaluate("None", f"folder = {str(folder)!r}")
    opened.run_cell(0)
    expect(card(opened.page, 0)).to_be_visible(timeout=TIMEOUT * 1000)
    yield opened
    opened.evaluate("None", "review.close()")


def labels(folder):
    """Name of an image -> its objects, from the label files of YOLO."""
    return {
        path.stem: [(int(line.split()[0]), *map(float, line.split()[1:])) for line in path.read_text().splitlines()]
        for path in (folder / "labels" / "train").iterdir()
    }


def card(page, index):
    return page.locator(".flr-card").nth(index)


def press_button(page, name):
    page.locator(".flr-review").get_by_role("button", name=name).click()


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def wait_until_written(notebook, folder, verdicts):
    notebook.wait_for("dict(review.counts)", verdicts)
    expect(notebook.page.locator(".flr-state")).to_have_text("All files up to date", timeout=TIMEOUT * 1000)
    assert not (folder / ".corrections" / "pending").exists()


def test_labels_are_reviewed_by_keys(notebook, folder):
    page = notebook.page
    before = labels(folder)
    ids = notebook.evaluate("[item.id for item in review.items('uncertain')]")
    images = notebook.evaluate("[item.image[:5] for item in review.items('uncertain')]")
    card(page, 0).focus()
    press(page, "a", "r")
    expect(card(page, 0)).to_have_attribute("data-verdict", "accepted")
    expect(card(page, 1)).to_have_attribute("data-verdict", "rejected")
    expect(card(page, 2)).to_be_focused()
    press(page, "e")
    page.keyboard.type("rock")
    press(page, "Enter")
    expect(card(page, 2).locator(".flr-label")).to_have_text("rocket")
    expect(card(page, 3)).to_be_focused()
    press(page, "b")
    shape = page.locator(".flr-shape")
    expect(shape).to_be_focused()
    expect(shape).to_have_attribute("aria-label", re.compile("^Box from"))
    box = notebook.evaluate(f"review.items('all') and review._session.get({ids[3]!r}).box")
    press(page, "ArrowRight", "ArrowRight", "Shift+ArrowDown", "Alt+ArrowRight", "Enter")
    expect(card(page, 3)).to_have_attribute("data-verdict", "changed")
    press(page, "r", "u")
    expect(card(page, 4)).to_have_attribute("data-verdict", "")
    expect(card(page, 4)).to_be_focused()
    total = sum(map(len, before.values()))
    uncertain = len(ids) - 4
    wait_until_written(
        notebook,
        folder,
        {"accepted": 1, "rejected": 1, "changed": 2, "undecided": total - 4, "uncertain": uncertain},
    )
    after = labels(folder)
    assert sum(map(len, after.values())) == total - 1
    assert [row[0] for row in after[images[2]]].count(3) == 1
    moved = notebook.evaluate(f"review._session.get({ids[3]!r}).box")
    assert moved == pytest.approx([round(v) + d for v, d in zip(box, (2, 10, 3, 10), strict=True)])


def test_labels_are_reviewed_by_mouse(notebook, folder):
    page = notebook.page
    ids = notebook.evaluate("[item.id for item in review.items('uncertain')]")
    card(page, 0).get_by_role("button", name="Accept").click()
    card(page, 1).get_by_role("button", name="Reject").click()
    expect(card(page, 1)).to_have_attribute("data-verdict", "rejected")
    card(page, 1).get_by_role("button", name="Accept").click()
    expect(card(page, 1)).to_have_attribute("data-verdict", "accepted")
    card(page, 2).get_by_role("button", name="Rename").click()
    field = card(page, 2).locator("input")
    field.fill("nothing")
    field.press("Enter")
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill("ROCKET")
    field.press("Enter")
    expect(card(page, 2).locator(".flr-label")).to_have_text("rocket")
    card(page, 3).get_by_role("button", name="Redraw").click()
    drag(page, (120, 90), (240, 210), "Shift")
    press_button(page, "Save")
    expect(card(page, 3)).to_have_attribute("data-verdict", "changed")
    press_button(page, "Undo")
    expect(card(page, 3)).to_have_attribute("data-verdict", "")
    card(page, 3).get_by_role("button", name="Redraw").click()
    drag(page, (100, 80), (200, 180), "Shift")
    press_button(page, "Save")
    notebook.wait_for(f"[round(v) for v in review._session.get({ids[3]!r}).box]", [100, 80, 200, 180])


def drag(page, start, end, *modifiers):
    """Drag on the image of the editor, in pixels of the image."""
    canvas = page.locator(".flr-canvas")
    expect(page.locator(".flr-picture")).to_have_attribute("src", re.compile("^blob:"))
    size = canvas.evaluate("e => e.viewBox.baseVal.width")
    box = canvas.bounding_box()
    points = [(box["x"] + x * box["width"] / size, box["y"] + y * box["width"] / size) for x, y in (start, end)]
    for key in modifiers:
        page.keyboard.down(key)
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=5)
    page.mouse.up()
    for key in modifiers:
        page.keyboard.up(key)


def test_missed_objects_are_added_and_a_second_review_continues(notebook, folder):
    page = notebook.page
    page.get_by_label("Labels to list").select_option("images")
    expect(card(page, 0).locator(".flr-source")).to_have_text("0 objects")
    card(page, 0).focus()
    press(page, "Enter")
    page.get_by_label("Class", exact=True).select_option("boat")
    drag(page, (40, 30), (140, 130))
    press_button(page, "Save")
    press(page, "Escape")
    expect(card(page, 0).locator(".flr-source")).to_have_text("1 object")
    name = card(page, 0).locator(".flr-label").inner_text()
    notebook.wait_for("review.state", "written")
    assert [row[0] for row in labels(folder)[name[:5]]] == [2]
    notebook.evaluate("review.counts['added']", "review.close()")
    notebook.run_cell(0)
    notebook.wait_for("review.counts['added']", 1)
    expect(page.locator(".flr-done")).to_contain_text("1 of")


def test_keys_of_the_review_are_no_shortcuts_of_the_notebook(notebook):
    page = notebook.page
    card(page, 0).focus()
    press(page, "a", "b", "Escape", "r", "x", "0", "0")
    page.wait_for_timeout(300)
    saved = json.dumps(notebook.save())
    assert saved.count('"cell_type": "code"') == 1
    assert page.locator(".jp-Dialog").count() == 0


@pytest.mark.parametrize("width", [320, 700, 1200])
def test_nothing_is_cut_off(notebook, width):
    grid = notebook.page.locator(".flr-review")
    grid.evaluate("(element, width) => { element.style.width = `${width}px`; }", width)
    notebook.page.wait_for_timeout(300)
    beyond = """e => [...e.querySelectorAll('*')].map(c => [c.getAttribute('class'), c.getBoundingClientRect().right])
        .filter(([name, right]) => right > e.getBoundingClientRect().right + 1 && !name?.match(/flr-(image|frame|halo|box)/))"""
    assert grid.evaluate("e => e.getBoundingClientRect().width") == width
    assert grid.evaluate(beyond) == []
