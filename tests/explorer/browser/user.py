"""A user of the panel: finds controls by what they are called, as a person or a screen reader does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from explorer.browser.harness import TIMEOUT, playwright

SIZES = {"phone": (360, 740), "laptop": (1366, 768), "large": (2560, 1440)}
"""Widths and heights of the windows in which screenshots are taken."""

NARROW = 700
"""Width of a window, in pixels, up to which a user closes JupyterLab's sidebar."""

_WATCH_STATUS = """(panel) => {
  const status = panel.querySelector('.fl-status'), log = [];
  const note = () => {
    const text = status.textContent.trim();
    if (text && text !== log.at(-1)?.text) log.push({ text, time: performance.now() });
  };
  new MutationObserver(note).observe(status, { childList: true, characterData: true, subtree: true });
  panel.flLog = log;
}"""
_CLICK_AND_TIME = """async (panel, [pattern, seconds]) => {
  const button = panel.querySelector('button.fl-run');
  panel.flLog.length = 0;
  const start = performance.now(), end = new RegExp(pattern);
  button.click();
  for (;;) {
    const entry = panel.flLog.find(({ text, time }) => time >= start && end.test(text));
    if (entry) return { seconds: (entry.time - start) / 1000, text: entry.text };
    if (performance.now() - start > seconds * 1000) throw Error(`after ${seconds} s: ${panel.flLog.map((e) => e.text)}`);
    await new Promise((resolve) => setTimeout(resolve, 4));
  }
}"""
_WATCH_COUNTS = """(viewer) => {
  const counts = [];
  const note = () => {
    const count = viewer.querySelectorAll('.fl-row').length;
    if (count !== counts.at(-1)) counts.push(count);
  };
  new MutationObserver(note).observe(viewer, { childList: true, subtree: true });
  viewer.flCounts = counts;
}"""
_OVERFLOWING = """(panel) => {
  const right = Math.min(panel.getBoundingClientRect().right, innerWidth) + 1;
  const scrolls = (element) => element && element !== panel
    && (['auto', 'scroll', 'hidden'].includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
  return [...panel.querySelectorAll('*')]
    .filter((element) => element.checkVisibility({ visibilityProperty: true }) && !scrolls(element.parentElement))
    .filter((element) => element.getBoundingClientRect().right > right)
    .map((element) => `${element.tagName} ${element.getAttribute('class')}`);
}"""
FINISHED = r"^(Done|Stopped)"


def show_sidebar(page: Any, is_shown: bool) -> None:
    """Open or close the file browser of JupyterLab, which leaves nothing of a narrow window."""
    tab = page.locator(".jp-SideBar.jp-mod-left .lm-TabBar-tab[data-id=filebrowser]")
    if tab.count() and ("lm-mod-current" in tab.get_attribute("class")) != is_shown:
        tab.click()


