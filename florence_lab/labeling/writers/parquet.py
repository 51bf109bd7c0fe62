"""Parquet, as datasets are published on hubs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records import asks_about_objects
from .base import Entry, Writer, answers_as_columns, column_name, objects_as_columns

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from datasets import Features

_MAX_ROWS, _MAX_BYTES = 100, 2**26  # in memory, and in a group of rows
_SHARD_BYTES = 2**29


class ParquetWriter(Writer):
    """`data/SPLIT-00000-of-00001.parquet`: `image` (the file itself), `width`, `height`, `objects`, and further answers.

    `load_dataset(FOLDER)` reads it, with `objects.categories` as a `ClassLabel` of the classes.
    """

    @classmethod
    def top_level(cls, splits: Sequence[str]) -> tuple[str, ...]:
        """Return the names in the folder."""
        return ("data",)

    def start(self) -> None:
        """Create the folder and the first file of each split."""
        (self.folder / "data").mkdir()
        features = self._features()
        self._splits = {split: _Shards(self.folder / "data", split, features) for split in self.splits}

    def add(self, entry: Entry) -> str:
        """Write the row of an image."""
        width, height = entry.image.size
        objects = objects_as_columns(entry, self.has_masks, self.tasks)
        objects["categories"] = objects.pop("category_id")  # a `ClassLabel` is a number
        image = {"bytes": entry.path.read_bytes(), "path": entry.name}
        row = {"image": image, "image_id": entry.number, "width": width, "height": height, "objects": objects}
        self._splits[entry.split].append(row | answers_as_columns(entry, self.tasks), len(image["bytes"]))
        return str(entry.path)

    def close(self) -> None:
        """Write what is in memory, and number the files."""
        for shards in self._splits.values():
            shards.close()

    def _features(self) -> Features:
        from datasets import ClassLabel, Features, Image, List, Value

        number = Value("float64")
        objects: dict[str, Any] = {
            "bbox": List(List(number)),
            "categories": List(ClassLabel(names=list(self.ontology.names))),
            "score": List(number),
            "found_by": List(Value("string")),
            "review": List(Value("bool")),
        }
        if self.has_masks:
            objects["segmentation"] = List(List(List(number)))
        objects |= {column_name(task): List(Value("string")) for task in self.tasks if asks_about_objects(task)}
        columns = {"image": Image(), "image_id": Value("int64"), "width": Value("int32"), "height": Value("int32")}
        texts = {column_name(task): Value("string") for task in self.tasks if not asks_about_objects(task)}
        return Features(columns | {"objects": objects} | texts)


class _Shards:
    """The files of a split, a new one after half a gigabyte."""

    def __init__(self, folder: Path, split: str, features: Features) -> None:
        self.folder, self.split = folder, split
        self._schema = features.arrow_schema
        self._rows: list[dict[str, Any]] = []
        self._num_bytes = self._shard_bytes = 0
        self._paths: list[Path] = []
        self._writer: pq.ParquetWriter | None = None

    def append(self, row: dict[str, Any], num_bytes: int) -> None:
        self._rows.append(row)
        self._num_bytes += num_bytes
        if len(self._rows) >= _MAX_ROWS or self._num_bytes >= _MAX_BYTES:
            self._flush()

    def close(self) -> None:
        if self._rows or not self._paths:  # a split without images is a table without rows
            self._flush()
        self._end_shard()
        for number, path in enumerate(self._paths):
            path.rename(self.folder / f"{self.split}-{number:05d}-of-{len(self._paths):05d}.parquet")

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            self._paths.append(self.folder / f"{self.split}-{len(self._paths):05d}.part")
            self._writer = pq.ParquetWriter(self._paths[-1], self._schema)
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._shard_bytes += self._num_bytes
        self._rows, self._num_bytes = [], 0
        if self._shard_bytes >= _SHARD_BYTES:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._shard_bytes = None, 0
