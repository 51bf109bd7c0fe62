"""The folders of Pascal VOC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from ..records import LabelledObject
from .base import Entry, Writer


class VocWriter(Writer):
    """`JPEGImages/NAME.jpg`, `Annotations/NAME.xml` and the lists `ImageSets/Main/SPLIT.txt`; `classes.txt` has the class ids.

    Coordinates are whole pixels that count from 1, as VOC's own tools require: the box (1, 1, width, height) covers the whole
    image. Objects have a `score`, which others ignore.
    """

    @classmethod
    def top_level(cls, splits: Sequence[str]) -> tuple[str, ...]:
        """Return the names in the folder."""
        return ("Annotations", "ImageSets", "JPEGImages", "classes.txt")

    def start(self) -> None:
        """Create the folders and the lists."""
        for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (self.folder / name).mkdir(parents=True)
        self._lists = {
            split: (self.folder / f"ImageSets/Main/{split}.txt").open("w", encoding="utf-8") for split in self.splits
        }

    def add(self, entry: Entry) -> str:
        """Write the annotation file."""
        stem = PurePosixPath(entry.name).stem
        root = Element("annotation")
        _add_texts(root, folder="JPEGImages", filename=entry.name)
        _add_texts(SubElement(root, "source"), database="florence_lab")
        width, height = entry.image.size
        _add_texts(SubElement(root, "size"), width=width, height=height, depth=3)
        _add_texts(root, segmented=0)
        for item, review in zip(entry.image.objects, entry.review, strict=True):
            _add_object(root, item, review, entry.image.size)
        indent(root)
        ElementTree(root).write(self.folder / "Annotations" / f"{stem}.xml", encoding="utf-8")
        self._lists[entry.split].write(f"{stem}\n")
        return self.place_image(entry, f"JPEGImages/{entry.name}")

    def close(self) -> None:
        """Close the lists, and write the names of the classes."""
        for file in self._lists.values():
            file.close()
        (self.folder / "classes.txt").write_text("".join(f"{name}\n" for name in self.ontology.names), encoding="utf-8")


def _add_object(root: Element, item: LabelledObject, review: bool, size: tuple[int, int]) -> None:
    element = SubElement(root, "object")
    _add_texts(element, name=item.label, pose="Unspecified", truncated=0, difficult=0, occluded=0)
    x0, y0, x1, y1 = item.box
    xmin, ymin = (min(round(low) + 1, side) for low, side in zip((x0, y0), size, strict=True))
    xmax, ymax = max(round(x1), xmin), max(round(y1), ymin)  # at least one pixel
    _add_texts(SubElement(element, "bndbox"), xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
    for polygon in item.polygons:
        vertices = SubElement(element, "polygon")
        for number, (x, y) in enumerate(zip(polygon[::2], polygon[1::2], strict=True), start=1):
            _add_texts(vertices, **{f"x{number}": round(x + 1, 3), f"y{number}": round(y + 1, 3)})
    _add_texts(element, score=item.score, found_by=item.found_by, review=int(review))


def _add_texts(parent: Element, **texts: object) -> None:
    for name, text in texts.items():
        SubElement(parent, name).text = str(text)