class Viewer:
    """Uses one viewer: the stage with its list.

    Attributes:
        page: the page.
        root: locates the viewer.
    """

    def __init__(self, root: Any) -> None:
        self.page, self.root = root.page, root
        root.locator(".fl-view").first.wait_for(state="attached")

    @property
    def phase(self) -> str:
        """What it is at: empty, loading, answering, done, stopped or error."""
        return self.root.get_attribute("data-phase")

    def wait_for_image(self, name: str) -> None:
        """Wait until the stage shows an image: its name begins the name of the stage."""
        view = self.root.locator(".fl-view").first
        playwright.expect(view).to_have_attribute(
            "aria-label", re.compile(f"^{re.escape(name)}[ ,.]"), timeout=TIMEOUT * 1000
        )

    @property
    def header(self) -> Any:
        """The line that says what is answered."""
        return self.root.locator(".fl-head").first

    @property
    def answer(self) -> Any:
        """The answer of a task whose result is text."""
        return self.root.locator(".fl-words").first

    def list_items(self) -> Any:
        """Locate the entries of the list of instances."""
        return self.root.locator(".fl-row:not(.fl-off)")

    def read_list(self) -> list[str]:
        """Return the entries of the list of instances."""
        return [" ".join(text.split()) for text in self.list_items().all_inner_texts()]

    def drawn(self, number: int) -> Any:
        """Locate the drawing of an instance."""
        return self.root.locator(f'.fl-shape[data-index="{number}"]').first

    def shown(self) -> Any:
        """Locate the drawings of all instances that are not hidden."""
        return self.root.locator(".fl-shape:not(.fl-off)")

    def open_tab(self, name: str) -> None:
        """Open a tab by its name."""
        self.root.get_by_role("tab", name=name).first.click()

    def hover_instance(self, number: int) -> None:
        """Move the pointer over an entry of the list."""
        self.list_items().nth(number).hover()

    def point_at(self, number: int) -> None:
        """Move the pointer to the middle of an instance on the stage."""
        place = self.drawn(number).bounding_box()
        self.page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)

    def set_threshold(self, value: float) -> None:
        """Move the slider of the scores."""
        self.root.get_by_role("slider").first.fill(f"{value:.2f}")

    def drag_region(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """Drag a region, given in pixels of the full image."""
        view = self.root.locator(".fl-view").first
        view.scroll_into_view_if_needed()
        place = view.bounding_box()
        width = float(view.locator(".fl-svg").get_attribute("viewBox").split()[2])
        scale = place["width"] / width
        points = [(place["x"] + x * scale, place["y"] + y * scale) for x, y in ((x0, y0), (x1, y1))]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        self.page.mouse.move(*points[1], steps=8)
        self.page.mouse.up()

    def read_region(self) -> list[int]:
        """Return the four numbers of the region."""
        return [int(field.input_value()) for field in self.root.locator(".fl-region input").all()]

    def watch_counts(self) -> Callable[[], list[int]]:
        """Watch the number of entries of the list; the function returned gives the numbers that it has had, without 0."""
        self.root.evaluate(_WATCH_COUNTS)
        return lambda: [count for count in self.root.evaluate("viewer => viewer.flCounts") if count]


class User:
    """Uses one panel of a page.

    Attributes:
        page: the page.
        panel: locates the panel.
        viewer: its viewer.
    """

    def __init__(self, page: Any, number: int = 0) -> None:
        """Take the panel of a number, from 0, on a page, and wait until it stands there."""
        self.page = page
        self.panel = page.locator(".fl-panel").nth(number)
        self.panel.wait_for()
        self.viewer = Viewer(self.panel.locator(".fl-viewer"))
        self.panel.evaluate(_WATCH_STATUS)

    # ------------------------------------------------------------------ controls

    def control(self, name: str) -> Any:
        """Locate a control of the bar by its accessible name."""
        return self.panel.get_by_label(name, exact=True)

    @property
    def run(self) -> Any:
        """The button Run, or Stop."""
        return self.panel.locator("button.fl-run")

    @property
    def status(self) -> Any:
        """The status line."""
        return self.panel.locator(".fl-status")

    def choose(self, name: str, option: str) -> None:
        """Choose the option of a menu whose text contains `option`."""
        menu = self.control(name)
        texts = menu.locator("option").all_text_contents()
        index = next((i for i, text in enumerate(texts) if option in text.replace("\xa0", " ")), None)
        assert index is not None, f"{option!r} is not in {texts}"
        menu.select_option(index=index)

    def choose_image(self, name: str) -> None:
        """Choose a sample, and wait until it is on the stage."""
        self.choose("Image", name)
        self.viewer.wait_for_image(name)

    def choose_task(self, task: str) -> None:
        """Choose a task by its name or token."""
        self.choose("Task", task)

    def type_phrase(self, text: str) -> None:
        """Fill in the text that the task takes, and leave the field."""
        field = self.panel.locator(".fl-phrase-field input")
        field.fill(text)
        field.blur()

    def open_path(self, source: str) -> None:
        """Give a path or URL, and press Open."""
        self.choose("Image", "Path or URL")
        self.control("Path").fill(source)
        self.press("Open")

    def compare_with(self, model: str) -> None:
        """Let a second model answer."""
        self.control("Compare").check()
        self.choose("Other model", model)

    def press(self, name: str) -> None:
        """Press a button by its name."""
        self.panel.get_by_role("button", name=re.compile(rf"^\W*{name}$")).first.click()  # an icon may stand before it

    def wait_for_status(self, pattern: str, seconds: float = TIMEOUT) -> str:
        """Wait until the status line matches a pattern, and return it."""
        playwright.expect(self.status).to_contain_text(re.compile(pattern), timeout=seconds * 1000)
        return self.status.inner_text().strip()

    def ask(self, ends_with: str = FINISHED) -> float:
        """Press Run, wait until the status line says the end, and return the seconds between, by a clock in the page.

        The viewer, which is drawn in the next frame, shows the end as well then.
        """
        seconds = self.panel.evaluate(_CLICK_AND_TIME, [ends_with, TIMEOUT])["seconds"]
        ended = re.compile("done|stopped|error|empty")
        playwright.expect(self.viewer.root).to_have_attribute("data-phase", ended, timeout=TIMEOUT * 1000)
        return seconds

    def upload(self, path: Path) -> None:
        """Choose a file of the disk."""
        with self.page.expect_file_chooser() as chooser:
            self.panel.get_by_role("button", name=re.compile("upload", re.IGNORECASE)).first.click()
        chooser.value.set_files(path)

    def upload_and_time(self, path: Path, expected: str) -> float:
        """Upload a file, wait until the viewer names it, and return the seconds."""
        start = monotonic()
        self.upload(path)
        self.viewer.wait_for_image(expected)
        return monotonic() - start

    # ------------------------------------------------------------------ the page

    def overflowing(self) -> list[str]:
        """Return the elements of the panel that reach over its right side, or cut off what is in them."""
        return self.panel.evaluate(_OVERFLOWING)

    def is_in_view(self, locator: Any) -> bool:
        """Whether all of an element can be seen: it is in the window, and nothing lies over its middle and corners."""
        return locator.evaluate(
            """(element) => {
              const { left, top, right, bottom } = element.getBoundingClientRect();
              if (left < 0 || top < 0 || right > innerWidth || bottom > innerHeight || right - left < 1) return false;
              const points = [[left + 2, top + 2], [right - 2, bottom - 2], [(left + right) / 2, (top + bottom) / 2]];
              return points.every(([x, y]) => {
                const found = document.elementFromPoint(x, y);
                return found && (element.contains(found) || found.contains(element));
              });
            }"""
        )

    def take_screenshots(self, folder: Path, name: str) -> None:
        """Take a screenshot in each of the `SIZES`, and return to the size from before."""
        before = self.page.viewport_size
        for size, (width, height) in SIZES.items():
            self.page.set_viewport_size({"width": width, "height": height})
            show_sidebar(self.page, width > NARROW)
            self.page.wait_for_timeout(400)  # until the layout has settled, for which there is no event
            self.panel.scroll_into_view_if_needed()
            self.page.screenshot(path=folder / f"{name}-{size}.png")
        self.page.set_viewport_size(before)
