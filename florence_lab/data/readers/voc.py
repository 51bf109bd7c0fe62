"""Folders in the format of Pascal VOC: an XML file for each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...exceptions import DatasetError, shorten
from ..rows import InvalidRow, RowError
from ..spec import DatasetSpec
from .annotated import AnnotatedImage, AnnotatedObject, AnnotatedReader
from .boxes import read_box
from .files import image_extensions, image_folder, is_file, is_folder, list_names, location_path, read_bytes, read_lines

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_XML_BYTES = 2**24
"""Largest annotation file that is parsed. Those of VOC have about a kilobyte."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocReader(AnnotatedReader):
    """Rows of a Pascal VOC dataset.

    XML files are read from `Annotations`, or from anywhere below the folder; images from `JPEGImages`, or from beside the
    XML files. Coordinates count pixels from 1, so that the box (1, 1, width, height) covers the whole image. An image whose
    file lists no object has nothing in it. (supervision's reader opens all images, and stops at the first faulty file.)
    """

    options: ClassVar[Mapping[str, str]] = {
        **AnnotatedReader.options,
        "split": "a list in ImageSets/Main, or a subfolder (default: all XML files)",
        "images": "folder of the images (default: JPEGImages, else the folder of the XML file)",
    }

    def __init__(self, spec: DatasetSpec) -> None:
        super().__init__(spec)
        self.path, self.images = location_path(spec, "voc:FOLDER"), image_folder(spec)

    def read(self) -> Iterator[AnnotatedImage | RowError]:
        """Yield the images of the split."""
        for path in self._find_files():
            try:
                yield self._read_image(path)
            except InvalidRow as error:
                yield error.at(str(path))

    def _find_files(self) -> list[Path]:
        """Return the XML files of the split; those that a list names may be missing."""
        if not is_folder(self.path):
            raise DatasetError(f"{self.spec.name}: there is no folder {self.path}")
        annotations = self.path / "Annotations"
        split = self.spec.options.get("split")
        lists = self.path / "ImageSets" / "Main"
        if split and is_file(lists / f"{split}.txt"):
            # the lists of a class have a second column: 1, 0 or -1 for the presence of the class
            stems = [line.text.split()[0] for line in read_lines(lists / f"{split}.txt")]
            return [annotations / f"{stem}.xml" for stem in stems]
        folder = self.path / split if split else annotations if is_folder(annotations) else self.path
        if not is_folder(folder):
            known = sorted(path.stem for path in lists.glob("*.txt"))
            raise DatasetError(
                f"{self.spec.name}: there is neither a list {lists / f'{split}.txt'} nor a folder {folder}; lists: "
                f"{list_names(known) or 'none'}"
            )
        files = sorted(folder.rglob("*.xml"))
        if not files:
            raise DatasetError(f"{self.spec.name}: {folder} contains no XML files")
        return files

    def _read_image(self, path: Path) -> AnnotatedImage:
        root = read_xml(path)
        objects: list[AnnotatedObject] = []
        errors: list[RowError] = []
        elements = root.findall("object")
        for number, element in enumerate(elements, start=1):
            source = f"{path}, object {number}"
            try:
                objects.append(_read_object(element, source))
            except InvalidRow as error:
                errors.append(error.at(source))
        image = self._find_image(path, root.findtext("filename"))
        return AnnotatedImage(image, str(path), objects, size=_read_size(root), errors=errors, is_empty=not elements)

    def _find_image(self, path: Path, name: str | None) -> Path:
        """Return the image of an XML file: the one that it names, else one of its own name."""
        folders = (
            [self.images] if self.images else [self.path / "JPEGImages", path.parent, path.parent.parent / "images"]
        )
        names = [name.strip().replace("\\", "/").rpartition("/")[2]] if name and name.strip() else []
        stem_names = (f"{path.stem}{extension}" for extension in _common_extensions())
        for file in (*names, *stem_names):
            for folder in folders:
                if is_file(folder / file):
                    return folder / file
        return folders[0] / (names[0] if names else f"{path.stem}.jpg")


def _common_extensions() -> list[str]:
    """Return the extensions of images, the most common ones first."""
    return [".jpg", ".png", ".jpeg", ".JPG", ".PNG", *sorted(image_extensions() - {".jpg", ".png", ".jpeg"})]


def read_xml(path: Path) -> Element:
    """Return the root of an XML file. Entities are refused, as they can refer to other files or expand without end.

    Raises:
        InvalidRow: if the file cannot be read, or is not an annotation.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
    from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

    try:
        data = read_bytes(path)
    except DatasetError as error:
        raise InvalidRow("unreadable annotations", str(error)) from None
    if len(data) > MAX_XML_BYTES:
        raise InvalidRow("invalid XML", f"the file is larger than {MAX_XML_BYTES} bytes")
    try:
        root = fromstring(data)
    except DefusedXmlException as error:
        raise InvalidRow("invalid XML", f"declarations of entities are not read: {shorten(error)}") from None
    except (ParseError, ValueError, LookupError, RecursionError) as error:  # LookupError: an unknown encoding
        raise InvalidRow("invalid XML", shorten(str(error), 200)[1:-1]) from None
    if root.tag != "annotation":
        raise InvalidRow("invalid XML", f"the root is <{root.tag[:50]}>, not <annotation>")
    return root


def _read_object(element: Element, source: str) -> AnnotatedObject:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise InvalidRow("missing or invalid fields", "name")
    box = element.find("bndbox")
    if box is None:
        raise InvalidRow("missing or invalid fields", "bndbox")
    texts = [box.findtext(corner) for corner in _CORNERS]
    try:
        numbers = [float(text or "") for text in texts]
    except ValueError:
        raise InvalidRow("invalid box", f"{shorten(texts)}; expected the numbers {', '.join(_CORNERS)}") from None
    x0, y0, x1, y1 = read_box(numbers, ", ".join(_CORNERS))
    return AnnotatedObject(name, (x0 - 1, y0 - 1, x1, y1), source)


def _read_size(root: Element) -> tuple[int, int] | None:
    """Return (width, height); None if the file states none, or 0 x 0, as some tools write."""
    texts = [root.findtext(f"size/{side}") for side in ("width", "height")]
    if not any(text and text.strip() for text in texts):
        return None
    try:
        width, height = (int(float(text or "")) for text in texts)
    except (ValueError, OverflowError):
        raise InvalidRow("invalid image size", shorten(texts)) from None
    return (width, height) if width > 0 and height > 0 else None
