"""The files of answers that a user downloads: the drawing, the answer as JSON, and COCO annotations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..exceptions import ArgumentError, shorten
from ..results import Boxes, Result
from .records import Styles, number_styles

if TYPE_CHECKING:
    from ..visualization.figures import NotebookFigure

_GALLERY_COLUMNS = 4  # the eight tasks without input fill two rows

_DRAWINGS = {
    "png": ("PNG", "image/png"),
    "svg": ("SVG", "image/svg+xml"),
    "pdf": ("PDF", "application/pdf"),
}
"""Extension -> label and MIME type. `NotebookFigure.to_png` and so on write them."""

_JSON = "application/json"


class DownloadFile(NamedTuple):
    """A file that the browser saves.

    Attributes:
        name: its file name.
        mime_type: its MIME type.
        content: its bytes.
    """

    name: str
    mime_type: str
    content: bytes


def file_choices(results: Sequence[Result], names: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return the files that results can be downloaded as, for `Viewer.files`: dicts with `id` and `label`.

    COCO annotations are offered for one result, and for each of two that are compared.

    Args:
        results: the results about one image; none have no files.
        names: two different names tell that two results are compared.
    """
    if not results:
        return []
    choices = {key: label for key, (label, _) in _DRAWINGS.items()} | {"json": "JSON"}
    if len(results) == 1:
        choices["coco"] = "COCO"
    elif _are_compared(results, names):
        choices |= {f"coco-{i}": f"COCO ({name})" for i, name in enumerate(names)}
    return [{"id": key, "label": label} for key, label in choices.items()]


def make_file(
    file_id: str, results: Sequence[Result], *, stem: str, image_name: str = "", models: Sequence[str] = ()
) -> DownloadFile:
    """Return a file of one result, or of several about one image. Any thread may call it.

    Args:
        file_id: the `id` of one of the `file_choices`.
        results: the results with their image, as they are to be in the file.
        stem: the stem of the file name.
        image_name: the name of the image, for JSON and COCO.
        models: the name of the model of each result; one name, or none, for all.

    Raises:
        ArgumentError: for another id.
    """
    if file_id in _DRAWINGS and results:
        figure = draw_results(results, models)
        content = getattr(figure, f"to_{file_id}")()
        return DownloadFile(f"{stem}.{file_id}", _DRAWINGS[file_id][1], content)
    if file_id == "json" and results:
        return DownloadFile(f"{stem}.json", _JSON, _to_json(_as_json(results, image_name, models)))
    numbers = {"coco": 0} | {f"coco-{i}": i for i in range(len(results))}
    if file_id in numbers and results:
        coco = results[numbers[file_id]].to_coco(file_name=image_name)
        return DownloadFile(f"{stem}-{file_id}.json", _JSON, _to_json(coco))
    raise ArgumentError(f"no file {shorten(file_id)} of {len(results)} results")


def draw_results(results: Sequence[Result], names: Sequence[str] = ()) -> NotebookFigure:
    """Return the figure of one result, or a gallery of several.

    Args:
        results: at least one, with its image.
        names: two different names are the titles of two results that are compared; others are titled with their task.
    """
    from ..visualization.gallery import (
        gallery,  # matplotlib takes a while to import, and a viewer needs it for files only
    )
    from ..visualization.overlay import draw_figure

    if len(results) == 1:
        return draw_figure(results[0].image, results[0])
    titles = None
    if _are_compared(results, names):
        results, titles = _with_common_styles(results), list(names)
    return gallery([(result.image, result) for result in results], _GALLERY_COLUMNS, titles)


def _are_compared(results: Sequence[Result], names: Sequence[str]) -> bool:
    """Whether results are two answers to be compared, and not answers to several tasks of one model."""
    return len(results) == len(names) == len(set(names)) == 2


def _with_common_styles(results: Sequence[Result]) -> list[Result]:
    """Return results whose boxes have the same color where they have the same label: that of their class id."""
    styles: Styles = {}
    return [
        replace(result, class_ids=np.array(number_styles(result, styles), int), classes=())
        if isinstance(result, Boxes)
        else result
        for result in results
    ]


def _as_json(results: Sequence[Result], image_name: str, models: Sequence[str]) -> dict[str, Any]:
    content: dict[str, Any] = {"image": {"name": image_name, "size": results[0].image_size}}
    if len(models) == 1:
        content = {"model": models[0]} | content
    answers = [_result_record(result) for result in results]
    if len(answers) == 1:
        return content | answers[0]
    if len(models) == len(results):
        answers = [{"model": model} | answer for model, answer in zip(models, answers, strict=True)]
    return content | {"answers": answers}


def _result_record(result: Result) -> dict[str, Any]:
    fields = {name: getattr(result, name) for name in ("task", "phrase", "prompt", "raw")}
    return fields | {"result": result.to_dict()}


def _to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()
