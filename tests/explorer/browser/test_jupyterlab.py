"""The panel in JupyterLab: a walk through it, and what happens when things change under it."""

import re
from time import monotonic

import pytest
from explorer.browser.harness import EXPLORE, NEEDS_BROWSER, SLOW_DECODING, TIMEOUT, notebook_in, playwright
from explorer.browser.user import User
from explorer.browser.walk import walk
from support import PHOTO

pytestmark = NEEDS_BROWSER

expect = playwright.expect
SLOW = SLOW_DECODING.format(seconds=0.1)
HEARTBEAT_LIMIT = 8  # seconds


@pytest.fixture
def notebook(jupyterlab, browser):
    """A notebook with a slow model in cell 0, the panel in cell 1, and an empty cell behind."""
    with notebook_in(jupyterlab, browser, [SLOW, EXPLORE, "pass"]) as notebook:
        yield notebook


@pytest.fixture
def user(notebook):
    notebook.run_cell(1)
    return User(notebook.page)


@pytest.fixture
def slow_user(notebook):
    notebook.run_cell(0)
    notebook.run_cell(1)
    return User(notebook.page)


def test_a_walk_through_the_panel(user, tmp_path):
    walk(user, tmp_path)


def test_run_and_status_are_in_view_as_jupyterlab_opens(user, notebook):
    sidebar = notebook.page.locator(".jp-SideBar.jp-mod-left .lm-mod-current, #jp-left-stack").first
    assert sidebar.bounding_box()["width"] > 20
    notebook.page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".cm-content").scroll_into_view_if_needed()
    assert user.is_in_view(user.run)
    assert user.is_in_view(user.control("Task"))
    user.ask()
    user.viewer.list_items().last.scroll_into_view_if_needed()
    assert user.is_in_view(user.viewer.list_items().last)
    assert user.is_in_view(user.run)
    assert user.is_in_view(user.status)
    width = user.panel.evaluate("panel => [panel.scrollWidth, panel.clientWidth]")
    assert width[0] <= width[1] + 1, "the panel is cut off at its right side"


def test_hovering_lights_the_drawing_the_list_and_the_tokens(user):
    user.ask()
    user.viewer.hover_instance(1)
    expect(user.viewer.drawn(1).first).to_have_class(re.compile("fl-lit"))
    expect(user.viewer.drawn(0).first).not_to_have_class(re.compile("fl-lit"))
    user.viewer.open_tab("Raw text")
    box = user.viewer.drawn(2).first
    box.dispatch_event("pointerenter")
    box.hover(force=True)
    lit = user.viewer.root.locator(".fl-raw .fl-lit")
    expect(lit.first).to_be_visible()


def test_an_answer_grows_instance_by_instance(slow_user):
    counts = slow_user.viewer.watch_counts()
    slow_user.ask()
    assert counts() == [1, 2, 3, 4]


def test_stop_keeps_what_has_arrived(slow_user):
    slow_user.press("Run")
    expect(slow_user.viewer.list_items()).to_have_count(1, timeout=TIMEOUT * 1000)
    slow_user.press("Stop")
    slow_user.wait_for_status("^Stopped")
    assert 1 <= len(slow_user.viewer.read_list()) < 4
    assert slow_user.viewer.phase == "stopped"
    assert slow_user.ask() > 0  # and it can be asked again
    assert len(slow_user.viewer.read_list()) == 4


def test_what_is_pressed_while_busy_is_queued_and_said(slow_user):
    slow_user.press("Run")
    expect(slow_user.viewer.list_items()).to_have_count(1, timeout=TIMEOUT * 1000)
    slow_user.open_path(str(PHOTO))
    slow_user.wait_for_status(f"{PHOTO.stem}|next|queue")
    expect(slow_user.viewer.root).to_contain_text(PHOTO.stem, timeout=TIMEOUT * 1000)


def test_an_answer_is_dimmed_once_the_controls_ask_something_else(slow_user):
    slow_user.press("Run")
    expect(slow_user.viewer.list_items()).to_have_count(1, timeout=TIMEOUT * 1000)
    header = slow_user.viewer.header
    expect(header).not_to_have_class(re.compile("fl-stale"))
    slow_user.choose("Image", "street")
    slow_user.wait_for_status("^Done")
    expect(header).to_have_class(re.compile("fl-stale"))
    expect(header).to_contain_text("sheep")  # the image that was asked about


def test_a_reload_in_the_middle_of_a_run_restores_the_view(slow_user, notebook):
    notebook.save()  # what is not saved is not there after a reload
    slow_user.press("Run")
    expect(slow_user.viewer.list_items()).to_have_count(1, timeout=TIMEOUT * 1000)
    notebook.page.reload()
    user = User(notebook.page)
    expect(user.viewer.list_items().first).to_be_visible()
    user.wait_for_status("^Done")
    assert len(user.viewer.read_list()) == 4
    assert user.ask() > 0


def test_a_restarted_kernel_is_told(user, notebook):
    user.ask()
    start = notebook.restart_kernel()
    notice = user.viewer.root.locator(".fl-notice")
    expect(notice).to_contain_text("kernel", timeout=TIMEOUT * 1000)
    seconds = monotonic() - start
    print(f"\nA restarted kernel is told after {seconds:.1f} s: {notice.inner_text()!r}")
    assert seconds < HEARTBEAT_LIMIT
    notebook.wait_until_idle()
    notebook.run_cell(1)
    again = User(notebook.page)
    again.ask()
    assert len(again.viewer.read_list()) == 4
    expect(again.viewer.root.locator(".fl-notice")).to_be_empty()


def test_a_busy_kernel_is_told(jupyterlab, browser):
    cells = [EXPLORE, "import time\ntime.sleep(14)"]
    with notebook_in(jupyterlab, browser, cells) as notebook:
        notebook.run_cell(0)
        user = User(notebook.page)
        notebook.start_cell(1)
        notice = user.viewer.root.locator(".fl-notice")
        expect(notice).to_contain_text(re.compile("kernel", re.IGNORECASE), timeout=TIMEOUT * 1000)
        print(f"\nA busy kernel: {notice.inner_text()!r}")
        expect(notice).to_be_empty(timeout=TIMEOUT * 1000)  # once it answers again
        user.ask()


def test_two_panels_in_one_notebook_answer_for_themselves(jupyterlab, browser):
    with notebook_in(jupyterlab, browser, [EXPLORE, EXPLORE.replace("explorer", "other", 1)]) as notebook:
        notebook.run_cell(0)
        notebook.run_cell(1)
        first, second = User(notebook.page, 0), User(notebook.page, 1)
        second.choose_task("<CAPTION>")
        first.press("Run")
        second.ask()
        first.wait_for_status("^Done")
        assert len(first.viewer.read_list()) == 4
        expect(second.viewer.root).to_contain_text("sheep")
        assert second.viewer.read_list() == []
