"""The explorer: a panel that runs Florence-2 on images, in a notebook or as a web page.

`selections`, `questions`, `images`, `library`, `session`, `answer`, `history`, `predictor_cache`, `messages` and `worker` contain no
widgets. `bar`, with `image_menu` and `model_menu`, has the controls, which are ipywidgets. `presenter` shows answers in the
`Viewer`, and `panel` connects them. `page` serves the panel with Voilà, and `access` says what a page may open.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .panel import Explorer


def explore(model_type: str | Path = "florence-2-nano", image: Any = None, task: str = "<OD>") -> Explorer:
    """Return a panel that runs Florence-2 on an image. As the last expression of a cell it displays itself.

    The panel works in JupyterLab, Notebook 7, VS Code and Voilà. Errors, those in these arguments included, are shown in the
    panel, which stays usable. Running the cell again creates another panel; `close` frees the widgets, images and answers of one.

    Args:
        model_type: one of `available_models()`, a checkpoint folder or a hub id. The model is loaded at the first run.
        image: any source that `florence_lab.load_image` reads (path, URL, PIL image, array …); None is the first sample image.
        task: a task token; "" for a free-form question.

    Example:
        >>> explorer = florence_lab.explore(image="farm.png")
        >>> explorer
        >>> explorer.result, explorer.selected  # in the next cell: what is shown, and the instances that were clicked
        >>> explorer.task.value = "<OCR>"
        >>> explorer.run.click()
    """
    from .panel import Explorer
    from .predictor_cache import shared_cache

    return Explorer(model_type, image, task, shared_cache())
