"""`florence-lab explore`: its options, its notebook and its settings. `browser/test_voila.py` opens the page."""

import ast
import json
import subprocess
import sys
import types

import pytest

from florence_lab.cli import main
from florence_lab.exceptions import ArgumentError
from florence_lab.explorer.page import serve, write_notebook
from florence_lab.explorer.page_options import PageOptions, server_settings

TOKEN = "abcdefgh12345678"


@pytest.mark.parametrize("model_type", ["florence-2-nano", 'it\'s/a "model"', "a\\b\n", "')\nimport os #"])
def test_the_notebook_of_the_page_shows_the_panel_of_a_model(tmp_path, model_type):
    (cell,) = json.loads(write_notebook(tmp_path / "page.ipynb", model_type).read_text())["cells"]
    imported, call = ast.parse(cell["source"]).body
    assert isinstance(imported, ast.Import)
    assert ast.literal_eval(call.value.args[0]) == model_type


def test_the_notebook_has_the_title_of_the_page(tmp_path):
    notebook = json.loads(write_notebook(tmp_path / "page.ipynb", "florence-2-nano").read_text())
    assert notebook["metadata"]["title"] == "florence_lab explorer"


def test_without_voila_the_error_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "florence_lab.explorer.page_server", None)  # which imports Voilà
    assert main(["explore", "--no_browser"]) == 2
    assert "pip install voila" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"port": -1}, "port must be 0 to 65535, got -1"),
        ({"port": 70000}, "port must be 0 to 65535, got 70000"),
        ({"max_visitors": 0}, "max_visitors must be at least 1, got 0"),
        ({"ip": "example.org"}, "'example.org'"),
        ({"ip": "999.0.0.1"}, "'999.0.0.1'"),
        ({"token": "short"}, "got 5 characters"),
        ({"token": "with a blank and more"}, "letters and digits"),
        ({"ip": "0.0.0.0", "token": "short"}, "got 5 characters"),
    ],
)
def test_an_option_out_of_its_range_is_rejected(options, named):
    with pytest.raises(ArgumentError, match=named.replace("(", r"\(")):
        serve(**options)


def test_another_address_needs_a_token():
    with pytest.raises(ArgumentError, match="token"):
        PageOptions(ip="0.0.0.0")


@pytest.mark.parametrize(
    ("ip", "is_public"),
    [
        ("127.0.0.1", False),
        ("127.1.2.3", False),
        ("localhost", False),
        ("::1", False),
        ("0.0.0.0", True),
        ("::", True),
        ("192.168.1.5", True),
    ],
)
def test_a_page_is_public_if_other_machines_can_reach_it(ip, is_public):
    assert PageOptions(ip=ip, token=TOKEN).is_public is is_public


@pytest.mark.parametrize(
    ("group", "name", "local", "public"),
    [
        ("Voila", "ip", "127.0.0.1", "0.0.0.0"),
        ("Voila", "token", "", TOKEN),
        ("Voila", "config_file_paths", [], []),
        ("VoilaConfiguration", "show_tracebacks", True, False),
        ("VoilaConfiguration", "allow_template_override", "NO", "NO"),
        ("VoilaConfiguration", "allow_theme_override", "NO", "NO"),
        ("MappingKernelManager", "cull_connected", False, True),
        ("MappingKernelManager", "cull_idle_timeout", 0, 3600),
    ],
)
def test_settings_of_a_page_for_this_machine_and_for_others(group, name, local, public):
    assert server_settings(PageOptions())[group][name] == local
    assert server_settings(PageOptions(ip="0.0.0.0", token=TOKEN))[group][name] == public


def test_a_local_page_refuses_other_host_names_and_a_public_one_cannot():
    assert server_settings(PageOptions())["Voila"]["tornado_settings"]["allow_remote_access"] is False
    public = server_settings(PageOptions(ip="0.0.0.0", token=TOKEN))
    assert public["Voila"]["tornado_settings"]["allow_remote_access"] is True


def test_a_message_may_have_the_size_of_a_chunk_of_an_upload_and_not_much_more():
    limit = server_settings(PageOptions())["Voila"]["tornado_settings"]["websocket_max_message_size"]
    assert 2 * 2**20 < limit <= 8 * 2**20


def test_the_browser_may_load_nothing_from_another_host():
    policy = server_settings(PageOptions())["Voila"]["tornado_settings"]["headers"]["Content-Security-Policy"]
    assert "http" not in policy
    assert "*" not in policy


@pytest.fixture
def served(monkeypatch):
    """The arguments with which a server would run: options, notebook, whether a browser is opened."""
    seen = []
    server = types.SimpleNamespace(run_server=lambda *arguments: seen.append(arguments))
    monkeypatch.setitem(sys.modules, "florence_lab.explorer.page_server", server)  # imports Voilà, which takes a second
    return seen


def test_a_checkpoint_folder_is_passed_as_an_absolute_path(tmp_path, monkeypatch, served):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").mkdir()
    serve("my-model")
    serve("florence-2-base")
    assert [options.model_type for options, _, _ in served] == [str(tmp_path / "my-model"), "florence-2-base"]


def test_a_token_is_generated_for_another_address_and_the_page_is_not_opened(served):
    serve(ip="0.0.0.0")
    serve(ip="0.0.0.0")
    serve()
    (first, _, opens), (second, _, _), (local, _, opens_local) = served
    assert len(first.token) == 32
    assert first.token != second.token
    assert not opens
    assert local.token == ""
    assert opens_local


def test_a_panel_is_shown_without_torch():
    code = "import sys, florence_lab; florence_lab.explore(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
