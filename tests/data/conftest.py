"""Fixtures of the tests of datasets."""

import json

import pytest
from PIL import Image

from florence_lab.data.datasets import load_examples
from florence_lab.data.validation import RowValidator
from florence_lab.template import FlorenceTemplate


@pytest.fixture(scope="session")
def template():
    from transformers import AutoTokenizer

    from florence_lab.loading.registry import MODELS

    return FlorenceTemplate(AutoTokenizer.from_pretrained(MODELS["florence-2-nano"].path))


@pytest.fixture
def validator(template):
    return RowValidator(template)


@pytest.fixture
def read(validator):
    """Load datasets with the default validator."""

    def load(*datasets, **options):
        return load_examples(datasets, validator, **options)

    return load


@pytest.fixture
def write_rows(tmp_path):
    """Write rows to a file beside `a.png`, an image of 200 x 100 pixels, and `broken.png`. Returns the path."""
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"not an image")

    def write(name, *rows):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) if name.endswith("jsonl") else f"[{', '.join(lines)}]")
        return str(tmp_path / name)

    return write
