"""What people have said about labels: one file for each image, which the assembly of a dataset applies to the model's labels."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.readers.folders import PENDING_CORRECTIONS
from ..exceptions import DatasetError, shorten
from ..geometry import box_intersections
from ..output_files import write_text
from .records import LabelledImage, LabelledObject, read_object

VERDICTS = ("", "accepted", "rejected", "changed", "added")
"""What a person has said about an object; "" is nothing yet."""

BY_PERSON = "person"
"""`LabelledObject.found_by` of objects whose box or class a person has given. Their score is 1."""

_SAME_IOU = 0.5


@dataclass(frozen=True)
class ReviewedObject:
    """An object of an image, with what a person has said about it.

    Attributes:
        original: the object as the model gave it; None if a person has added it. Of an object that was added and then
            rejected, as the person gave it.
        current: the object as it is in the dataset; None if it was rejected.
        verdict: one of `VERDICTS`.
    """

    original: LabelledObject | None
    current: LabelledObject | None
    verdict: str = ""

    @property
    def by_model(self) -> LabelledObject | None:
        """The object as the model gave it; None if a person has added it."""
        return self.original if self.original is not None and self.original.found_by != BY_PERSON else None

    @property
    def shown(self) -> LabelledObject:
        """The object as it is, or as it was before it was rejected."""
        found = self.current or self.original
        assert found is not None
        return found

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary of JSON values."""
        return {
            "original": self.original and vars(self.original),
            "current": self.current and vars(self.current),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class ImageReview:
    """The objects of an image after a review. The ones without a verdict are as the model gave them.

    Attributes:
        key: see `LabelledImage.key`.
        signature: see `LabelledImage.signature`.
        objects: those of the model in its order, then those that were added.
    """

    key: str
    signature: str
    objects: tuple[ReviewedObject, ...]

    @classmethod
    def of(cls, row: LabelledImage) -> ImageReview:
        """Return the review of an image that nobody has looked at."""
        return cls(row.key, row.signature, tuple(ReviewedObject(item, item) for item in row.objects))

    def set(self, index: int, changed: ReviewedObject) -> ImageReview:
        """Return the review with another object in place of one, or at the end."""
        objects = [*self.objects]
        objects[index : index + 1] = [changed]
        return replace(self, objects=tuple(objects))


class CorrectionStore:
    """Reviews in a folder, one file for each image, which is written under another name and renamed.

    Reviews of an image do not apply when its file has changed since: they are about other pixels.

    Attributes:
        folder: the folder of the files.
    """

    def __init__(self, dataset: Path) -> None:
        self.folder = (dataset / PENDING_CORRECTIONS).parent
        self._pending = dataset / PENDING_CORRECTIONS

    def read(self, row: LabelledImage, names: Sequence[str]) -> ImageReview:
        """Return the review of an image. Labels that the model has given since are merged with what a person has said.

        Args:
            row: the model's labels.
            names: the classes; objects of other classes are left out.

        Raises:
            DatasetError: for a file that is damaged.
        """
        review = self._load(row.key)
        if review is None or review.signature != row.signature:
            return ImageReview.of(row)
        if tuple(item.by_model for item in review.objects if item.by_model) != row.objects:
            review = replace(review, objects=_merge(review.objects, row.objects))
        return replace(review, objects=tuple(_with_class_id(item, names) for item in review.objects))

    def write(self, review: ImageReview) -> None:
        """Save the review of an image, and mark the files of the dataset as out of date. One without a verdict is deleted.

        Raises:
            DatasetError: if it cannot be written; what was saved before stays.
        """
        path = self._path(review.key)
        content: dict[str, Any] = {"key": review.key, "signature": review.signature}
        content |= {"objects": [item.to_json() for item in review.objects]}
        try:
            if any(item.verdict for item in review.objects):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._mark_pending()
                write_text(path, json.dumps(content) + "\n")
            elif path.exists():
                self._mark_pending()
                path.unlink()
        except OSError as error:
            raise DatasetError(f"{path} cannot be written: {error.strerror or error}") from error

    @property
    def pending(self) -> str:
        """A word that differs after each change which is not in the files of the dataset; "" if all are."""
        try:
            return self._pending.read_text(encoding="utf-8")
        except OSError:
            return ""

    def clear_pending(self, seen: str) -> None:
        """State that the files of the dataset contain all changes up to a value of `pending`."""
        if seen and self.pending == seen:
            self._pending.unlink(missing_ok=True)

    def _mark_pending(self) -> None:
        write_text(self._pending, uuid.uuid4().hex)

    def _load(self, key: str) -> ImageReview | None:
        path = self._path(key)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
        try:
            row = json.loads(text)
            return ImageReview(row["key"], row["signature"], tuple(_read_reviewed(item) for item in row["objects"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{path} is damaged: {shorten(error)}; delete it to lose the review of {shorten(key, 200)}"
            ) from error

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:20]}.json"


def correct(row: LabelledImage, review: ImageReview) -> tuple[LabelledImage, tuple[str, ...]]:
    """Return the labels of an image after its review, and the verdict of each object, in descending order of scores."""
    kept = [(item.current, item.verdict) for item in review.objects if item.current is not None]
    kept.sort(key=lambda pair: -pair[0].score)
    return replace(row, objects=tuple(item for item, _ in kept)), tuple(verdict for _, verdict in kept)


def _read_reviewed(row: dict[str, Any]) -> ReviewedObject:
    original, current = (read_object(row[name]) if row[name] else None for name in ("original", "current"))
    if row["verdict"] not in VERDICTS or (original is None and current is None):
        raise ValueError(f"the verdict {shorten(row['verdict'])}")
    return ReviewedObject(original, current, row["verdict"])


def _merge(reviewed: Sequence[ReviewedObject], found: Sequence[LabelledObject]) -> tuple[ReviewedObject, ...]:
    """What a person has said about earlier labels, and the new labels of which no verdict tells.

    A verdict tells of a new object with the same class and about the same place as the object before or after the verdict.
    """
    decided = [item for item in reviewed if item.verdict]
    open_objects = list(found)
    merged = []
    for item in decided:
        known = [side for side in (item.original, item.current) if side is not None]
        match = next((new for new in open_objects if any(_are_same(new, side) for side in known)), None)
        if match is not None:
            open_objects.remove(match)
            merged.append(replace(item, original=match))
        elif item.current is not None:
            merged.append(replace(item, original=None))
    order = {id(item): i for i, item in enumerate(found)}
    merged += [ReviewedObject(item, item) for item in open_objects]
    merged.sort(key=lambda item: order.get(id(item.original), len(found)))
    return tuple(merged)


def _are_same(a: LabelledObject, b: LabelledObject) -> bool:
    if a.label != b.label:
        return False
    first, second = np.array([a.box]), np.array([b.box])
    common = float(box_intersections(first, second)[0, 0])
    areas = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a.box, b.box))
    return common >= _SAME_IOU * max(areas - common, 1e-9)


def _with_class_id(item: ReviewedObject, names: Sequence[str]) -> ReviewedObject:
    """The object with the class id that its label has now. One of a class that is no more is as if it were rejected."""
    if item.current is None or not item.verdict:
        return item
    if item.current.label not in names:
        return replace(item, current=None, original=item.original or item.current)
    return replace(item, current=replace(item.current, class_id=list(names).index(item.current.label)))
