"""Loading datasets: every format becomes validated examples, and every invalid row is named."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from tqdm.contrib.concurrent import thread_map

from ..exceptions import DatasetError, shorten, summarize_error
from .examples import Example
from .readers import open_dataset
from .readers.base import Reader
from .readers.scenes import ScenesReader
from .rows import RawRow, RowError, to_row_error
from .spec import DatasetSpec
from .validation import RowValidator, ValidatedRow, summarize_row_errors

Split = Literal["train", "held_out"]

DatasetName = str | os.PathLike[str] | DatasetSpec
"""A dataset: its name as in `DatasetSpec.parse`, a path, or a spec."""

Datasets = DatasetName | Iterable[DatasetName]
"""One dataset, or several."""


class LoadedDataset(NamedTuple):
    """The examples of datasets in the order of their rows, and the errors of invalid rows."""

    examples: list[Example]
    errors: list[RowError]

    def require_valid(self) -> list[Example]:
        """Return the examples.

        Raises:
            DatasetError: if a row is invalid.
        """
        if self.errors:
            raise DatasetError(f"{len(self.errors)} invalid rows:\n{summarize_row_errors(self.errors)}")
        return self.examples


def parse_datasets(datasets: Datasets, split: Split = "train") -> list[DatasetSpec]:
    """Parse the names of datasets.

    Args:
        datasets: one or several.
        split: which scenes `scenes:COUNT` means if it does not say so: `train` for training, `held_out` for evaluation.

    Raises:
        DatasetError: for a malformed name, and for what is no name.
    """
    items: Any = [datasets] if isinstance(datasets, (str, bytes, os.PathLike, DatasetSpec)) else datasets
    if not isinstance(items, Iterable):
        raise DatasetError(f"datasets must be names, as in ['train.jsonl'], got {shorten(datasets)}")
    return [
        replace(spec, options={**spec.options, "split": split})
        if spec.kind == "scenes" and "split" not in spec.options and split != "train"
        else spec
        for spec in map(_parse_dataset, items)
    ]


def _parse_dataset(dataset: Any) -> DatasetSpec:
    if isinstance(dataset, DatasetSpec):
        return dataset
    name = os.fspath(dataset) if isinstance(dataset, (str, os.PathLike)) else dataset
    if not isinstance(name, str) or not name.strip():
        raise DatasetError(f"a dataset must be a name, as in 'train.jsonl' or 'scenes:100', got {shorten(dataset)}")
    return DatasetSpec.parse(name)


def check_datasets(datasets: Datasets, split: Split = "train") -> None:
    """Verify that datasets exist and have their format, before anything large is loaded.

    Args:
        datasets: see `parse_datasets`.
        split: see `parse_datasets`.

    Raises:
        DatasetError: for the first dataset that is missing or has another format.
    """
    for spec in parse_datasets(datasets, split):
        open_dataset(spec)


def check_disjoint_scenes(train: Datasets, val: Datasets) -> None:
    """Verify that no scene is both trained on and validated on.

    Args:
        train: the datasets to train on.
        val: the datasets to validate on, whose scenes are held out by default.

    Raises:
        DatasetError: if the seeds of two datasets overlap.
    """
    for a in _scenes_readers(train, "train"):
        for b in _scenes_readers(val, "held_out"):
            if max(a.seeds[0], b.seeds[0]) <= min(a.seeds[-1], b.seeds[-1]):
                raise DatasetError(
                    f"{b.spec.name} contains scenes of the training dataset {a.spec.name}; validate on "
                    "scenes:COUNT?split=held_out"
                )


def _scenes_readers(datasets: Datasets, split: Split) -> list[ScenesReader]:
    return [ScenesReader(spec) for spec in parse_datasets(datasets, split) if spec.kind == "scenes"]


def load_examples(
    datasets: Datasets,
    validator: RowValidator,
    seed: int = 42,
    split: Split = "train",
    skip_bad_rows: bool = False,
) -> LoadedDataset:
    """Read and validate datasets.

    Args:
        datasets: see `parse_datasets`.
        validator: turns each row into examples.
        seed: for random samples.
        split: see `parse_datasets`.
        skip_bad_rows: whether the caller uses the examples in spite of errors. A dataset without any valid row is then an error.

    Raises:
        DatasetError: for a dataset that is missing, has another format or no rows. Invalid rows are returned as errors.
    """
    examples: list[Example] = []
    errors: list[RowError] = []
    for spec in parse_datasets(datasets, split):
        rows = _validate_rows(spec, validator, seed)
        found = [example for row in rows for example in row.examples]
        # an annotation that several rows share is reported once
        faults = list(dict.fromkeys(error for row in rows for error in row.errors))
        if not found and not faults:
            raise DatasetError(f"{spec.name} has no rows")
        if not found and skip_bad_rows:
            raise DatasetError(f"{spec.name} has no valid rows:\n{summarize_row_errors(faults)}")
        examples += found
        errors += faults
    return LoadedDataset(examples, list(dict.fromkeys(errors)))


def _validate_rows(spec: DatasetSpec, validator: RowValidator, seed: int) -> list[ValidatedRow]:
    try:
        reader = open_dataset(spec)
        indices = sample_rows(len(reader), spec.sample, seed)
    except DatasetError:
        raise
    except Exception as error:  # readers of other libraries raise dozens of types
        raise DatasetError(f"{spec.name} cannot be read: {type(error).__name__}: {summarize_error(error)}") from error

    def validate(index: int) -> ValidatedRow:
        return validator(_read_row(reader, index, spec))

    rows: list[ValidatedRow] = thread_map(validate, indices, desc=f"validating {spec.name}", unit="row", chunksize=16)
    return rows


def _read_row(reader: Reader, index: int, spec: DatasetSpec) -> RawRow | RowError:
    try:
        return reader[index]
    except Exception as error:  # what a reader does not foresee must not end the run
        return to_row_error(error, f"{spec.name}, row {index + 1}")


def sample_rows(num_rows: int, sample: int | None, seed: int) -> Sequence[int]:
    """Return the indices of a random sample in ascending order; all indices if there are not more rows than that."""
    if sample is None or sample >= num_rows:
        return range(num_rows)
    return sorted(random.Random(seed).sample(range(num_rows), sample))
