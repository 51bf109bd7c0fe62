"""`florence-lab explore`: the panel as a web page, served by Voilà."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

_NUM_PORTS = 2**16


def serve(model_type: str = "florence-2-nano", port: int = 8866, open_browser: bool = True) -> None:
    """Serve the panel on this machine until the process is interrupted. Each visitor has a kernel.

    Args:
        model_type: as for `explore`.
        port: 0..65535. If it is taken, Voilà uses the next free one and prints it.
        open_browser: open the page in a browser.

    Raises:
        ValueError: for a port that is out of range.
        RuntimeError: if Voilà is not installed.
    """
    if not 0 <= port < _NUM_PORTS:
        raise ValueError(f"port must be 0 to {_NUM_PORTS - 1}, got {port}")
    try:
        from voila.app import Voila
    except ImportError as error:
        raise RuntimeError(
            f"explore needs Voilà ({error}): pip install voila, or call florence_lab.explore() in a notebook"
        ) from error
    with tempfile.TemporaryDirectory(prefix="florence_lab-") as folder:
        notebook = write_notebook(Path(folder) / "florence-2.ipynb", model_type)
        options = [f"--port={port}", "--Voila.ip=127.0.0.1", "--show_tracebacks=True"]
        Voila.launch_instance([str(notebook), *options, *([] if open_browser else ["--no-browser"])])


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
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path
