"""The panel in Notebook 7."""

import pytest
from explorer.browser.harness import EXPLORE, NEEDS_BROWSER, jupyter_served, notebook_in
from explorer.browser.user import User
from explorer.browser.walk import walk

pytestmark = NEEDS_BROWSER


def test_a_walk_through_the_panel(browser, tmp_path):
    pytest.importorskip("notebook", reason="pip install notebook")
    with (
        jupyter_served("notebook", tmp_path / "notebook") as server,
        notebook_in(server, browser, [EXPLORE], where="notebooks") as notebook,
    ):
        notebook.run_cell(0)
        walk(User(notebook.page), tmp_path)
