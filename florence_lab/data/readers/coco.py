"""COCO annotation files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from ...exceptions import DatasetError, shorten, warn
from ..rows import InvalidRow, RowError
from ..spec import DatasetSpec
from .annotated import AnnotatedImage, AnnotatedObject, AnnotatedReader
from .base import choose
from .boxes import is_finite, read_box
from .files import image_folder, location_path, read_json, resolve_image
from .masks import read_segmentation

SECTIONS = ("images", "annotations", "categories")
"""The lists of a COCO file."""


class CocoReader(AnnotatedReader):
    """Rows of a file with instances, or of one with captions (`captions_*.json`).

    Crowd regions (`iscrowd`) cover several objects at once and are skipped. Images without annotations give no rows: in many
    files they are just not annotated. `empty=ask` takes them for images without objects, as pycocotools does.
    """

    options: ClassVar[Mapping[str, str]] = {
        "tasks": "task tokens, separated by commas (default: OD, or CAPTION for a file of captions)",
        "images": "folder of the images (default: the folder of the file)",
        "empty": "skip or ask: whether images without annotations contain nothing (default: skip)",
    }

    def __init__(self, spec: DatasetSpec) -> None:
        super().__init__(spec)
        self.path = location_path(spec, "coco:annotations.json")
        self.folder = image_folder(spec) or self.path.parent
        self.asks_empty = choose(spec, "empty", ("skip", "ask")) == "ask"

    @cached_property
    def _data(self) -> dict[str, Any]:
        data = read_json(self.path)
        annotations = data.get("annotations") if isinstance(data, dict) else None
        sections = SECTIONS[:2] if is_caption_file(annotations) else SECTIONS
        if not isinstance(data, dict) or not all(isinstance(data.get(section), list) for section in sections):
            raise DatasetError(f"{self.path} is not a COCO file: it lacks a list of {', '.join(SECTIONS)}")
        return data

    @property
    def has_captions(self) -> bool:
        """Whether the file has captions of images in place of instances."""
        return is_caption_file(self._data["annotations"])

    def read(self) -> Iterator[AnnotatedImage | RowError]:
        """Yield the images with annotations. Warn of those without."""
        file = _CocoFile(self.path, self.folder, self._data, self.has_captions, self.asks_empty)
        yield from file.errors
        yield from file.images()
        if file.num_empty and not self.asks_empty:
            warn(f"{self.path}: {file.num_empty} of {file.num_images} images have no annotations and give no rows")


def is_caption_file(annotations: Any) -> bool:
    """Return whether annotations are captions of images: those of `captions_train2017.json` have no boxes."""
    if not isinstance(annotations, list):
        return False
    entries = [entry for entry in annotations if isinstance(entry, dict)]
    has_captions = any("caption" in entry for entry in entries)
    return has_captions and not any("bbox" in entry or "category_id" in entry for entry in entries)


class _CocoFile:
    """The valid images, categories and annotations of a file, and the errors of the others.

    pycocotools' index is not used: it stops at the first entry that lacks an id.
    """

    def __init__(self, path: Path, folder: Path, data: Mapping[str, Any], has_captions: bool, asks_empty: bool) -> None:
        self.asks_empty = asks_empty and not has_captions
        self.path, self.folder, self.has_captions = path, folder, has_captions
        self.errors: list[RowError] = []
        self.num_empty, self.num_images = 0, len(data["images"])
        self._images = self._index(data["images"], "image", ("file_name",))
        categories = self._index(data.get("categories") or [], "category", ("name",))
        self._categories = {id_: category["name"] for id_, category in categories.items()}
        self._stated_images = _ids(data["images"])
        self._stated_categories = _ids(data.get("categories") or [])
        self._annotations: defaultdict[Any, list[dict[str, Any]]] = defaultdict(list)
        seen: set[Any] = set()
        for annotation in data["annotations"]:
            if self._is_entry(annotation, "annotation", seen, ("image_id",)):
                self._annotations[annotation["image_id"]].append(annotation)
        for image_id in self._annotations.keys() - self._stated_images:
            for annotation in self._annotations[image_id]:
                self.errors.append(RowError(self._source(annotation), "unknown image_id", shorten(image_id)))

    def images(self) -> Iterator[AnnotatedImage]:
        """Yield the images that have annotations; all of them with `asks_empty`."""
        for id_, image in self._images.items():
            annotations = self._annotations.get(id_, [])
            self.num_empty += not annotations
            if annotations or self.asks_empty:
                yield self._to_image(image, annotations)

    def _to_image(self, image: Mapping[str, Any], annotations: list[dict[str, Any]]) -> AnnotatedImage:
        source = f"{self.path}, image {image['id']}"
        objects: list[AnnotatedObject] = []
        captions: list[str] = []
        errors: list[RowError] = []
        try:
            size, file = _read_size(image), resolve_image(image["file_name"], self.folder)
        except InvalidRow as error:
            return AnnotatedImage(None, source, errors=[error.at(source)])
        for annotation in annotations:
            try:
                if self.has_captions:
                    captions.append(_read_caption(annotation))
                elif not annotation.get("iscrowd"):
                    objects += self._to_object(annotation, size)
            except InvalidRow as error:
                errors.append(error.at(self._source(annotation)))
        is_empty = self.asks_empty and not objects
        return AnnotatedImage(file, source, objects, captions, size, errors=errors, is_empty=is_empty)

    def _to_object(self, annotation: Mapping[str, Any], size: tuple[int, int] | None) -> list[AnnotatedObject]:
        """Return the object of an annotation; none if its category is an error already.

        Raises:
            InvalidRow: if a field is missing or malformed.
        """
        missing = [key for key in ("category_id", "bbox") if key not in annotation]
        if missing or not _is_id(annotation["category_id"]):
            raise InvalidRow("missing or invalid fields", ", ".join(missing or ["category_id"]))
        category_id = annotation["category_id"]
        if category_id not in self._stated_categories:
            raise InvalidRow("unknown category_id", shorten(category_id))
        x, y, width, height = read_box(annotation["bbox"], "x, y, width, height")
        caption = annotation.get("caption")
        if caption is not None and not (isinstance(caption, str) and caption.strip()):
            raise InvalidRow("missing or invalid fields", f"caption is {shorten(caption)}, not text")
        if category_id not in self._categories:
            return []
        return [
            AnnotatedObject(
                self._categories[category_id],
                (x, y, x + width, y + height),
                self._source(annotation),
                caption,
                partial(read_segmentation, annotation.get("segmentation"), size),
            )
        ]

    def _source(self, annotation: Mapping[str, Any]) -> str:
        return f"{self.path}, image {shorten(annotation['image_id'])}, annotation {shorten(annotation['id'])}"

    def _index(self, entries: list[Any], kind: str, texts: tuple[str, ...]) -> dict[Any, dict[str, Any]]:
        """Return id -> entry. Entries without an id or without some texts are errors, and so are repeated ids."""
        seen: set[Any] = set()
        valid = (entry for entry in entries if self._is_entry(entry, kind, seen, (), texts))
        return {entry["id"]: entry for entry in valid}

    def _is_entry(
        self, entry: Any, kind: str, seen: set[Any], ids: tuple[str, ...] = (), texts: tuple[str, ...] = ()
    ) -> bool:
        """Return whether an entry has ids and texts, and an id that no entry before it has; else record an error."""
        is_object = isinstance(entry, dict)
        missing = [key for key in ("id", *ids) if not is_object or not _is_id(entry.get(key))]
        missing += [key for key in texts if not is_object or not _is_text(entry.get(key))]
        if missing:
            name = f"that is {shorten(entry)}"
            if is_object:
                name = shorten(entry["id"]) if "id" in entry else "without an id"
            self.errors.append(RowError(f"{self.path}, {kind} {name}", "missing or invalid fields", ", ".join(missing)))
        elif entry["id"] in seen:
            self.errors.append(RowError(f"{self.path}, {kind} {shorten(entry['id'])}", "repeated id"))
        else:
            seen.add(entry["id"])
            return True
        return False


def _ids(entries: list[Any]) -> set[Any]:
    """Return the ids of all entries, valid or not: what refers to an invalid one is not an error of its own."""
    return {entry["id"] for entry in entries if isinstance(entry, dict) and _is_id(entry.get("id"))}


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or is_finite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _read_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the stated (width, height); None unless both are there."""
    width, height = image.get("width"), image.get("height")
    if width is None or height is None:
        return None
    for name, side in (("width", width), ("height", height)):
        if not is_finite(side) or side < 1 or side != int(side):
            raise InvalidRow("invalid image size", f"{name} is {shorten(side)}")
    return int(width), int(height)


def _read_caption(annotation: Mapping[str, Any]) -> str:
    caption = annotation.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        raise InvalidRow("missing or invalid fields", f"caption is {shorten(caption)}, not text")
    return caption.strip()
