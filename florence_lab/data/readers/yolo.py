"""Folders in the format of YOLO: `data.yaml`, and a text file with class numbers and boxes for each image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...exceptions import DatasetError, shorten, warn
from ..rows import InvalidRow, RowError
from ..spec import DatasetSpec
from .annotated import AnnotatedImage, AnnotatedObject, AnnotatedReader
from .files import (
    check_decodable,
    expand_path,
    find_images,
    is_file,
    is_folder,
    list_names,
    location_path,
    read_lines,
    read_text,
)

CONFIG_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
"""Names of the configuration that are looked for in a folder, in this order."""

TOLERANCE = 1e-4
"""Coordinates may leave the range 0..1 by this much, because of rounding."""


class YoloReader(AnnotatedReader):
    """Rows of a YOLO dataset, for detection or segmentation.

    An image without a label file, or with an empty one, has nothing in it. The labels of `images/a.jpg` are in
    `labels/a.txt`, or beside the image. (supervision's reader opens all images, and stops at the first faulty line without
    naming it.)
    """

    options: ClassVar[Mapping[str, str]] = {
        **AnnotatedReader.options,
        "split": "train, val, test, or another key of data.yaml (default: train)",
    }

    def __init__(self, spec: DatasetSpec) -> None:
        super().__init__(spec)
        self.path = location_path(spec, "yolo:data.yaml")

    def read(self) -> Iterator[AnnotatedImage | RowError]:
        """Yield the images of the split. Warn of label files without an image."""
        config = read_config(find_config(self.path))
        images = list(self._find_split(config))
        if not images:
            raise DatasetError(f"{self.spec.name}: the split contains no images")
        for image in images:
            yield read_image(image, config.names)
        _warn_of_orphans(images)

    def _find_split(self, config: YoloConfig) -> Iterator[Path]:
        """Yield the images of the split.

        Raises:
            DatasetError: if there is no such split, or if its images are missing.
        """
        split = self.spec.options.get("split", "train")
        known = [name for name, value in config.content.items() if name in _SPLITS and value]
        value = config.content.get(split)
        if not value or split in _NO_SPLITS:
            raise DatasetError(
                f"{self.spec.name}: {config.path} has no split {split!r}; it has {', '.join(known) or 'none'}"
            )
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str):
                raise DatasetError(
                    f"{config.path}: {split} must be a folder, a .txt or a list of them, not {shorten(item)}"
                )
            yield from _list_images(_locate(item, config), config)


_SPLITS = ("train", "val", "valid", "test", "minival")
_NO_SPLITS = ("path", "names", "nc", "download")


@dataclass(frozen=True)
class YoloConfig:
    """The content of `data.yaml`.

    Attributes:
        path: the file.
        content: what it contains.
        names: class number -> name.
    """

    path: Path
    content: Mapping[str, Any]
    names: Mapping[int, str]

    @property
    def roots(self) -> list[Path]:
        """The folders to which the paths of the splits may be relative."""
        folder = self.path.parent
        root = self.content.get("path")
        return [*([folder / expand_path(root)] if isinstance(root, str) and root else []), folder]


def find_configs(folder: Path) -> list[Path]:
    """Return the configurations in a folder: the first of `CONFIG_NAMES`, else all YAML files with class names."""
    for name in CONFIG_NAMES:
        if is_file(folder / name):
            return [folder / name]
    return [path for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]) if _has_class_names(path)]


def _has_class_names(path: Path) -> bool:
    try:
        return any(line.text.startswith(("names:", '"names":')) for line in read_lines(path))
    except DatasetError:
        return False


def find_config(path: Path) -> Path:
    """Return the configuration of a dataset: the path itself if it is a file, else the one in the folder.

    Raises:
        DatasetError: if there is none, or if there are several.
    """
    if not is_folder(path):
        return path
    found = find_configs(path)
    if len(found) != 1:
        problem = f"several: {list_names(file.name for file in found)}; name one" if found else "none"
        raise DatasetError(f"{path} must contain a data.yaml with the names of the classes, but has {problem}")
    return found[0]


def read_config(path: Path) -> YoloConfig:
    """Return the content of `data.yaml`.

    Raises:
        DatasetError: if the file cannot be read or has no class names.
    """
    import yaml

    text = read_text(path)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise DatasetError(f"{path} is not YAML: {reason}") from None
    if not isinstance(content, dict) or "names" not in content:
        raise DatasetError(f"{path} is not a YOLO configuration: it lacks the `names` of the classes")
    names = content["names"]
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not names:
        raise DatasetError(f"{path}: names must be a list, or number: name, not {shorten(names)}")
    numbered: dict[int, str] = {}
    for number, name in names.items():
        is_number = isinstance(number, int) or (isinstance(number, str) and number.isdecimal())
        if not is_number or isinstance(name, (dict, list, type(None))) or not str(name).strip():
            raise DatasetError(f"{path}: the class {shorten(number)} has the name {shorten(name)}; expected text")
        numbered[int(number)] = str(name).strip()
    return YoloConfig(path, {str(key): value for key, value in content.items()}, numbered)


def _locate(item: str, config: YoloConfig) -> Path:
    """Return the folder or file of a split. Roboflow writes `../train/images` for a folder beside the configuration."""
    names = [item, *([item.removeprefix("../")] if item.startswith("../") else [])]
    candidates = [root / name for name in names for root in config.roots]
    for path in candidates:
        if is_folder(path) or is_file(path):
            return path
    raise DatasetError(f"{config.path}: there is no {list_names(dict.fromkeys(candidates))}")


def _list_images(path: Path, config: YoloConfig) -> list[Path]:
    """Return the images of a folder, or those that a text file lists, one path per line."""
    if is_folder(path):
        return find_images(path)
    if path.suffix.lower() != ".txt":
        return [path]
    lines = [Path(line.text.strip()) for line in read_lines(path)]
    roots = [path.parent, *config.roots]
    return [next((root / line for root in roots if is_file(root / line)), path.parent / line) for line in lines]


def label_path(image: Path) -> Path:
    """Return where the labels of an image are: its last folder `images` is replaced by `labels`."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt") if image.name else image


