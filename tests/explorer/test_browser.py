"""The panel in a real browser: in a notebook of JupyterLab, and as the page that `florence-lab explore` serves.

Needs Chromium and Python's playwright, and is skipped without. Screenshots go to the folder that the environment variable
`FLORENCE_LAB_SCREENSHOTS` names, else to pytest's temporary one.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest
from support import PHOTO, UNREACHABLE

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")]

ROOT = Path(__file__).parents[1]
PATIENCE = 120  # seconds; on a quiet machine nothing takes more than ten
SIZES = {"small": (1280, 800), "large": (1920, 1080)}
# nano answers before a person could press Stop, so here it takes its time
CELL = """\
import time
import florence_lab
from florence_lab.explorer.work import SHELF

SHELF.get("florence-2-nano").model.lm_head.register_forward_hook(lambda *_: time.sleep(0.03))
florence_lab.explore()"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = p.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def shots(tmp_path):
    folder = Path(os.environ.get("FLORENCE_LAB_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def served(command, url, tmp_path):
    """A server in a process of its own, with settings of its own, from when it answers until the block is left."""
    folders = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    own = {f"JUPYTER_{name}": str(tmp_path / name.lower()) for name in folders}
    own |= {f"JUPYTERLAB_{name}": str(tmp_path / name.lower()) for name in ("SETTINGS_DIR", "WORKSPACES_DIR")}
    own |= {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=tmp_path, env=os.environ | own, stdout=log, stderr=log
        )
    try:
        deadline = monotonic() + PATIENCE
        while not answers(url):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            assert monotonic() < deadline, (tmp_path / "server.log").read_text()
            sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def answers(url):
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Person:
    """Somebody in front of the panel."""

    def __init__(self, page, shots, name):
        self.page, self.shots, self.name = page, shots, name
        self.panel = page.locator(".fl-panel").first
        self.table = self.panel.locator(".fl-table tr")
        self.number = 0

    def waits_for(self, selector, text=None):
        found = self.panel.locator(selector)
        found = found.filter(has_text=text) if text else found
        found.first.wait_for()
        return found.first

    def presses(self, text):
        self.panel.locator("button", has_text=re.compile(rf"^\s*{text}\s*$")).first.click()

    def chooses_task(self, token):
        self.panel.locator("select:visible").first.select_option(label=f"\u2003{token}")

    def uploads(self, path):
        with self.page.expect_file_chooser() as chooser:
            self.panel.locator("button", has_text="Choose a file").click()
        chooser.value.set_files(path)

    def asks(self):
        """Presses Run and waits for one more answer in the history (of eight)."""
        past = self.panel.locator(".fl-past")
        count = past.count()
        self.presses("Run")
        playwright.expect(past).to_have_count(count + 1, timeout=PATIENCE * 1000)
        self.waits_for(".fl-done", "Done.")

    def looks(self, what):
        """A screenshot at both sizes."""
        self.number += 1
        for size, (width, height) in SIZES.items():
            self.page.set_viewport_size({"width": width, "height": height})
            self.panel.scroll_into_view_if_needed()
            self.page.wait_for_timeout(400)  # for the layout to settle, which nothing announces
            self.page.screenshot(path=self.shots / f"{self.name}-{self.number}-{what}-{size}.png")

    def reads(self):
        """The table: a list of [number, label, confidence, x0, y0, x1, y1]."""
        return [row.split() for row in self.table.all_inner_texts()[1:]]


def use(person, tmp_path):
    """What a person does with the panel, from the first look to the last."""
    person.panel.wait_for()
    person.waits_for(".fl-preview")
    person.looks("start")

    person.asks()
    rows = person.reads()
    assert [row[1] for row in rows] == ["sheep"] * 4
    assert all(0 <= float(row[2]) <= 1 for row in rows)
    assert person.waits_for("img.fl-picture").evaluate("image => image.complete && image.naturalWidth") >= 600
    person.looks("boxes")

    person.chooses_task("<CAPTION_TO_PHRASE_GROUNDING>")
    person.panel.get_by_placeholder("a sheep").fill("four sheep in a field")
    person.asks()
    person.waits_for(".fl-title", "encoded before")
    assert len(person.reads()) >= 1

    person.chooses_task("<REGION_TO_CATEGORY>")
    drags_the_first_sheep(person)
    person.asks()
    assert person.waits_for(".fl-said").inner_text() == "sheep"
    person.looks("region")

    person.presses("Path or URL")
    person.panel.get_by_placeholder("path or https").fill(f"{UNREACHABLE}/cat.png")
    person.presses("Open")
    person.waits_for(".fl-error", "cannot be fetched")
    person.looks("broken-url")

    person.presses("Upload")
    notes = tmp_path / "notes.png"
    notes.write_text("no picture")
    person.uploads(notes)
    person.waits_for(".fl-error", "notes.png")
    person.uploads(PHOTO)
    person.waits_for(".fl-note", "florence-2-nano does not know such pictures")
    person.waits_for(".fl-hint", PHOTO.stem)

    person.chooses_task("<CAPTION>")
    person.asks()
    person.looks("upload")
    for tab in ("Raw text", "Code", "Download"):
        person.panel.get_by_role("tab", name=tab).first.click()
        person.looks(tab.split()[0].lower())


def drags_the_first_sheep(person):
    canvas = person.panel.locator("canvas").last
    canvas.wait_for()
    x1 = person.panel.get_by_label("x1", exact=True)
    place = canvas.bounding_box()
    for attempt in range(3):  # the first of a canvas' events may come before its picture, and a busy kernel drops some
        scale = place["width"] / 512
        (x, y), (to_x, to_y) = [(place["x"] + u * scale, place["y"] + v * scale) for u, v in ((35, 237), (157, 337))]
        person.page.mouse.move(x, y)
        person.page.mouse.down()
        person.page.mouse.move((x + to_x) / 2, (y + to_y) / 2, steps=4)
        person.page.mouse.move(to_x, to_y, steps=4)
        person.page.wait_for_timeout(300)
        person.page.mouse.up()
        try:
            playwright.expect(x1).to_have_value(
                re.compile(r"^1(49|5\d|6[0-5])$"), timeout=15_000
            )  # 157, give or take 8
            return
        except AssertionError:
            if attempt == 2:
                raise


def opened(browser, url):
    context = browser.new_context(viewport=dict(zip(("width", "height"), SIZES["small"], strict=True)))
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.goto(url)
    return page


@contextmanager
def panel_in(application, where, browser, shots, tmp_path):
    """Somebody who has run the one cell of a notebook: in JupyterLab, "lab/tree", or in Notebook 7, "notebooks"."""
    cell = {"cell_type": "code", "id": "panel", "metadata": {}, "execution_count": None, "outputs": [], "source": CELL}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "panel.ipynb").write_text(json.dumps(notebook))
    settings = tmp_path / "settings_dir" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    (settings / "themes.jupyterlab-settings").write_text('{"theme": "JupyterLab Dark"}')  # Voilà's page is light
    port = free_port()
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token="]
    with served([application, *options], f"http://127.0.0.1:{port}/api", tmp_path):
        page = opened(browser, f"http://127.0.0.1:{port}/{where}/panel.ipynb")
        page.locator(".jp-Cell .cm-content").first.click()
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for()
        page.keyboard.press("Shift+Enter")
        yield Person(page, shots, application)
        page.context.close()


def test_in_jupyterlab(browser, shots, tmp_path):
    with panel_in("jupyterlab", "lab/tree", browser, shots, tmp_path) as person:
        use(person, tmp_path)

        person.presses("Samples")
        person.presses("street")
        person.chooses_task("<OD>")
        person.presses("Run")
        person.waits_for(".fl-busy", "answers")
        person.presses("Stop")
        person.waits_for(".fl-done", "Stopped.")
        person.looks("stopped")
        person.asks()  # and it goes on

        person.panel.get_by_label("compare with another").check()
        playwright.expect(person.panel.locator("select:visible")).to_have_count(3)
        person.panel.locator("select:visible").last.select_option("florence-2-nano")
        person.asks()
        playwright.expect(person.panel.locator(".fl-title:visible")).to_have_count(2)
        person.looks("compare")


def test_in_notebook_7(browser, shots, tmp_path):
    pytest.importorskip("notebook", reason="pip install notebook")
    with panel_in("notebook", "notebooks", browser, shots, tmp_path) as person:
        use(person, tmp_path)


def test_through_voila(browser, shots, tmp_path):
    pytest.importorskip("voila", reason="pip install voila")
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    # asked for a file of its own, for asking for the page would start a kernel
    with served(["florence_lab.cli", "explore", "--port", str(port), "--no_browser"], f"{url}voila/static/x", tmp_path):
        page = opened(browser, url)
        use(Person(page, shots, "voila"), tmp_path)
        page.context.close()
