"""`florence-lab explore`: the panel as a web page, served by Voilà."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from .access import PUBLIC_PAGE
from .page_options import LOOPBACK, PageOptions, parse_address

TITLE = "florence_lab explorer"


def serve(
    model_type: str = "florence-2-nano",
    port: int = 8866,
    open_browser: bool = True,
    ip: str = LOOPBACK,
    token: str = "",
    max_visitors: int = 8,
) -> None:
    """Serve the panel until the process is interrupted. Each visitor has a kernel, which ends when the page is closed.

    Args:
        model_type: as for `explore`.
        port: 0..65535. If it is taken, the next free one is used, and printed.
        open_browser: open the page in a browser. A page with a token is not opened, as other users of this machine could read
            the token in the list of processes.
        ip: the address to listen at. By default only this machine can reach the page. At another address a token is required,
            and visitors may use uploads, samples and registered models, but neither paths nor URLs.
        token: at least 8 letters and digits that the link ends with. By default one is generated where it is required.
        max_visitors: maximum number of open pages, at least 1.

    Raises:
        ArgumentError: for a value that is out of its range.
        OSError: if no port near `port` is free.
        RuntimeError: if Voilà is not installed.
    """
    is_public = not parse_address(ip).is_loopback
    options = PageOptions(
        _resolve_folder(model_type), ip, port, token or (secrets.token_hex(16) if is_public else ""), max_visitors
    )
    try:
        from .page_server import run_server
    except ImportError as error:
        raise RuntimeError(
            f"explore needs Voilà ({error}): pip install voila, or call florence_lab.explore() in a notebook"
        ) from error
    with tempfile.TemporaryDirectory(prefix="florence_lab-") as folder:
        notebook = write_notebook(Path(folder) / "explorer.ipynb", options.model_type)
        if options.is_public:
            os.environ[PUBLIC_PAGE] = options.model_type  # the kernels inherit it
        try:
            run_server(options, notebook, open_browser and not options.token)
        finally:
            os.environ.pop(PUBLIC_PAGE, None)


def write_notebook(path: Path, model_type: str) -> Path:
    """Write a notebook with one cell that displays the panel, and return its path."""
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "panel",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": f"import florence_lab\n\nflorence_lab.explore({model_type!r})",
    }
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}, "title": TITLE}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def _resolve_folder(model_type: str) -> str:
    """Return the absolute path of a checkpoint folder, and any other name as it is."""
    folder = Path(model_type).expanduser()
    return str(folder.resolve()) if folder.is_dir() else model_type
