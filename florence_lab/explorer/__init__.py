"""The explorer: a panel of ipywidgets for asking Florence-2 about a picture, in a notebook or as a page of its own.

What it does stands in `work.py`, which knows no widgets; `markup.py` writes the HTML; `region.py` and `answer.py` are its two
larger parts, and `panel.py` puts all together. `page.py` serves it through Voilà.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .panel import Explorer


def explore(model_type: str | Path = "florence-2-nano", image: Any = None, task: str = "<OD>") -> Explorer:
    """A panel to ask Florence-2 about a picture; as the last line of a cell it shows itself.

    It works in JupyterLab, Notebook 7, VS Code and Voilà. Whatever is wrong, with these arguments too, it says in one line of
    its own, and stays usable.

    Args:
        model_type: a name in `available_models()`, a checkpoint folder or the id of a model on a hub; loaded at the first Run.
        image: whatever `florence_lab.load_image` takes (path, URL, PIL image, array …); None is the first sample picture.
        task: a task token, or "" for a question in your own words.
    """
    from .panel import Explorer

    return Explorer(str(model_type), image, task)
