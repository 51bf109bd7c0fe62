"""Datasets of Hugging Face and ModelScope, read by `datasets`, which runs no code from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...exceptions import DatasetError, HubError, summarize_error
from ...loading.hub import HUBS, check_reachable, suppress_logs
from ..rows import AnnotatedRow, InvalidRow, RowError, TextRow, class_name
from ..spec import DatasetSpec
from .columns import ROW_OPTIONS, RecordParser, find_missing_columns
from .files import expand_path, is_folder, list_names

if TYPE_CHECKING:
    from datasets import Dataset


class HuggingFaceReader:
    """A dataset of the Hugging Face hub, or a local folder that `datasets.load_dataset` reads.

    The columns are those of a JSON file, see `RecordParser`. A column with another name is given as an option,
    `?image=photo`. A value that starts with a task token, `?query=<CAPTION>`, is the query of every row instead of a column.
    The class names of detection columns come from the features of the dataset.
    """

    options: ClassVar[Mapping[str, str]] = {
        "split": "name of the split (default: train)",
        "subset": "name of the configuration",
        **ROW_OPTIONS,
    }
    hub: ClassVar[str] = "hf"

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        self._parser = RecordParser.from_spec(spec, Path())

    def check(self) -> None:
        """Load the table, which `datasets` caches, and verify its columns."""
        columns = self._table.column_names
        named = {name: column for name, column in self._parser.columns.items() if not column.startswith("<")}
        missing = [column for column in named.values() if column not in columns]
        missing += [name for name in find_missing_columns(columns) if name not in self._parser.columns]
        if missing:
            raise DatasetError(
                f"{self.spec.name} has no column {', '.join(missing)}; its columns are {list_names(columns, 20)}. Name a "
                f"column as in ?image={columns[0]}"
            )

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> TextRow | AnnotatedRow | RowError:
        source = f"{self.spec.name}, row {index + 1}"
        try:
            record = self._table[index]
        except Exception as error:  # what a cell decodes with, such as Arrow, raises types of its own
            return RowError(source, "unreadable row", summarize_error(error))
        try:
            for column, names in self._class_columns.items():
                if record[column] is not None:
                    record[column] = class_name(record[column], names)
        except InvalidRow as error:  # -1, where a class is unknown
            return error.at(source)
        return self._parse(record, source)

    @cached_property
    def _class_columns(self) -> dict[str, list[str]]:
        """The columns of class numbers, such as an answer of image classification, with the names of the classes."""
        features = self._table.features.items()
        return {column: list(feature.names) for column, feature in features if hasattr(feature, "int2str")}

    @cached_property
    def _parse(self) -> RecordParser:
        """The parser, with the class names of the dataset unless they are an option."""
        objects = self._table.features.get(self._parser.columns.get("objects", "objects"))
        names = self._parser.class_names or find_class_names(objects)
        return replace(self._parser, class_names=names)

    def fetch(self) -> str:
        """Return what `datasets.load_dataset` takes: the hub id or a folder."""
        return self.spec.location

    @cached_property
    def _table(self) -> Dataset:
        options = self.spec.options
        self._check_location()
        try:
            from datasets import Image, List, load_dataset

            with suppress_logs("huggingface_hub", "datasets", "httpx", "modelscope", "modelscope_hub"):
                table = load_dataset(self.fetch(), options.get("subset"), split=options.get("split", "train"))
        except Exception as error:  # networks, hubs and file formats raise dozens of types
            raise DatasetError(f"{self.spec.name} cannot be loaded: {summarize_error(error)}") from error
        for name, feature in table.features.items():  # images are decoded when their row is validated, by `load_image`
            if isinstance(feature, Image):
                table = table.cast_column(name, Image(decode=False))
            elif isinstance(feature, List) and isinstance(feature.feature, Image):
                table = table.cast_column(name, List(Image(decode=False)))
        return table

    def _check_location(self) -> None:
        """Verify within seconds that the dataset can be had. The libraries retry for half a minute.

        Raises:
            DatasetError: if the name is no folder and no hub id, or if the hub is not reachable.
        """
        location = self.spec.location
        if not location:
            raise DatasetError(
                f"{self.spec.kind}: is followed by a hub id or a folder, as in {self.spec.kind}:owner/name"
            )
        if is_folder(expand_path(location)):
            return
        if location.startswith((".", "/", "~")) or location.count("/") > 1 or "\\" in location:
            raise DatasetError(f"{self.spec.name}: there is no folder {location}")
        if not _is_offline() and not self._is_cached():
            try:
                check_reachable(HUBS[self.hub])
            except HubError as error:
                raise DatasetError(f"{self.spec.name} is neither a folder nor cached, and {error}") from None

    def _is_cached(self) -> bool:
        from datasets import config

        return is_folder(Path(config.HF_DATASETS_CACHE) / self.spec.location.replace("/", "___"))


class ModelScopeReader(HuggingFaceReader):
    """A dataset of ModelScope, or a local folder."""

    hub: ClassVar[str] = "modelscope"

    def fetch(self) -> str:
        """Return the folder of the dataset, downloaded if it is not one already."""
        if is_folder(Path(self.spec.location)):
            return self.spec.location
        from modelscope import dataset_snapshot_download

        return str(dataset_snapshot_download(self.spec.location))

    def _is_cached(self) -> bool:
        return False  # modelscope asks the hub in any case


def find_class_names(feature: Any) -> list[str] | None:
    """Return the names of the first `ClassLabel` within a feature, at any depth; None if there is none."""
    if hasattr(feature, "int2str"):
        return list(feature.names)
    children = feature.values() if isinstance(feature, Mapping) else [getattr(feature, "feature", None)]
    found = (find_class_names(child) for child in children if child is not None)
    return next((names for names in found if names is not None), None)


def _is_offline() -> bool:
    """Whether the environment forbids the network, so that only the cache is read."""
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())
