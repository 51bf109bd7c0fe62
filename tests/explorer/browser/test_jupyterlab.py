"""The panel in JupyterLab: a walk through it, and what happens when things change under it."""

import re
from time import monotonic

import pytest
from explorer.browser.harness import EXPLORE, NEEDS_BROWSER, PACED, TIMEOUT, notebook_in, playwright
from explorer.browser.user import User
from explorer.browser.walk import walk
from support import PHOTO

pytestmark = NEEDS_BROWSER

expect = playwright.expect
SLOW = 0.2  # seconds a token
HEARTBEAT_LIMIT = 8  # seconds
# the GIL is held, so that no thread of the kernel can answer; a cell that only sleeps holds nothing up in JupyterLab
BUSY = "import ctypes\n\nctypes.PyDLL(None).sleep(12)"


@pytest.fixture(scope="module")
def notebook(jupyterlab, browser):
    """A notebook for all tests of this file, as the start of a kernel takes most of their time."""
    with notebook_in(jupyterlab, browser, [PACED, EXPLORE, EXPLORE.replace("explorer", "other"), BUSY]) as notebook:
        notebook.run_cell(0)
        yield notebook


@pytest.fixture
def user(notebook):
    """A new panel with a fast model."""
    notebook.set_pace(0)
    notebook.run_cell(1)
    yield User(notebook.page)
    notebook.evaluate("None", "explorer.close()")


@pytest.fixture
def slow_user(notebook, user):
    """A new panel with a slow model."""
    notebook.set_pace(SLOW)
    yield user
    notebook.set_pace(0)


def start(user):
    """Press Run, and wait for the first instance."""
    user.press("Run")
    user.viewer.list_items().first.wait_for()


def test_a_walk_through_the_panel(user, tmp_path):
    walk(user, tmp_path)


def test_run_and_status_are_in_view_as_jupyterlab_opens(user, notebook):
    page = notebook.page
    assert page.locator("#jp-left-stack").bounding_box()["width"] > 150, "the sidebar is closed"
    page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".cm-content").scroll_into_view_if_needed()
    controls = [user.control(name) for name in ("Image", "Task", "Model")]
    assert all(user.is_in_view(control) for control in (*controls, user.run))
    user.ask()
    user.viewer.list_items().last.scroll_into_view_if_needed()
    assert user.is_in_view(user.viewer.list_items().last)
    user.viewer.root.locator(".fl-history button").last.scroll_into_view_if_needed()
    assert user.is_in_view(user.run)
    assert user.is_in_view(user.status)


def test_hovering_lights_the_drawing_the_list_and_the_tokens(user):
    user.ask()
    user.viewer.hover_instance(1)
    expect(user.viewer.drawn(1)).to_have_class(re.compile("fl-lit"))
    expect(user.viewer.drawn(0)).not_to_have_class(re.compile("fl-lit"))
    user.viewer.open_tab("Raw text")
    user.viewer.point_at(2)
    expect(user.viewer.drawn(2)).to_have_class(re.compile("fl-lit"))
    tokens = user.viewer.root.locator(".fl-segment.fl-lit")
    assert "<loc_" in "".join(tokens.all_inner_texts())


def test_an_answer_grows_instance_by_instance(slow_user):
    counts = slow_user.viewer.watch_counts()
    slow_user.ask()
    assert counts() == [1, 2, 3, 4]


def test_stop_keeps_what_has_arrived(slow_user):
    start(slow_user)
    slow_user.press("Stop")
    slow_user.wait_for_status("^Stopped")
    assert 1 <= len(slow_user.viewer.read_list()) < 4
    assert slow_user.viewer.phase == "stopped"
    slow_user.ask()  # and it can be asked again
    assert len(slow_user.viewer.read_list()) == 4


