"""Writers of dataset formats. A new format is one class with the interface of `Writer`, and one entry in `WRITERS`."""

from __future__ import annotations

from .base import Writer
from .coco import CocoWriter
from .jsonl import JsonLinesWriter
from .parquet import ParquetWriter
from .voc import VocWriter
from .yolo import YoloWriter

WRITERS: dict[str, type[Writer]] = {
    "yolo": YoloWriter,
    "coco": CocoWriter,
    "voc": VocWriter,
    "jsonl": JsonLinesWriter,
    "parquet": ParquetWriter,
}
"""Name of a format -> its writer."""
