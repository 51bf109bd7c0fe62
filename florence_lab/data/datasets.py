"""Loading datasets: every format becomes validated examples, and every invalid row is named."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from tqdm.contrib.concurrent import thread_map

from ..exceptions import DatasetError
from .examples import Example
from .readers import open_dataset
from .readers.base import Reader
from .readers.scenes import ScenesReader
from .rows import RowError
from .spec import DatasetSpec
from .validation import RowValidator, ValidatedRow, summarize_row_errors

Split = Literal["train", "held_out"]


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


def parse_datasets(datasets: Sequence[str | DatasetSpec], split: Split = "train") -> list[DatasetSpec]:
    """Parse the names of datasets.

    Args:
        datasets: names as in `DatasetSpec.parse`, or specs.
        split: which scenes `scenes:COUNT` means if it does not say so: `train` for training, `held_out` for evaluation.

    Raises:
        DatasetError: for a malformed name.
    """
    specs = [item if isinstance(item, DatasetSpec) else DatasetSpec.parse(item) for item in datasets]
    return [
        replace(spec, options={**spec.options, "split": split})
        if spec.kind == "scenes" and "split" not in spec.options and split != "train"
        else spec
        for spec in specs
    ]


def check_datasets(datasets: Sequence[str | DatasetSpec], split: Split = "train") -> None:
    """Verify that datasets exist and have their format, before anything large is loaded.

    Args:
        datasets: see `parse_datasets`.
        split: see `parse_datasets`.

    Raises:
        DatasetError: for the first dataset that is missing or has another format.
    """
    for spec in parse_datasets(datasets, split):
        open_dataset(spec)


def check_disjoint_scenes(train: Sequence[str | DatasetSpec], val: Sequence[str | DatasetSpec]) -> None:
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


def _scenes_readers(datasets: Sequence[str | DatasetSpec], split: Split) -> list[ScenesReader]:
    return [ScenesReader(spec) for spec in parse_datasets(datasets, split) if spec.kind == "scenes"]


def load_examples(
    datasets: Sequence[str | DatasetSpec], validator: RowValidator, seed: int = 42, split: Split = "train"
) -> LoadedDataset:
    """Read and validate datasets.

    Args:
        datasets: see `parse_datasets`.
        validator: turns each row into examples.
        seed: for random samples.
        split: see `parse_datasets`.

    Raises:
        DatasetError: for a dataset that is missing or has another format. Invalid rows are returned as errors.
    """
    examples: list[Example] = []
    errors: list[RowError] = []
    for spec in parse_datasets(datasets, split):
        reader = open_dataset(spec)
        indices = sample_rows(len(reader), spec.sample, seed)

        def validate(index: int, reader: Reader = reader) -> ValidatedRow:
            return validator(reader[index])

        rows = thread_map(
            validate,
            indices,
            desc=f"validating {spec.name}",
            unit="row",
            chunksize=16,
        )
        for row in rows:
            examples += row.examples
            errors += row.errors
    # an annotation that several rows share is reported once
    return LoadedDataset(examples, list(dict.fromkeys(errors)))


def sample_rows(num_rows: int, sample: int | None, seed: int) -> Sequence[int]:
    """Return the indices of a random sample in ascending order; all indices if there are not more rows than that."""
    if sample is None or sample >= num_rows:
        return range(num_rows)
    return sorted(random.Random(seed).sample(range(num_rows), sample))
