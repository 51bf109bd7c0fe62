"""TODO"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .geometry import polygon_area, polygons_to_mask, polygons_to_xyxy
from .tasks import get_task

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv
    from PIL import Image
    from typing_extensions import Self

    from .geometry import Polygon


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """What every result has.

    Attributes:
        raw: the text as generated, location tokens and all, without `<s>`, `</s>` and `<pad>`.
        image_size: (width, height) of the image in pixels.
        task: the task token; empty for a free question.
        prompt: the sentence the model saw.
        phrase: the phrase, caption or region (as location tokens) that went into the prompt; empty where none.
        image: the picture that was asked about, for the overlay in a notebook; None if it isn't at hand.
    """

    raw: str
    image_size: tuple[int, int]
    task: str = ""
    prompt: str = ""
    phrase: str = ""
    image: Image.Image | None = field(default=None, repr=False)

    def _answer(self) -> Any:
        """The value in the form of the published `post_process_generation`."""
        raise TypeError(f"{type(self).__name__} is no result of a task")

    def _annotations(self) -> list[dict]:
        """COCO annotations without their ids."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """`{task token: answer}` in the form of the published `post_process_generation`, plus `scores` where known.

        A free question has no token: its key is the prompt.
        """
        return {self.task or self.prompt: self._answer()}

    def to_coco(self, image_id: int = 1, file_name: str = "") -> dict[str, list]:
        """A COCO dataset of this one image: `images`, `annotations` (with `score` where known), `categories`."""
        width, height = self.image_size
        annotations = self._annotations()
        labels = dict.fromkeys(a.pop("label") for a in annotations if "label" in a)
        category_ids = {label: i for i, label in enumerate(labels, start=1)}
        instance_labels = getattr(self, "labels", ())
        for i, annotation in enumerate(annotations):
            annotation |= {"id": i + 1, "image_id": image_id}
            if instance_labels:
                annotation["category_id"] = category_ids[instance_labels[i]]
        return {
            "images": [{"id": image_id, "file_name": file_name, "width": width, "height": height}],
            "annotations": annotations,
            "categories": [{"id": i, "name": label} for label, i in category_ids.items()],
        }

    def _repr_png_(self) -> bytes | None:
        """The overlay, which Jupyter shows when a result is the last line of a cell."""
        if self.image is None:
            return None
        from .visualization.overlay import to_png

        return to_png(self.image, self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Text(Result):
    """A caption, an answer, a category or the words in a picture.

    Attributes:
        text: the words alone; `raw` also holds the region that the region tasks echo behind them.
    """

    text: str

    def _answer(self) -> str:
        return self.raw.strip()  # the published form leaves location tokens in

    def _annotations(self) -> list[dict]:
        return [{"caption": self.text}]

    def to_supervision(self) -> sv.Detections:
        """No detections: a text has no instances."""
        sv = _supervision()

        return sv.Detections.empty()

    def to_dataframe(self) -> pd.DataFrame:
        """One row, one column `text`."""
        import pandas as pd

        return pd.DataFrame({"text": [self.text]})


@dataclass(frozen=True, eq=False, kw_only=True)
class _Instances(Result):
    """What results with instances share.

    Attributes:
        labels: N strings; empty ones where the model gave no name.
        scores: N float64 in 0..1, see `florence_lab.template.instance_score`; None where no probabilities are known,
            as in a ground truth or a parsed string.
    """

    labels: tuple[str, ...]
    scores: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, count: int) -> Self:
        """The first `count` instances; `raw` stays as it is."""
        return self._pick(range(min(count, len(self))))

    def above(self, score: float) -> Self:
        """The instances with at least this score (0..1); `raw` stays as it is.

        Raises:
            ValueError: if there are no scores.
        """
        if self.scores is None:
            raise ValueError(f"this {type(self).__name__} has no scores to compare with {score:g}")
        return self._pick(np.flatnonzero(self.scores >= score).tolist())

    def called(self, label: str) -> Self:
        """The instances with this very label, maybe none; `raw` stays as it is."""
        return self._pick([i for i, name in enumerate(self.labels) if name == label])

    def _pick(self, which: Sequence[int]) -> Self:
        """Some of the instances, by their indices."""
        values = {name: getattr(self, name, None) for name in ("labels", "scores", "boxes", "quads", "polygons")}
        picked = {
            name: value[list(which)] if isinstance(value, np.ndarray) else tuple(value[i] for i in which)
            for name, value in values.items()
            if value is not None and (name == "labels" or len(value))
        }
        return replace(self, **picked)

    def _with_scores(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer if self.scores is None else answer | {"scores": self.scores.tolist()}

    def _extents(self) -> np.ndarray:
        """N x 4 float64, the upright box around each instance."""
        raise TypeError(f"{type(self).__name__} has no instances")

    def _outlines(self) -> list[tuple[Polygon, ...]]:
        """The outlines of each instance, () where there is only a box."""
        raise TypeError(f"{type(self).__name__} has no instances")

    def _annotations(self) -> list[dict]:
        rows = []
        for i, (label, box, outlines) in enumerate(zip(self.labels, self._extents(), self._outlines(), strict=True)):
            x0, y0, x1, y1 = box.tolist()
            row = {
                "label": label,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": float(sum(map(polygon_area, outlines))) if outlines else (x1 - x0) * (y1 - y0),
                "segmentation": [polygon.ravel().tolist() for polygon in outlines],
                "iscrowd": 0,
            }
            rows.append(row if self.scores is None else row | {"score": float(self.scores[i])})
        return rows

    def to_supervision(self) -> sv.Detections:
        """As `supervision.Detections`: `xyxy`, `confidence`, `class_id`, `data["class_name"]`, and masks from polygons."""
        sv = _supervision()

        if not len(self):
            return sv.Detections.empty()
        names = list(dict.fromkeys(self.labels))
        outlines = self._outlines()
        return sv.Detections(
            xyxy=self._extents().astype(np.float32),
            mask=np.stack([polygons_to_mask(o, self.image_size) for o in outlines]) if all(outlines) else None,
            confidence=None if self.scores is None else self.scores.astype(np.float32),
            class_id=np.array([names.index(label) for label in self.labels]),
            data={"class_name": np.array(self.labels)},
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row per instance: `label`, `score` (where known), `x0`, `y0`, `x1`, `y1` in pixels."""
        import pandas as pd

        columns: dict[str, Any] = {"label": pd.Series(self.labels, dtype=str)}  # strings also where there are none
        if self.scores is not None:
            columns["score"] = self.scores
        return pd.DataFrame(columns | dict(zip(("x0", "y0", "x1", "y1"), self._extents().T, strict=True)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Boxes(_Instances):
    """Upright boxes, one per instance.

    Attributes:
        boxes: N x 4 float64, xyxy in pixels.
        polygons: per instance its outlines, () where the model gave a box only. Empty altogether unless
            `<OPEN_VOCABULARY_DETECTION>` answered with polygons; the box is then the extent of the outlines.
    """

    boxes: np.ndarray
    polygons: tuple[tuple[Polygon, ...], ...] = ()

    def _answer(self) -> dict[str, Any]:
        if get_task(self.task).result != "boxes_or_polygons":
            return self._with_scores({"bboxes": self.boxes.tolist(), "labels": list(self.labels)})
        outlines = self._outlines()
        plain = [i for i, o in enumerate(outlines) if not o]
        outlined = [i for i, o in enumerate(outlines) if o]
        answer = {
            "bboxes": self.boxes[plain].tolist(),
            "bboxes_labels": [self.labels[i] for i in plain],
            "polygons": [[p.ravel().tolist() for p in outlines[i]] for i in outlined],
            "polygons_labels": [self.labels[i] for i in outlined],
        }
        if self.scores is not None:
            answer |= {"scores": self.scores[plain].tolist(), "polygons_scores": self.scores[outlined].tolist()}
        return answer

    def _extents(self) -> np.ndarray:
        return self.boxes

    def _outlines(self) -> list[tuple[Polygon, ...]]:
        return list(self.polygons) if self.polygons else [()] * len(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Quads(_Instances):
    """Text with its quad boxes.

    Attributes:
        quads: N x 4 x 2 float64: the corners (x, y) in pixels, clockwise from the text's own top left.
    """

    quads: np.ndarray

    def _answer(self) -> dict[str, Any]:
        return self._with_scores({"quad_boxes": self.quads.reshape(-1, 8).tolist(), "labels": list(self.labels)})

    def _extents(self) -> np.ndarray:
        return np.concatenate([self.quads.min(axis=1), self.quads.max(axis=1)], axis=1)

    def _outlines(self) -> list[tuple[Polygon, ...]]:
        return [(quad,) for quad in self.quads]


@dataclass(frozen=True, eq=False, kw_only=True)
class Polygons(_Instances):
    """Outlines.

    Attributes:
        polygons: per instance one or more outlines (an object that is partly hidden may fall into pieces).
    """

    polygons: tuple[tuple[Polygon, ...], ...]

    def _answer(self) -> dict[str, Any]:
        flat = [[p.ravel().tolist() for p in outlines] for outlines in self.polygons]
        return self._with_scores({"polygons": flat, "labels": list(self.labels)})

    @cached_property
    def masks(self) -> np.ndarray:
        """N x H x W bool: the pixels whose centre lies within an outline."""
        width, height = self.image_size
        masks = [polygons_to_mask(outlines, self.image_size) for outlines in self.polygons]
        return np.stack(masks) if masks else np.zeros((0, height, width), bool)

    def _extents(self) -> np.ndarray:
        return np.array([polygons_to_xyxy(outlines) for outlines in self.polygons]).reshape(-1, 4)

    def _outlines(self) -> list[tuple[Polygon, ...]]:
        return list(self.polygons)


def _supervision() -> ModuleType:
    """The package. Imported without OpenCV, which we need for nothing, it warns that it has ways around it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="OpenCV")
        import supervision

    return supervision
