"""Recognizing the format of a folder that is given without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ...exceptions import DatasetError, unknown_name, warn
from ..spec import DatasetSpec
from .coco import SECTIONS
from .files import image_extensions, is_file, list_names
from .image_folders import METADATA
from .yolo import find_configs

LABELLED_MANIFEST = "labels.json"
"""The file that tells what a folder of `florence_lab.label` contains, and which of its files a further run replaces."""

PENDING_CORRECTIONS = Path(".corrections", "pending")
"""In a labelled folder: exists while corrections of its review are not in the files of the dataset yet."""


def recognize_folder(spec: DatasetSpec, path: Path) -> DatasetSpec:
    """Return the dataset of a folder with its format as the kind.

    Warn if the folder was reviewed and its files are not up to date.

    Args:
        spec: the dataset as it was given.
        path: the folder.

    Raises:
        DatasetError: if the content fits no format; the message lists what was looked for. Also if there are several COCO
            files.
    """
    if is_file(path / PENDING_CORRECTIONS):
        warn(
            f"{path} has corrections that are not in its files yet; florence_lab.review({str(path)!r}).apply() writes them"
        )
    for kind, (_, fits) in FOLDER_FORMATS.items():
        if fits(path):
            if kind == "coco":
                return _choose_coco_file(spec, path)
            options = spec.options
            if kind == "voc" and is_file(path / LABELLED_MANIFEST):
                options = {"split": "train", **options}  # as in the other formats; elsewhere many folders have no lists
            return replace(spec, kind=kind, location=str(path), options=options)
    wanted = "; ".join(f"{kind}: {description}" for kind, (description, _) in FOLDER_FORMATS.items())
    raise DatasetError(f"the folder {path} has no format that is known. Looked for: {wanted}")


def _is_yolo(path: Path) -> bool:
    return bool(find_configs(path))


def _is_voc(path: Path) -> bool:
    return any(next(folder.glob("*.xml"), None) is not None for folder in (path / "Annotations", path, path / "train"))


def _is_image_folder(path: Path) -> bool:
    return any(is_file(folder / name) for name in METADATA for folder in (path, path / "train"))


def _is_coco(path: Path) -> bool:
    files = _find_coco_files(path)
    if len(files) > 1:
        raise DatasetError(f"{path} has several COCO files; choose one, as in coco:{files[0]}: {list_names(files)}")
    return bool(files)


def _choose_coco_file(spec: DatasetSpec, path: Path) -> DatasetSpec:
    """Return the dataset of a file in a folder: that of the option `split`, `FOLDER/SPLIT/*.json`.

    In a folder of `florence_lab.label` images without annotations were looked at: they contain nothing.
    """
    options = {**spec.options}
    split = options.pop("split", None)
    if split is None:
        files = _find_coco_files(path)
    else:
        found = _list_coco_files(path, "*/*.json")
        files = [file for file in found if file.parent.name == split]
        if not files:
            known = dict.fromkeys(file.parent.name for file in found)
            raise DatasetError(f"{spec.name}: {unknown_name('split', str(split), known)}")
    if len(files) > 1:
        raise DatasetError(f"{path / str(split)} has several COCO files; choose one, as in coco:{files[0]}")
    if is_file(path / LABELLED_MANIFEST):
        options = {"empty": "ask", **options}
    return replace(spec, kind="coco", location=str(files[0]), options=options)


def _is_table(path: Path) -> bool:
    names = ("dataset_info.json", "*.parquet", "data/*.parquet", "*.arrow")
    return any(next(path.glob(name), None) is not None for name in names)


def _has_captions(path: Path) -> bool:
    """Whether texts stand beside images, in the folder or one below. Not deeper: the folder may be a whole disk."""
    files = [*path.glob("*"), *path.glob("*/*")]
    known = image_extensions()
    images = {file.with_suffix("") for file in files if file.suffix.lower() in known}
    return any(file.with_suffix("") in images for file in files if file.suffix == ".txt")


def _find_coco_files(path: Path) -> list[Path]:
    return _list_coco_files(path, "*.json", "annotations/*.json", "train/*.json")


def _list_coco_files(path: Path, *patterns: str) -> list[Path]:
    files = sorted({file for pattern in patterns for file in path.glob(pattern)})
    return [file for file in files if _is_coco_file(file)]


def _is_coco_file(path: Path) -> bool:
    """Whether a file is an object that names the sections of COCO near its beginning or its end."""
    try:
        with path.open("rb") as file:
            start = file.read(2**16)
            file.seek(max(0, path.stat().st_size - 2**16))
            end = file.read()
    except OSError:
        return False
    if not start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{"):
        return False
    if path.stat().st_size <= 2**16:
        try:
            content = json.loads(start)
        except (ValueError, RecursionError):
            return False
        return set(SECTIONS[:2]) <= content.keys()
    return sum(f'"{section}"'.encode() in start + end for section in SECTIONS) >= 2


FOLDER_FORMATS: Mapping[str, tuple[str, Callable[[Path], bool]]] = {
    "yolo": ("data.yaml, or another .yaml with names", _is_yolo),
    "voc": ("Annotations/*.xml or *.xml", _is_voc),
    "imagefolder": (" or ".join(METADATA), _is_image_folder),
    "coco": ("*.json with images and annotations", _is_coco),
    "hf": ("*.parquet, *.arrow or dataset_info.json", _is_table),
    "captions": (".txt beside images of the same name", _has_captions),
}
"""Kind -> what its folders contain, and whether a folder does; the first that fits is taken."""
