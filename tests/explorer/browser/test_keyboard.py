"""A session with the panel by keyboard alone, in JupyterLab, Notebook 7 and Voilà."""

import json
import re
from pathlib import Path

import pytest
from explorer.browser.harness import (
    NEEDS_BROWSER,
    TIMEOUT,
    jupyter_served,
    notebook_in,
    opened,
    playwright,
    voila_served,
)

pytestmark = NEEDS_BROWSER

expect = playwright.expect
MAX_TABS = 60
FOCUSED = """() => {
  const element = document.activeElement;
  const labels = [...(element.labels ?? [])].map((label) => label.textContent.trim());
  return element.getAttribute('aria-label') || labels.join(' ') || element.textContent.trim();
}"""
IS_IN_VIEW = """() => {
  const { left, right, top, bottom } = document.activeElement.getBoundingClientRect();
  const at = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  return document.activeElement.contains(at) || Boolean(at?.contains(document.activeElement)) || at?.closest('svg') !== null;
}"""


class Keyboard:
    """Uses a panel by keys. Nothing is clicked, and no element is focused from outside.

    Attributes:
        page: the page.
        panel: locates the panel.
    """

    def __init__(self, page):
        self.page, self.panel = page, page.locator(".fl-panel").first
        self.panel.locator(".fl-view").first.wait_for()

    def press(self, *keys):
        """Press keys one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def go_to(self, name, key="Tab"):
        """Press Tab, or Shift+Tab, until the control whose name begins with `name` has the focus."""
        names = []
        for _ in range(MAX_TABS):
            if (focused := self.page.evaluate(FOCUSED)).startswith(name):
                assert self.page.evaluate(IS_IN_VIEW), f"{name} has the focus and is out of view"
                return
            names.append(focused[:40])
            self.page.keyboard.press(key)
        raise AssertionError(f"{name} is not reached by {key}: {names}")

    def choose(self, text):
        """Choose an option of the focused menu by the first letters of its text."""
        self.page.keyboard.type(text)
        self.page.wait_for_timeout(300)

    def run(self, key="Shift+Tab"):
        """Press Run, wait until it is done, and check that the button still has the focus."""
        entries = self.panel.locator(".fl-history-button")
        count = entries.count()
        self.go_to("Run", key)
        self.press("Enter")
        expect(entries).to_have_count(count + 1, timeout=TIMEOUT * 1000)
        expect(self.panel.locator(".fl-status")).to_contain_text("Done", timeout=TIMEOUT * 1000)
        expect(self.panel.locator(".fl-run")).to_have_text("Run")
        assert self.page.evaluate(FOCUSED) == "Run"


def have_a_session(keyboard):
    """Choose image and task, draw a region, run, inspect the instances, open the history and download a file."""
    page, panel = keyboard.page, keyboard.panel
    keyboard.go_to("Image")
    keyboard.choose("street")
    expect(panel.locator(".fl-view").first).to_have_attribute("aria-label", re.compile("^street"))

    keyboard.go_to("Task")
    keyboard.choose("Category of")
    keyboard.go_to("Add region")
    keyboard.press("Enter", "Shift+ArrowLeft", "ArrowUp", "Alt+ArrowRight")
    assert page.evaluate(FOCUSED).startswith("Region from x 118, y 127 to x 375, y 383")
    keyboard.run()
    expect(panel.locator(".fl-text").first).not_to_be_empty()

    keyboard.go_to("Task", "Shift+Tab")
    keyboard.choose("Object det")
    keyboard.run("Tab")
    rows = panel.locator(".fl-row:visible")
    expect(rows.first).to_be_visible()
    keyboard.go_to("Instances")
    keyboard.press("Home", "Enter")
    expect(rows.first).to_have_attribute("aria-selected", "true")
    keyboard.press("Space")
    expect(panel.locator('.fl-shape[data-index="0"]')).to_be_hidden()

    keyboard.go_to("Category of a region")  # the history
    keyboard.press("Enter")
    expect(panel.locator(".fl-task").first).to_contain_text("Category of a region")
    expect(panel.get_by_label("Region x0 in pixels")).to_have_value("118")

    keyboard.go_to("Download", "Shift+Tab")
    keyboard.press("Enter")
    keyboard.go_to("JSON")
    with page.expect_download() as download:
        keyboard.press("Enter")
    assert json.loads(Path(download.value.path()).read_text())


def start(notebook):
    """Run the cell of the panel, and leave its editor, as Tab indents there."""
    notebook.run_cell(0)
    keyboard = Keyboard(notebook.page)
    keyboard.press("Escape")
    return keyboard


def test_in_jupyterlab(jupyterlab, browser):
    with notebook_in(jupyterlab, browser) as notebook:
        have_a_session(start(notebook))


def test_in_notebook_7(tmp_path, browser):
    """It looks for its shortcuts before the panel sees a key, other than JupyterLab."""
    pytest.importorskip("notebook", reason="pip install notebook")
    with (
        jupyter_served("notebook", tmp_path) as server,
        notebook_in(server, browser, where="notebooks") as notebook,
    ):
        have_a_session(start(notebook))


def test_in_voila(tmp_path, browser):
    pytest.importorskip("voila", reason="pip install voila")
    with voila_served(tmp_path) as server:
        page = opened(browser, server.url)
        have_a_session(Keyboard(page))
        page.context.close()