def read_image(image: Path, names: Mapping[int, str]) -> AnnotatedImage:
    """Return an image with the objects of its label file; errors of lines name the file and the line."""
    path = label_path(image)
    if not os.path.lexists(path):
        return AnnotatedImage(image, str(image), is_empty=True)
    objects: list[AnnotatedObject] = []
    errors: list[RowError] = []
    try:
        lines = read_lines(path)
    except DatasetError as error:
        return AnnotatedImage(image, str(image), errors=[RowError(str(path), "unreadable labels", str(error))])
    for line in lines:
        source = f"{path}, line {line.number}"
        try:
            objects.append(read_label(line.text, names, source))
        except InvalidRow as error:
            errors.append(error.at(source))
    return AnnotatedImage(image, str(path), objects, unit="norm_1", errors=errors, is_empty=not lines)


def read_label(text: str, names: Mapping[int, str], source: str) -> AnnotatedObject:
    """Return the object of a line: class number, then center, width and height of its box, or the vertices of its outline.

    Args:
        text: the line.
        names: class number -> name.
        source: where the line stands.

    Raises:
        InvalidRow: for another number of columns, an unknown class, and a coordinate out of 0..1.
    """
    check_decodable(text)
    number, *columns = text.split()
    values = [_read_number(column) for column in columns]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise InvalidRow(
            "wrong number of columns",
            f"{len(values) + 1}; expected class, x, y, width, height, or class and x, y of at least three vertices: "
            f"{shorten(text)}",
        )
    class_number = _read_number(number)
    if class_number not in names:
        raise InvalidRow("unknown class number", f"{number}; the classes are {shorten(dict(names))}")
    outside = next((value for value in values if not -TOLERANCE <= value <= 1 + TOLERANCE), None)
    if outside is not None:
        raise InvalidRow("coordinate out of 0..1", f"{outside:g} in {shorten(text)}")
    name = names[int(class_number)]
    if len(values) == 4:
        x, y, width, height = values
        # rounded, as 0.35 - 0.5 / 2 is less than 0.1, which would be another location bin
        x0, x1, y0, y1 = (round(v, 9) for v in (x - width / 2, x + width / 2, y - height / 2, y + height / 2))
        return AnnotatedObject(name, (x0, y0, x1, y1), source)
    polygon = np.clip(np.array(values).reshape(-1, 2), 0, 1)
    return AnnotatedObject(name, (*polygon.min(0), *polygon.max(0)), source, read_polygons=lambda: (polygon,))


def _read_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRow("not a number", shorten(text)) from None


def _warn_of_orphans(images: list[Path]) -> None:
    """Warn of files in the folders of labels that belong to no image, in this split or another."""
    folders = {image.parent: label_path(image).parent for image in images}
    orphans = [
        label.name
        for image_folder, label_folder in folders.items()
        if label_folder != image_folder and is_folder(label_folder) and is_folder(image_folder)
        for label in _find_orphans(label_folder, image_folder)
    ]
    if orphans:
        warn(f"{len(orphans)} label files have no image: {list_names(orphans, 5)}")


def _find_orphans(label_folder: Path, image_folder: Path) -> list[Path]:
    stems = {path.stem for path in image_folder.iterdir()} | {"classes"}
    return sorted(path for path in label_folder.glob("*.txt") if path.stem not in stems)
