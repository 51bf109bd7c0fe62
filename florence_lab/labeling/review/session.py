"""`ReviewSession`: the objects of a labelled folder in the order of a review, and verdicts that are saved one by one."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...exceptions import ArgumentError, shorten, unknown_name
from ..assembly import Counts
from ..corrections import BY_PERSON, CorrectionStore, ImageReview, ReviewedObject
from ..labelled_folder import LabelledFile, LabelledFolder
from ..records import LabelledImage, LabelledObject

SHOWS = ("uncertain", "undecided", "decided", "all")
"""Which objects are listed. Uncertain ones lie between the two scores that `label(review=…)` was given."""

_MAX_UNDO = 1000
_MIN_SIDE = 1.0  # pixels


@dataclass(frozen=True)
class ReviewItem:
    """An object of a labelled folder.

    Attributes:
        id: identifies the object in its session: number of the image and of the object, as in "12.0".
        image: the name of the image.
        label: its class.
        box: (x0, y0, x1, y1) in pixels.
        polygons: its outlines, see `LabelledObject`.
        score: 0..1; 1 for a box or class by a person.
        found_by: see `LabelledObject`.
        verdict: one of `corrections.VERDICTS`.
        original_label: the class that the model gave; "" if a person has added the object.
        is_uncertain: whether it is to be looked at: between two scores, and without a verdict.
    """

    id: str
    image: str
    label: str
    box: tuple[float, float, float, float]
    polygons: tuple[tuple[float, ...], ...]
    score: float
    found_by: str
    verdict: str
    original_label: str
    is_uncertain: bool


@dataclass(frozen=True)
class _Change:
    """A change that can be taken back: the review of an image before."""

    number: int
    before: ImageReview
    item_id: str


class ReviewSession:
    """The objects of a labelled folder, and what a person says about them.

    A verdict is on disk when its method returns. The files of the dataset follow with `write_files`.

    Args:
        path: a folder that `label` has written.

    Attributes:
        folder: the folder.

    Raises:
        ArgumentError, DatasetError: as `LabelledFolder`.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = LabelledFolder(path)
        self._corrections = CorrectionStore(self.folder.path)
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._changes: list[_Change] = []
        self._items: list[list[ReviewItem]] = []
        self._names: list[str] = []
        self.files: list[LabelledFile] = self.folder.list_files()
        for number, row in enumerate(self.folder.store.read([file.place for file in self.files])):
            self._names.append(row.name)
            self._items.append(self._to_items(number, self._corrections.read(row, self.classes)))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.folder.layout.ontology.names

    @property
    def has_bounds(self) -> bool:
        """Whether uncertain objects were marked."""
        return self.folder.layout.review is not None

    @property
    def is_written(self) -> bool:
        """Whether the files of the dataset contain all verdicts."""
        return not self._corrections.pending

    @property
    def can_undo(self) -> bool:
        """Whether there is a change of this session to take back."""
        return bool(self._changes)

    def count(self) -> Counter[str]:
        """Return the number of objects by verdict, "" for those without; "uncertain" of those to be looked at."""
        items = [item for items in self._items for item in items]
        counts = Counter(item.verdict for item in items)
        counts["uncertain"] = sum(item.is_uncertain for item in items)
        return counts

    def list_items(self, show: str = "undecided", class_name: str | None = None) -> list[ReviewItem]:
        """Return objects, the least certain first.

        Args:
            show: one of `SHOWS`.
            class_name: a class; None for all.

        Raises:
            ArgumentError: for other values.
        """
        if show not in SHOWS:
            raise ArgumentError(unknown_name("show", shorten(show), SHOWS))
        if class_name is not None:
            self._check_class(class_name)
        wanted = {
            "uncertain": lambda item: item.is_uncertain,
            "undecided": lambda item: not item.verdict,
            "decided": lambda item: bool(item.verdict),
            "all": lambda item: True,
        }[show]
        found = (item for items in self._items for item in items)
        chosen = [item for item in found if wanted(item) and class_name in (None, item.label)]
        return sorted(chosen, key=lambda item: item.score)  # stable: images in their order

    def get(self, item: ReviewItem | str) -> ReviewItem:
        """Return an object as it is now.

        Raises:
            ArgumentError: for an object that there is not.
        """
        number, index = self._find(item)
        return self._items[number][index]

    def items_of(self, number: int) -> list[ReviewItem]:
        """Return the objects of an image, by its number from 0."""
        return list(self._items[number])

    def number_of(self, item: ReviewItem | str) -> int:
        """Return the number of the image of an object, from 0."""
        return self._find(item)[0]

    def find_image(self, image: int | str) -> int:
        """Return the number of an image that is given by its name or number.

        Raises:
            ArgumentError: if there is none, or several of the name.
        """
        if isinstance(image, str):
            found = [number for number, name in enumerate(self._names) if name == image]
            if len(found) != 1:
                many = f"{len(found)} images are called" if found else "there is no image"
                raise ArgumentError(f"{many} {shorten(image)}; give its number, 0 to {len(self._names) - 1}")
            return found[0]
        if not 0 <= image < len(self._names):
            raise ArgumentError(f"there are images 0 to {len(self._names) - 1}, got {shorten(image)}")
        return image

    def list_images(self, class_name: str | None = None) -> list[int]:
        """Return the numbers of images, those with the fewest objects first.

        Args:
            class_name: only images with an object of this class; None for all.
        """
        counts = {
            number: len(items)
            for number, items in enumerate(self._items)
            if class_name is None or any(item.label == class_name for item in items)
        }
        return sorted(counts, key=lambda number: counts[number])

    def name_of(self, number: int) -> str:
        """Return the name of an image."""
        return self._names[number]

    def path_of(self, number: int) -> Path:
        """Return the file of an image: its original, or the copy in the dataset if that is gone."""
        file = self.files[number]
        original = Path(file.source)
        row = self._read_row(number)
        if row.stored:
            original = self.folder.store.images / row.stored
        return original if original.is_file() else file.file

    def size_of(self, number: int) -> tuple[int, int]:
        """Return (width, height) of an image in pixels."""
        return self._read_row(number).size

    def accept(self, item: ReviewItem | str) -> ReviewItem:
        """State that class and box are right. What a person has given stays; a rejected object comes back."""
        return self._decide(item, _accept)

    def reject(self, item: ReviewItem | str) -> ReviewItem:
        """State that the object is not there. It leaves the dataset."""
        return self._decide(item, _reject)

    def rename(self, item: ReviewItem | str, label: str) -> ReviewItem:
        """Give an object another class. The same class accepts it.

        Raises:
            ArgumentError: for a class that there is not.
        """
        class_id = self._check_class(label)
        if self.get(item).label == label:
            return self.accept(item)
        return self._decide(item, lambda known: _change(known, class_id=class_id, label=label))

    def redraw(self, item: ReviewItem | str, box: Sequence[float]) -> ReviewItem:
        """Give an object another box, (x0, y0, x1, y1) in pixels, which is clipped to the image. Its outline is dropped.

        Raises:
            ArgumentError: for a box that has no area in the image.
        """
        clipped = self._clip(self.number_of(item), box)
        return self._decide(item, lambda known: _change(known, box=clipped, polygons=()))

    def add(self, number: int, label: str, box: Sequence[float]) -> ReviewItem:
        """Add an object that the model has missed.

        Args:
            number: the number of the image, from 0.
            label: its class.
            box: as for `redraw`.

        Raises:
            ArgumentError: for an image or class that there is not, and a box without area in the image.
        """
        class_id, clipped = self._check_class(label), self._clip(self.find_image(number), box)
        added = ReviewedObject(None, LabelledObject(class_id, label, clipped, 1.0, BY_PERSON), "added")
        with self._lock:
            review = self._read_review(number)
            index = len(review.objects)
            return self._save(number, review, review.set(index, added), index)

    def undo(self) -> ReviewItem | None:
        """Take back the last change of this session, and return its object; None if it is no more, or there was no change."""
        with self._lock:
            if not self._changes:
                return None
            change = self._changes.pop()
            self._corrections.write(change.before)
            self._items[change.number] = self._to_items(change.number, change.before)
            index = int(change.item_id.partition(".")[2])
            items = self._items[change.number]
            return items[index] if index < len(items) else None

    def write_files(self) -> Counts:
        """Write the files of the dataset with all verdicts.

        Raises:
            DatasetError: as `LabelledFolder.write_files`.
        """
        with self._writing:
            return self.folder.write_files()

    def _decide(self, item: ReviewItem | str, change: Callable[[ReviewedObject], ReviewedObject]) -> ReviewItem:
        number, index = self._find(item)
        with self._lock:
            review = self._read_review(number)
            return self._save(number, review, review.set(index, change(review.objects[index])), index)

    def _save(self, number: int, before: ImageReview, after: ImageReview, index: int) -> ReviewItem:
        item_id = f"{number}.{index}"
        if after != before:
            self._corrections.write(after)
            self._changes = [*self._changes[-_MAX_UNDO + 1 :], _Change(number, before, item_id)]
            self._items[number] = self._to_items(number, after)
        return self._items[number][index]

    def _read_row(self, number: int) -> LabelledImage:
        return next(self.folder.store.read([self.files[number].place]))

    def _read_review(self, number: int) -> ImageReview:
        return self._corrections.read(self._read_row(number), self.classes)

    def _to_items(self, number: int, review: ImageReview) -> list[ReviewItem]:
        needs_review = self.folder.layout.needs_review
        items = []
        for index, known in enumerate(review.objects):
            shown = known.shown
            items.append(
                ReviewItem(
                    f"{number}.{index}",
                    self._names[number],
                    shown.label,
                    shown.box,
                    shown.polygons,
                    shown.score,
                    shown.found_by,
                    known.verdict,
                    known.by_model.label if known.by_model else "",
                    not known.verdict and needs_review(shown.score),
                )
            )
        return items

    def _find(self, item: ReviewItem | str) -> tuple[int, int]:
        item_id = item.id if isinstance(item, ReviewItem) else item
        number, _, index = str(item_id).partition(".")
        if number.isdecimal() and index.isdecimal():
            found = int(number[:12]), int(index[:12])
            if found[0] < len(self._items) and found[1] < len(self._items[found[0]]):
                return found
        raise ArgumentError(f"there is no object {shorten(item_id)}; `list_items` gives those that there are")

    def _check_class(self, label: str) -> int:
        if label not in self.classes:
            raise ArgumentError(unknown_name("class", shorten(label)[1:-1], self.classes))
        return self.classes.index(label)

    def _clip(self, number: int, box: Sequence[float]) -> tuple[float, float, float, float]:
        width, height = self.size_of(number)
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise ArgumentError(f"box must be x0, y0, x1, y1 in pixels, got {shorten(box)}")
        x0, x1 = (round(min(max(float(x), 0), width), 3) for x in sorted((box[0], box[2])))
        y0, y1 = (round(min(max(float(y), 0), height), 3) for y in sorted((box[1], box[3])))
        if min(x1 - x0, y1 - y0) < _MIN_SIDE:
            raise ArgumentError(f"box must cover a pixel of the image of {width} x {height}, got {shorten(list(box))}")
        return x0, y0, x1, y1


def _accept(known: ReviewedObject) -> ReviewedObject:
    if known.verdict in ("changed", "added"):
        return known
    is_own = known.shown.found_by == BY_PERSON
    original = None if is_own else known.original
    return ReviewedObject(original, known.shown, "added" if is_own else "accepted")


def _reject(known: ReviewedObject) -> ReviewedObject:
    return ReviewedObject(known.original or known.current, None, "rejected")


def _change(known: ReviewedObject, **changes: Any) -> ReviewedObject:
    """The object with what a person has given: its score is 1, as nobody doubts it."""
    current = replace(known.shown, score=1.0, found_by=BY_PERSON, **changes)
    return ReviewedObject(known.by_model, current, "changed" if known.by_model else "added")
