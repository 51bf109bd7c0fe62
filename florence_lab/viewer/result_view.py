"""Results under a cell of a notebook: interactive, and as a picture where there are no widgets."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Annotated, Any

from IPython import get_ipython
from PIL import Image

from ..argument_validation import Range, validate_arguments
from ..exceptions import ArgumentError, shorten
from ..results import Instances, Result
from ..tasks import get_task
from .files import DownloadFile, draw_results, file_choices, make_file
from .picture import make_picture, read_once
from .records import Styles, answer_record
from .threshold import filter_result
from .widget import Viewer

_PNG = "image/png"


@validate_arguments
def view(
    result: Result | Sequence[Result],
    other: Result | None = None,
    *,
    image: Any = None,
    names: Sequence[str] | None = None,
) -> ResultView:
    """Return an interactive view of a result, which Jupyter displays as the last expression of a cell.

    The pointer highlights an instance together with its row in the list and its tokens in the generated text. A click selects
    it, a slider hides instances with a low score, Ctrl and the wheel zoom. The selected instances can be used in the next cell.
    Sites that show notebooks without widgets show the drawing of `florence_lab.visualization.to_png` instead. The results stay in
    memory until `close` is called, also if the cell is run again.

    Args:
        result: a result with its image, or several results about one image, such as those of `Predictor.predict_tasks`, of
            which one is shown at a time.
        other: a second result about the same image, shown beside the first one: of another model, or the ground truth.
        image: any source of `load_image`; by default the image of the result. It may be a smaller or larger version of it.
        names: a name for each result, as of models; two results are called A and B by default.

    Raises:
        ArgumentError: if there is no result or no image, if the results are about images of different sizes, or for another
            number of names than of results.
        ImageError: for an image that cannot be read.

    Example:
        >>> seen = florence_lab.view(predictor.predict("sheep.png", "<OD>"))
        >>> seen
        >>> seen.selected.to_dataframe()  # in another cell, after some clicks
        >>> florence_lab.view(result, ground_truth, names=["prediction", "ground truth"])
    """
    is_list = not isinstance(result, Result)
    results = list(result) if isinstance(result, Sequence) else [result]
    if other is not None:
        if is_list:
            raise ArgumentError("other is compared with one result, but result is a list; pass view(result, other)")
        results.append(other)
    if not results:
        raise ArgumentError("there is nothing to view: the list of results is empty")
    if names is None:
        names = ["A", "B"] if other is not None else [""] * len(results)
    if len(names) != len(results):
        raise ArgumentError(f"{len(results)} results, but {len(names)} names: {shorten(names)}")
    loaded = _find_image(results, image)
    arrangement = "compare" if other is not None else "tasks" if len(results) > 1 else "single"
    complete = [replace(each, image=loaded) for each in results]
    return ResultView(complete, list(names), arrangement, _image_name(image))


class ResultView:
    """Results about one image as `view` shows them.

    Attributes:
        results: all results, unfiltered.
        names: the name of each.
        viewer: the widget, to be placed in boxes of ipywidgets.
    """

    def __init__(self, results: Sequence[Result], names: Sequence[str], arrangement: str, image_name: str) -> None:
        """Create a view; `view` checks its arguments. All results have the same image, of their size or a multiple of it."""
        self.results = tuple(results)
        self.names = tuple(names)
        self._image_name = image_name
        width, height = results[0].image_size
        picture = replace(make_picture(results[0].image, image_name), width=width, height=height)
        shared: Styles = {}
        answers = [
            # two results that are compared have the same colors for the same labels
            answer_record(each, id=i, image=image_name, model=name, styles=shared if arrangement == "compare" else None)
            for i, (each, name) in enumerate(zip(results, names, strict=True))
        ]
        compared = self.names if arrangement == "compare" else ()
        self._compared = compared
        self.viewer = Viewer(
            answers=answers,
            arrangement=arrangement,
            phase="done",
            files=file_choices(results, compared),
            make_file=self._make_file,
        )
        self.viewer.show_picture(picture)

    @property
    def threshold(self) -> float:
        """The least score of the instances shown, 0..1: the position of the slider, which setting it moves."""
        return float(self.viewer.threshold)

    @threshold.setter
    @validate_arguments
    def threshold(self, value: Annotated[float, Range(0, 1)]) -> None:
        self.viewer.threshold = value

    @property
    def result(self) -> Result:
        """The result that is shown, or of two the one that was clicked last, without the instances below the threshold."""
        return filter_result(self._active, self.threshold)

    @property
    def selected(self) -> Result:
        """The instances that were clicked, in the order of the result; a text as it is."""
        active = self._active
        if not isinstance(active, Instances):
            return active
        return active[[i for i in sorted(set(self.viewer.selected)) if 0 <= i < len(active)]]

    def to_png(self) -> bytes:
        """Return the drawing of all results, without the instances below the threshold, as a PNG file."""
        return draw_results(self._filtered(), self._compared).to_png()

    def close(self) -> None:
        """Remove the widget from the page, and free its memory."""
        self.viewer.close()

    @property
    def _active(self) -> Result:
        return self.results[min(self.viewer.active, len(self.results) - 1)]

    def _filtered(self) -> list[Result]:
        return [filter_result(result, self.threshold) for result in self.results]

    def _make_file(self, file_id: str) -> DownloadFile:
        tasks = dict.fromkeys(result.task.strip("<>") or "question" for result in self.results)
        stem = "-".join([PurePath(self._image_name).stem or "image", *(tasks if len(tasks) == 1 else ())])
        models = self.names if any(self.names) else ()
        return make_file(file_id, self._filtered(), stem=stem, image_name=self._image_name, models=models)

    def __repr__(self) -> str:
        shown = ", ".join(result.task or get_task("").name for result in self.results)
        return f"<view of {shown}>"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the widget, and a picture for sites without widgets."""
        bundle = self.viewer._repr_mimebundle_()
        assert bundle is not None  # it is for widgets without a view
        data, metadata = bundle
        data["text/plain"] = repr(self)
        if _shows_images():
            data[_PNG] = base64.b64encode(self.to_png()).decode()
        return data, metadata


def _shows_images() -> bool:
    """Whether images can be displayed: not in a terminal."""
    shell = get_ipython()
    return shell is None or _PNG in shell.display_formatter.active_types


def _find_image(results: Sequence[Result], image: Any) -> Image.Image:
    sizes = list(dict.fromkeys(result.image_size for result in results))
    if len(sizes) > 1:
        shown = " and ".join(f"{width} x {height}" for width, height in sizes)
        raise ArgumentError(f"the results are about images of different sizes: {shown} pixels")
    if image is None:
        image = next((result.image for result in results if result.image is not None), None)
    if image is None:
        raise ArgumentError("the result has no image; pass it as view(result, image=…)")
    loaded = read_once(image)
    (width, height), (own_width, own_height) = sizes[0], loaded.size
    scale = max(own_width / width, own_height / height)
    if max(abs(own_width - width * scale), abs(own_height - height * scale)) > 1:
        raise ArgumentError(
            f"the image has {own_width} x {own_height} pixels, but the result is about one of {width} x {height}"
        )
    return loaded


def _image_name(image: Any) -> str:
    """Return the file name of an image given by its path or URL; "" for others."""
    if isinstance(image, str) and image.startswith("data:"):
        return ""
    return PurePath(str(image).split("?")[0]).name if isinstance(image, (str, os.PathLike)) else ""
