"""Dataset formats. A new format is one class with the interface of `Reader`, and one entry in `READERS`."""

from __future__ import annotations

from ...exceptions import DatasetError, unknown_name
from ..spec import DatasetSpec
from .base import Reader
from .coco import CocoReader
from .files import JsonLinesReader, JsonReader
from .hub import HuggingFaceReader, ModelScopeReader
from .scenes import ScenesReader

READERS: dict[str, type[Reader]] = {
    "jsonl": JsonLinesReader,
    "json": JsonReader,
    "coco": CocoReader,
    "scenes": ScenesReader,
    "hf": HuggingFaceReader,
    "ms": ModelScopeReader,
}
"""Kind of dataset -> its reader. The kind stands before the colon, or is the extension of a file."""


def open_dataset(spec: DatasetSpec) -> Reader:
    """Return the reader of a dataset, checked.

    Raises:
        DatasetError: for an unknown kind or option, and if the dataset is missing or has another format.
    """
    if spec.kind not in READERS:
        files = "files that end in .jsonl or .json"
        kinds = ", ".join(f"{kind}:" for kind in READERS if kind not in ("jsonl", "json"))
        raise DatasetError(f"unknown dataset {str(spec)!r}: give {files}, or one of {kinds}")
    reader_type = READERS[spec.kind]
    for name in spec.options:
        if name not in reader_type.options:
            if not reader_type.options:
                raise DatasetError(f"{spec.name}: {spec.kind} takes no options")
            raise DatasetError(f"{spec.name}: {unknown_name('option', name, reader_type.options)}")
    reader = reader_type(spec)
    reader.check()
    return reader
