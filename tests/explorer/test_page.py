"""`florence-lab explore`."""

import ast
import json
import sys

import pytest

from florence_lab.cli import main
from florence_lab.explorer.page import serve, write_notebook


def test_the_notebook_of_the_page_shows_the_panel_of_a_model(tmp_path):
    (cell,) = json.loads(write_notebook(tmp_path / "page.ipynb", "it's/a model").read_text())["cells"]
    assert ast.parse(cell["source"])
    assert cell["source"].splitlines()[-1] == """florence_lab.explore("it's/a model")"""


def test_without_voila_the_error_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "voila.app", None)
    assert main(["explore", "--no_browser"]) == 2
    assert "pip install voila" in capsys.readouterr().err


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_out_of_range_is_rejected(port):
    with pytest.raises(ValueError, match=f"port must be 0 to 65535, got {port}"):
        serve(port=port)
