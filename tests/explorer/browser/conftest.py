"""The folder of screenshots."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def shots(tmp_path):
    folder = Path(os.environ.get("FLORENCE_LAB_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
