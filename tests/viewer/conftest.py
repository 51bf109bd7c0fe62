"""A browser for each test module, and viewers in a bare page."""

import pytest


@pytest.fixture(scope="module")
def browser():
    from front_end import CHROMIUM, FLAGS, playwright  # needs playwright, which not every test here does

    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1000, "height": 800}, accept_downloads=True, has_touch=True)
    context.set_default_timeout(10_000)
    page = context.new_page()
    yield page
    context.close()


@pytest.fixture
def front_end(page):
    """A viewer that is not started; a test fails at its end if the page had an error."""
    from front_end import FrontEnd

    front_end = FrontEnd(page)
    yield front_end
    assert front_end.errors == []
