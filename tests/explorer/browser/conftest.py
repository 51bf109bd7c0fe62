"""A browser and a server for each test module."""

import os
from pathlib import Path

import pytest
from explorer.browser.harness import jupyter_served, launched_browser


@pytest.fixture(scope="module")
def browser():
    with launched_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    with jupyter_served("jupyterlab", tmp_path_factory.mktemp("jupyterlab")) as server:
        yield server


@pytest.fixture
def shots(tmp_path):
    folder = Path(os.environ.get("FLORENCE_LAB_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
