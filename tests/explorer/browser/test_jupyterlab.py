"""The panel in JupyterLab."""

from explorer.browser.harness import EXPLORE, NEEDS_BROWSER, measure, notebook_in

pytestmark = NEEDS_BROWSER


def test_smoke(jupyterlab, browser):
    with notebook_in(jupyterlab, browser, [EXPLORE, "1+1"]) as notebook:
        notebook.run_cell(0)
        notebook.page.locator(".fl-panel").wait_for()
        print(measure(notebook.page, notebook))
        notebook.run_cell(1)
        notebook.save()
        notebook.restart_kernel()
        notebook.run_cell(1)
        print(notebook.evaluate("1+1"))
        print(notebook.page.errors)
