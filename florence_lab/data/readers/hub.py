"""Datasets of Hugging Face and ModelScope, read by `datasets`, which runs no code from them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...exceptions import DatasetError, summarize_error
from ..rows import RowError, TextRow
from ..spec import DatasetSpec
from .files import parse_row

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("query", "response", "image", "objects")


class HuggingFaceReader:
    """A dataset of the Hugging Face hub, or a local folder that `datasets.load_dataset` reads.

    A column whose name differs from `COLUMNS` is given as an option, `?image=photo`. A value that starts with a task token,
    `?query=<CAPTION>`, is the query of every row instead of a column.
    """

    options: ClassVar[Mapping[str, str]] = {
        "split": "name of the split (default: train)",
        "subset": "name of the configuration",
        **{column: f"column with the {column}" for column in COLUMNS},
    }

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        self.columns = {name: spec.options.get(name, name) for name in COLUMNS}
        self.constants = {name: value for name, value in self.columns.items() if value.startswith("<")}

    def check(self) -> None:
        """Load the table, which `datasets` caches, and verify its columns."""
        columns = self._table.column_names
        required = {"image", "query", *self.spec.options} & set(COLUMNS)
        missing = [
            value
            for name, value in self.columns.items()
            if name in required and name not in self.constants and value not in columns
        ]
        if missing:
            raise DatasetError(
                f"{self.spec.name} has no column {', '.join(missing)}; its columns are {', '.join(columns)}. Name a "
                f"column as in ?image={columns[0]}"
            )

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> TextRow | RowError:
        record = self._table[index]
        row = {name: record[value] for name, value in self.columns.items() if value in record}
        return parse_row(row | self.constants, Path(), f"{self.spec.name}, row {index + 1}")

    def fetch(self) -> str:
        """Return what `datasets.load_dataset` takes: the hub id or a folder."""
        return self.spec.location

    @cached_property
    def _table(self) -> Dataset:
        from datasets import Image, load_dataset

        options = self.spec.options
        try:
            table = load_dataset(self.fetch(), options.get("subset"), split=options.get("split", "train"))
        except Exception as error:  # networks, hubs and file formats raise dozens of types
            raise DatasetError(f"{self.spec.name} cannot be loaded: {summarize_error(error)}") from error
        for name, feature in table.features.items():
            if isinstance(feature, Image):  # images are decoded when their row is validated, by `load_image`
                table = table.cast_column(name, Image(decode=False))
        return table


class ModelScopeReader(HuggingFaceReader):
    """A dataset of ModelScope, or a local folder."""

    def fetch(self) -> str:
        """Return the folder of the dataset, downloaded if it is not one already."""
        if Path(self.spec.location).is_dir():
            return self.spec.location
        from modelscope import dataset_snapshot_download

        return str(dataset_snapshot_download(self.spec.location))
