"""`florence-lab explore`: the panel as a page of its own, through Voilà."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path


def serve(model_type: str = "florence-2-nano", port: int = 8866, open_browser: bool = True) -> None:
    """Serves the panel on this machine until it is interrupted, one kernel per visitor.

    Args:
        model_type: as for `explore`.
        port: 0..65535; Voilà takes the next free one if it is taken, and says which.
        open_browser: whether to open the page.

    Raises:
        ValueError: for a port out of range.
        RuntimeError: if Voilà is not installed.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"port {port}: give 0 to {2**16 - 1}")
    try:
        from voila.app import Voila
    except ImportError as error:
        raise RuntimeError(
            f"explore needs Voilà ({error}): pip install voila, or call florence_lab.explore() in a notebook"
        ) from error
    with tempfile.TemporaryDirectory(prefix="florence_lab-") as folder:
        notebook = write_notebook(Path(folder) / "florence-2.ipynb", model_type)
        settings = [f"--port={port}", "--Voila.ip=127.0.0.1", "--show_tracebacks=True"]
        Voila.launch_instance([str(notebook), *settings, *([] if open_browser else ["--no-browser"])])


def write_notebook(path: Path, model_type: str) -> Path:
    """A notebook of one cell that shows the panel."""
    cell = {
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
