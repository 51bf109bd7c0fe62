"""How the panel looks: screenshots at three widths in both themes, contrast of its text, names of its controls."""

import pytest
from explorer.browser.accessibility import accessible_nodes, faint_texts, nameless_controls
from explorer.browser.harness import EXPLORE, NEEDS_BROWSER, notebook_in
from explorer.browser.user import NARROW, SIZES, User, show_sidebar

pytestmark = NEEDS_BROWSER


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_and_controls_have_names(jupyterlab, browser, shots, theme):
    with notebook_in(jupyterlab, browser, [EXPLORE], theme=theme) as notebook:
        notebook.run_cell(0)
        user = User(notebook.page)

        def check(state):
            user.take_screenshots(shots, f"{theme}-{state}")
            faint, nameless = faint_texts(user.panel), nameless_controls(user.panel)
            assert not faint, f"{state}: {faint}"
            assert not nameless, f"{state}: {nameless}"

        check("start")
        user.ask()
        check("detection")
        user.viewer.hover_instance(1)
        user.viewer.list_items().nth(2).click()
        check("instance-kept")
        for tab in ("Raw text", "Code"):
            user.viewer.open_tab(tab)
            check(tab.lower().replace(" ", "-"))
        user.choose_task("<OCR_WITH_REGION>")
        check("stale")
        user.choose_task("<REGION_TO_CATEGORY>")
        user.viewer.drag_region(35, 237, 157, 337)
        user.ask()
        check("region")
        user.choose_task("<CAPTION_TO_PHRASE_GROUNDING>")
        user.type_phrase("")
        user.press("Run")
        user.wait_for_status("needs")
        check("error")
        user.choose_task("<OD>")
        user.compare_with("florence-2-nano")
        user.ask()
        check("compare")
        roles = {role for role, _ in accessible_nodes(user.panel)}
        assert {"status", "combobox", "button", "tab"} <= roles


def test_nothing_is_cut_off_at_the_right(jupyterlab, browser):
    with notebook_in(jupyterlab, browser, [EXPLORE]) as notebook:
        notebook.run_cell(0)
        user = User(notebook.page)
        user.ask()
        for width, height in SIZES.values():
            notebook.page.set_viewport_size({"width": width, "height": height})
            show_sidebar(notebook.page, width > NARROW)
            notebook.page.wait_for_timeout(500)
            assert user.overflowing() == [], f"{width} pixels"
