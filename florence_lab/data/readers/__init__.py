"""Dataset formats. A new format is one class with the interface of `Reader`, and one entry in `READERS`.

| dataset | content |
| --- | --- |
| `rows.jsonl`, `rows.json` | rows of ms-swift (`query`, `response`, `images`; or `messages`, `images`, with `objects`), LLaVA (`conversations`, `image`), Roboflow (`image`, `prefix`, `suffix`), or with `question` and `answer`, `text`, or `caption` |
| `rows.csv`, `rows.tsv` | the same columns in a table; `?query=<CAPTION>&response=text&image=path` names others |
| `imagefolder:FOLDER` | `metadata.jsonl` or `metadata.csv`, whose `file_name` names the image |
| `captions:FOLDER` | images with a `.txt` of the same name beside them; `?task=DETAILED_CAPTION` |
| `coco:FILE` | instances or captions of COCO; `?tasks=OD,OPEN_VOCABULARY_DETECTION`, see `AnnotatedReader` |
| `yolo:FOLDER`, `data.yaml` | detection or segmentation labels; `?split=val`, `?tasks=` |
| `voc:FOLDER` | Pascal VOC; `?split=val`, `?tasks=` |
| `hf:ID`, `ms:ID` | a table of Hugging Face or ModelScope with the columns above, or detection columns (`objects` with `bbox` and `category`) |
| `scenes:COUNT` | drawn scenes with all tasks |
| a folder | the format that it has, see `FOLDER_FORMATS` |

Every format takes `#500`, a random sample of the rows.
"""

from __future__ import annotations

from pathlib import Path

from ...exceptions import DatasetError, shorten, unknown_name
from ..spec import DatasetSpec
from .base import Reader
from .coco import CocoReader
from .files import expand_path, is_folder
from .folders import recognize_folder
from .hub import HuggingFaceReader, ModelScopeReader
from .image_folders import CaptionFolderReader, ImageFolderReader
from .records import CsvReader, JsonLinesReader, JsonReader
from .scenes import ScenesReader
from .voc import VocReader
from .yolo import YoloReader

READERS: dict[str, type[Reader]] = {
    "jsonl": JsonLinesReader,
    "json": JsonReader,
    "csv": CsvReader,
    "tsv": CsvReader,
    "yaml": YoloReader,
    "yml": YoloReader,
    "imagefolder": ImageFolderReader,
    "captions": CaptionFolderReader,
    "coco": CocoReader,
    "yolo": YoloReader,
    "voc": VocReader,
    "scenes": ScenesReader,
    "hf": HuggingFaceReader,
    "ms": ModelScopeReader,
}
"""Kind of dataset -> its reader. The kind stands before the colon, or is the extension of a file."""

EXTENSIONS = ("jsonl", "json", "csv", "tsv", "yaml", "yml")
"""The kinds that are extensions of files."""


def open_dataset(spec: DatasetSpec) -> Reader:
    """Return the reader of a dataset, checked.

    Raises:
        DatasetError: for an unknown kind or option, and if the dataset is missing or has another format.
    """
    spec = recognize_dataset(spec)
    reader_type = READERS[spec.kind]
    for name in spec.options:
        if name not in reader_type.options:
            raise DatasetError(f"{spec.name}: {unknown_name('option', name, reader_type.options)}")
    reader = reader_type(spec)
    reader.check()
    return reader


def recognize_dataset(spec: DatasetSpec) -> DatasetSpec:
    """Return a dataset whose kind is known: that of a folder is found out.

    Raises:
        DatasetError: if the kind is unknown.
    """
    folder = None if spec.kind == "scenes" else _find_folder(spec)
    if spec.kind in READERS and folder is None:
        return spec
    if folder is not None:
        return recognize_folder(spec, folder)
    if not spec.kind:
        raise DatasetError(f"there is no folder {shorten(spec.location)}")
    files = ", ".join(f".{extension}" for extension in EXTENSIONS)
    kinds = ", ".join(f"{kind}:" for kind in READERS if kind not in EXTENSIONS)
    raise DatasetError(
        f"unknown dataset {shorten(str(spec))}: give a file that ends in {files}, a folder, or one of {kinds}"
    )


def _find_folder(spec: DatasetSpec) -> Path | None:
    """Return the folder that a dataset without a kind names; None if it is none."""
    if spec.location and not spec.is_path:
        return None
    path = expand_path(spec.location or spec.kind)
    return path if is_folder(path) else None
