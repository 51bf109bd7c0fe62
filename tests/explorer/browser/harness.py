"""Servers, pages, kernels and a user for the browser tests of the explorer.

Screenshots are written to the folder that the environment variable `FLORENCE_LAB_SCREENSHOTS` names, by default to a temporary
folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_BROWSER = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")]
"""The marks of every test module here."""

ROOT = Path(__file__).parents[3]
TIMEOUT = 60
"""Seconds. On an idle machine nothing takes more than ten."""
LAPTOP = (1366, 768)

KNOWN_ERRORS = ("/static/notebook/notebook_core.",)
"""Errors of Notebook 7's own code, which it reports whenever it is opened."""
GONE_WIDGETS = "widget model not found"
"""An error of JupyterLab when it draws a cell whose widgets belonged to a kernel that was restarted."""

EXPLORE = "import florence_lab\n\nexplorer = florence_lab.explore()\nexplorer"
PACED = """\
import time

from florence_lab.explorer.predictor_cache import shared_cache

pace = [0.0]  # seconds for each token
shared_cache().get("florence-2-nano").model.lm_head.register_forward_hook(lambda *_: time.sleep(pace[0]));"""
"""A cell after which florence-2-nano can be slowed down: it answers before Stop could be pressed. See `Notebook.set_pace`."""

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


# ---------------------------------------------------------------------- servers


@contextmanager
def launched_browser() -> Iterator[Any]:
    """Launch Chromium until the block ends."""
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


@dataclass
class Server:
    """A server in a process of its own, with its own settings.

    Attributes:
        url: its address, with a slash at the end.
        folder: its working folder; settings and runtime files are below.
        process: its process.
    """

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    def request(self, path: str, method: str = "GET", **content: Any) -> Any:
        """Return the JSON that the server answers, or None if it has none."""
        body = json.dumps(content).encode() if content else None
        request = urllib.request.Request(f"{self.url}{path}", body, {"Content-Type": "application/json"}, method=method)
        with _NO_PROXY.open(request, timeout=TIMEOUT) as response:
            text = response.read()
        return json.loads(text) if text else None

    def kernel_files(self) -> list[Path]:
        """The connection files of the kernels that run, oldest first."""
        return sorted((self.folder / "runtime_dir").glob("kernel-*.json"), key=lambda path: path.stat().st_mtime)

    def read_log(self) -> str:
        """Return what the server has printed."""
        return (self.folder / "server.log").read_text()


@contextmanager
def served(command: Sequence[str], url: str, folder: Path, probe: str = "") -> Iterator[Server]:
    """Run `python -m COMMAND` from its first response to `url` + `probe` until the block ends."""
    folders = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    own = {f"JUPYTER_{name}": str(folder / name.lower()) for name in folders}
    own |= {f"JUPYTERLAB_{name}": str(folder / name.lower()) for name in ("SETTINGS_DIR", "WORKSPACES_DIR")}
    own |= {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=os.environ | own, stdout=log, stderr=log
        )
    server = Server(url, folder, process)
    try:
        deadline = monotonic() + TIMEOUT
        while not responds(url + probe):
            assert process.poll() is None, server.read_log()
            assert monotonic() < deadline, server.read_log()
            sleep(0.2)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def responds(url: str) -> bool:
    """Whether an HTTP server answers at a URL, be it with an error."""
    try:
        with _NO_PROXY.open(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens to."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def jupyter_served(application: str, folder: Path) -> Iterator[Server]:
    """Run the application `jupyterlab` or `notebook`."""
    port = free_port()
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token="]
    options += ["--ServerApp.disable_check_xsrf=True"]
    _write_settings(folder, "notification", fetchNews="false", checkForUpdates=False)
    with served([application, *options], f"http://127.0.0.1:{port}/", folder, "api") as server:
        yield server


@contextmanager
def voila_served(folder: Path, *options: str) -> Iterator[Server]:
    """Run `florence-lab explore` with further options."""
    port = free_port()
    command = ["florence_lab.cli", "explore", "--port", str(port), "--no_browser", *options]
    # a static file, as a request for the page would start a kernel
    with served(command, f"http://127.0.0.1:{port}/", folder, "voila/static/x") as server:
        yield server


def _write_settings(folder: Path, name: str, **settings: Any) -> None:
    """Write settings of JupyterLab, which it reads whenever a page is opened."""
    path = folder / "settings_dir" / "@jupyterlab" / "apputils-extension" / f"{name}.jupyterlab-settings"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings))


