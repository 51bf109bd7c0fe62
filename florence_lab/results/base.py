"""`Result`, the fields and conversions that all results share, `Text`, and `to_coco` of many results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..argument_validation import validate_arguments, validate_fields
from ..exceptions import ArgumentError
from ..sources import import_supervision
from .numbering import number_classes

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

if not TYPE_CHECKING:
    # pdoc executes the block above, and importing supervision without OpenCV issues a warning
    Detections = Any
else:
    from supervision import Detections


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(ABC):
    """The fields that all results share.

    Attributes:
        raw: the generated text with location tokens, without `<s>`, `</s>` and `<pad>`.
        image_size: (width, height) of the image in pixels.
        task: the task token; empty for a free-form question.
        prompt: the text that the model read.
        phrase: the phrase, caption or region (as location tokens) in the prompt; empty if the task takes none.
        image: the image, for drawing in a notebook; None if it was not stored.
        truncated: whether the limit of length or time ended the answer before the model did.
    """

    raw: str
    image_size: tuple[int, int]
    task: str = ""
    prompt: str = ""
    phrase: str = ""
    image: Image.Image | None = field(default=None, repr=False)
    truncated: bool = False

    def __post_init__(self) -> None:
        validate_fields(self)

    def to_dict(self) -> dict[str, Any]:
        """Return `{task token: answer}` as the published `post_process_generation` does, plus `scores` if they are known.

        The key of a free-form question is the prompt.
        """
        return {self.task or self.prompt: self._to_florence()}

    @validate_arguments
    def to_coco(self, image_id: int = 1, file_name: str = "", classes: Sequence[str] | None = None) -> dict[str, list]:
        """Return a COCO dataset of this image, see `to_coco` of the package for many.

        Args:
            image_id: id of the image.
            file_name: file name of the image.
            classes: names of the categories with the ids 1, 2, …; by default the labels of this result.

        Raises:
            ValueError: if a label is not in `classes`.
        """
        return to_coco([self], [file_name], classes, first_image_id=image_id)

    @validate_arguments
    def to_supervision(self, classes: Sequence[str] | None = None) -> Detections:
        """Return `supervision.Detections`; empty for a text."""
        return import_supervision().Detections.empty()

    @abstractmethod
    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame with a row for each instance, or one row for a text."""

    @abstractmethod
    def _to_florence(self) -> Any:
        """Return the answer in the form of the published `post_process_generation`."""

    @abstractmethod
    def coco_annotations(self) -> list[dict[str, Any]]:
        """Return COCO annotations without ids, with the class name in the field `label`."""

    @property
    def class_names(self) -> np.ndarray:
        """N strings: the name of the class of each instance; none for a text."""
        return np.zeros(0, dtype=str)

    def class_numbers(self) -> Mapping[str, int] | None:
        """Return class name -> id for a result that numbers its classes, and for a text; None for any other."""
        return {}

    def _repr_png_(self) -> bytes | None:
        """Return the overlay as a PNG file, which Jupyter displays for the last expression of a cell."""
        if self.image is None:
            return None
        from ..visualization.overlay import to_png

        return to_png(self.image, self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Text(Result):
    """A caption, an answer, a category or the text in an image.

    Attributes:
        text: the text without location tokens. `raw` contains the region that the region tasks repeat.
    """

    text: str

    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame of one row and one column, `text`."""
        import pandas as pd

        return pd.DataFrame({"text": [self.text]})

    def _to_florence(self) -> str:
        return self.raw.strip()  # the published form contains location tokens

    def coco_annotations(self) -> list[dict[str, Any]]:
        """Return the caption."""
        return [{"caption": self.text}]


@validate_arguments
def to_coco(
    results: Sequence[Result],
    file_names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    first_image_id: int = 1,
) -> dict[str, list]:
    """Return one COCO dataset of many results: `images`, `annotations` (with `score` if known), `categories`.

    Args:
        results: one for each image.
        file_names: file names of the images; empty by default.
        classes: names of the categories with the ids 1, 2, …; by default those of `Boxes.classes` if all results were asked
            for the same, or else the labels of all results, in the order of their first occurrence.
        first_image_id: id of the first image; the following ones count up.

    Raises:
        ValueError: if a label is not in `classes`, or for another number of file names than of results.

    Example:
        >>> Path("coco.json").write_text(json.dumps(to_coco(results, file_names)))
    """
    if file_names is not None and len(file_names) != len(results):
        raise ArgumentError(f"{len(results)} results, but {len(file_names)} file names")
    ids = {name: i + 1 for name, i in number_classes(results, classes).items()}
    dataset: dict[str, list] = {"images": [], "annotations": [], "categories": []}
    for i, result in enumerate(results):
        image_id, (width, height) = first_image_id + i, result.image_size
        file_name = file_names[i] if file_names is not None else ""
        dataset["images"].append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for annotation in result.coco_annotations():
            annotation |= {"id": len(dataset["annotations"]) + 1, "image_id": image_id}
            if "label" in annotation:
                annotation["category_id"] = ids[annotation.pop("label")]
            dataset["annotations"].append(annotation)
    dataset["categories"] = [{"id": i, "name": name} for name, i in ids.items()]
    return dataset