def test_what_is_pressed_while_busy_is_queued_and_said(slow_user):
    start(slow_user)
    slow_user.open_path(str(PHOTO))
    slow_user.wait_for_status("[Qq]ueued.*chelsea")
    slow_user.viewer.wait_for_image(PHOTO.stem)


def test_an_answer_is_dimmed_once_the_controls_ask_something_else(slow_user):
    start(slow_user)
    header = slow_user.viewer.header
    expect(header).not_to_have_class(re.compile("fl-stale"))
    slow_user.choose_task("<OCR>")
    slow_user.wait_for_status("^Done")
    expect(header).to_have_class(re.compile("fl-stale"))
    slow_user.choose_task("<OD>")
    expect(header).not_to_have_class(re.compile("fl-stale"))


def test_an_answer_never_stands_under_another_image(slow_user):
    start(slow_user)
    slow_user.choose("Image", "street")
    expect(slow_user.viewer.header).to_have_class(re.compile("fl-stale"))
    expect(slow_user.viewer.header).to_contain_text("sheep")
    slow_user.viewer.wait_for_image("street")  # once the run has ended
    assert slow_user.viewer.read_list() == []
    history = slow_user.viewer.root.locator(".fl-history button")
    history.first.click()  # which has the answer
    slow_user.viewer.wait_for_image("sheep")
    expect(slow_user.viewer.list_items()).to_have_count(4)


def test_two_panels_in_one_notebook_answer_for_themselves(user, notebook):
    notebook.run_cell(2)
    second = User(notebook.page, 1)
    second.choose_task("<CAPTION>")
    user.press("Run")
    second.ask()
    user.wait_for_status("^Done")
    assert len(user.viewer.read_list()) == 4
    expect(second.viewer.answer).to_contain_text("sheep")
    assert second.viewer.read_list() == []
    # it stays open: JupyterLab reports an error for the saved output of a closed widget when the page is reloaded


@pytest.mark.parametrize("clicked", [".fl-view", ".fl-row"])
def test_ctrl_s_saves_the_notebook_after_a_click_into_the_viewer(user, notebook, clicked):
    user.ask()
    notebook.save(user.viewer.root.locator(clicked).first)


def test_a_busy_kernel_is_told(user, notebook):
    notebook.start_cell(3)
    notice = user.viewer.root.locator(".fl-notice")
    expect(notice).to_contain_text("busy", timeout=TIMEOUT * 1000)
    print(f"\nA busy kernel: {notice.inner_text()!r}")
    expect(notice).to_have_text("", timeout=TIMEOUT * 1000)  # once it answers again
    notebook.wait_until_idle()
    user.ask()


def test_a_reload_in_the_middle_of_a_run_restores_the_view(slow_user, notebook):
    notebook.save()  # what is not saved is not there after a reload
    start(slow_user)
    notebook.page.reload()
    user = User(notebook.page)
    expect(user.viewer.list_items().first).to_be_visible()
    user.wait_for_status("^Done")
    assert len(user.viewer.read_list()) == 4
    # a page that has just been loaded may miss the first answer of the kernel, and Run is disabled until the next one
    expect(user.panel.locator(".fl-run[aria-disabled=true]")).to_have_count(0, timeout=TIMEOUT * 1000)
    user.ask()


def test_a_restarted_kernel_is_told(user, notebook):
    user.ask()
    begin = notebook.restart_kernel()
    notice = user.viewer.root.locator(".fl-notice")
    expect(notice).to_contain_text("The kernel was restarted", timeout=TIMEOUT * 1000)
    seconds = monotonic() - begin
    print(f"\nA restarted kernel is told after {seconds:.1f} s: {notice.inner_text()!r}")
    assert seconds < HEARTBEAT_LIMIT
    notebook.wait_until_idle()
    notebook.run_cell(0)
    notebook.run_cell(1)
    again = User(notebook.page)
    again.ask()
    assert len(again.viewer.read_list()) == 4
    expect(again.viewer.root.locator(".fl-notice")).to_have_text("")