# ---------------------------------------------------------------------- pages and notebooks


def opened(browser: Any, url: str, size: tuple[int, int] = LAPTOP, theme: str = "light") -> Any:
    """Open a URL in a context of its own, and return the page. `page.errors` collects what the console calls errors."""
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, color_scheme=theme, accept_downloads=True)
    context.set_default_timeout(TIMEOUT * 1000)
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(f"{error.message}\n{error.stack}"))
    page.on("console", lambda message: message.type == "error" and page.errors.append(_describe(message)))
    page.goto(url)
    return page


def _describe(message: Any) -> str:
    return f"{message.text} ({message.location.get('url')}:{message.location.get('lineNumber')})"


class Notebook:
    """A notebook in a page of JupyterLab or Notebook 7.

    Attributes:
        page: the page.
        path: the file.
        known_errors: parts of messages of the console that are not errors of the panel.
    """

    def __init__(self, server: Server, page: Any, path: Path) -> None:
        self.server, self.page, self.path = server, page, path
        self.known_errors = [*KNOWN_ERRORS]
        self._client: BlockingKernelClient | None = None

    def wait_until_idle(self) -> None:
        """Wait until the kernel has started and runs no cell."""
        deadline = monotonic() + TIMEOUT
        while not any(self._is_ready(session) for session in self.server.request("api/sessions")):
            assert monotonic() < deadline, self.server.read_log()
            self.page.wait_for_timeout(100)
        self.page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for()

    def _is_ready(self, session: dict[str, Any]) -> bool:
        kernel = session["kernel"]
        return session["path"] == self.path.name and kernel["execution_state"] == "idle" and kernel["connections"] > 0

    def start_cell(self, number: int) -> Any:
        """Run the cell of a number, from 0, and return the locator of its prompt."""
        cell = self.page.locator(".jp-Notebook .jp-Cell").nth(number)
        prompt = cell.locator(".jp-InputArea-prompt")
        before = prompt.inner_text()
        for _ in range(5):  # a notebook that has just been opened loses keys
            cell.locator(".cm-content").click()
            cell.locator(".cm-editor.cm-focused").wait_for()
            self.page.keyboard.press("Control+Enter")
            try:
                playwright.expect(prompt).not_to_have_text(before, timeout=3000)
                return prompt
            except AssertionError:
                continue
        raise AssertionError(f"cell {number} does not run")

    def run_cell(self, number: int) -> None:
        """Run the cell of a number, from 0, and wait for its end. Its exception fails the test."""
        prompt = self.start_cell(number)
        playwright.expect(prompt).not_to_have_text(re.compile(r"\*"), timeout=TIMEOUT * 1000)
        assert re.search(r"\d", prompt.inner_text()), "the kernel has dropped the cell"
        errors = (
            self.page.locator(".jp-Notebook .jp-Cell")
            .nth(number)
            .locator("[data-mime-type='application/vnd.jupyter.error']")
        )
        assert errors.count() == 0, errors.first.inner_text()
        self.wait_until_idle()

    def save(self, clicked: Any = None) -> dict[str, Any]:
        """Save the notebook by Ctrl+S after a click, by default on a prompt, and return what is in the file."""
        before = self.path.stat().st_mtime_ns
        (clicked or self.page.locator(".jp-Notebook .jp-InputPrompt").first).click()
        self.page.keyboard.press("Control+s")
        deadline = monotonic() + TIMEOUT
        while self.path.stat().st_mtime_ns == before or not self.path.read_text().rstrip().endswith("}"):
            assert monotonic() < deadline, "the notebook was not saved"
            self.page.wait_for_timeout(100)
        return json.loads(self.path.read_text())

    def restart_kernel(self) -> float:
        """Restart the kernel by its keys, 0 0, confirm, and return `monotonic` of that moment."""
        self.page.locator(".jp-Notebook .jp-InputPrompt").first.click()
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("0")
        self.page.keyboard.press("0")
        self.page.locator(".jp-Dialog button.jp-mod-warn, .jp-Dialog button.jp-mod-accept").last.click()
        start = monotonic()
        self.known_errors.append(GONE_WIDGETS)
        self._disconnect()
        return start

    def wait_for(self, expression: str, value: Any) -> None:
        """Wait until an expression in the kernel has a value."""
        deadline = monotonic() + TIMEOUT
        while (found := self.evaluate(expression)) != value:
            assert monotonic() < deadline, f"{expression} is {found}, not {value}"
            self.page.wait_for_timeout(50)

    def evaluate(self, expression: str, setup: str = "") -> Any:
        """Return the value of an expression in the kernel, which must have a JSON form; `setup` are statements before it.

        It does not go through the page, so that it changes nothing there.
        """
        client = self._client or self._connect()
        code = f"import json as _json\n{setup}"
        expressions = {"value": f"_json.dumps({expression})"}
        message_id = client.execute(code, silent=True, user_expressions=expressions)
        deadline = monotonic() + TIMEOUT
        while True:
            reply = client.get_shell_msg(timeout=max(deadline - monotonic(), 0.1))
            if reply["parent_header"].get("msg_id") == message_id:
                break
        content = reply["content"]
        assert content["status"] == "ok", content
        value = content["user_expressions"]["value"]
        assert value["status"] == "ok", value
        return json.loads(eval(value["data"]["text/plain"]))  # the repr of a str

    def set_pace(self, seconds: float) -> None:
        """Set the seconds that florence-2-nano waits at each token; the cell `PACED` has to be run before."""
        self.evaluate("None", f"pace[0] = {seconds}")

    @property
    def kernel_id(self) -> str:
        """The id of the kernel of the notebook."""
        sessions = self.server.request("api/sessions")
        return next(s["kernel"]["id"] for s in sessions if s["path"] == self.path.name)

    def _connect(self) -> BlockingKernelClient:
        path = self.server.folder / "runtime_dir" / f"kernel-{self.kernel_id}.json"
        self._client = BlockingKernelClient(connection_file=str(path))
        self._client.load_connection_file()
        self._client.start_channels(iopub=False, stdin=False, hb=False)
        return self._client

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.stop_channels()
        self._client = None

    def close(self) -> None:
        """Close the page and end the kernel."""
        self._disconnect()
        self.page.context.close()
        for session in self.server.request("api/sessions"):
            if session["path"] == self.path.name:
                self.server.request(f"api/sessions/{session['id']}", "DELETE")


@contextmanager
def notebook_in(
    server: Server,
    browser: Any,
    cells: Sequence[str] = (EXPLORE,),
    *,
    size: tuple[int, int] = LAPTOP,
    theme: str = "light",
    where: str = "lab/tree",
) -> Iterator[Notebook]:
    """Open a new notebook until the block ends.

    Args:
        server: of `jupyter_served`.
        browser: of `launched_browser`.
        cells: the sources of its cells, none of which has been run.
        size: of the window, in pixels.
        theme: "light" or "dark".
        where: "lab/tree" in JupyterLab, "notebooks" in Notebook 7.
    """
    _write_settings(server.folder, "themes", theme="JupyterLab Dark" if theme == "dark" else "JupyterLab Light")
    number = len(list(server.folder.glob("*.ipynb")))
    path = server.folder / f"notebook-{number}.ipynb"
    path.write_text(json.dumps(_notebook(cells)))
    # a workspace of its own, so that no notebook of an earlier test is opened again
    where = where.replace("lab/tree", f"lab/workspaces/{path.stem}/tree")
    page = opened(browser, f"{server.url}{where}/{path.name}", size, theme)
    notebook = Notebook(server, page, path)
    try:
        page.locator(".jp-Cell .cm-content").first.wait_for()
        notebook.wait_until_idle()
        yield notebook
        errors = [error for error in page.errors if not any(known in error for known in notebook.known_errors)]
        assert not errors, f"the console has errors: {errors}"
    finally:
        notebook.close()


def _notebook(cells: Sequence[str]) -> dict[str, Any]:
    empty = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    sources = [{**empty, "id": f"cell-{number}", "source": source} for number, source in enumerate(cells)]
    return {"cells": sources, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
