"""TODO"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...exceptions import DatasetError
from .files import _record

if TYPE_CHECKING:
    from ..rows import Record

HUB_COLUMNS = ("query", "response", "image", "objects")


def _read_hub(fetch: Callable[[str], str], dataset_id: str, options: dict[str, str]) -> Iterator[Record | str]:
    """A dataset of a hub, read by `datasets`, which runs no code from it.

    Args:
        fetch: an id -> what `datasets.load_dataset` takes.
        dataset_id: as the hub knows it, or a folder.
        options: `split` and `subset`; and where a column has another name than `HUB_COLUMNS`, that. What begins as a task
            token does, as in `query=<CAPTION>`, is not a column but the query of every row.
    """
    from datasets import Image as Pictures
    from datasets import load_dataset

    unknown = options.keys() - {"split", "subset", *HUB_COLUMNS}
    if unknown:
        known = ", ".join(("split", "subset", *HUB_COLUMNS))
        raise DatasetError(f"{dataset_id}?{'&'.join(unknown)}=…: only {known} can be given")
    try:
        table = load_dataset(fetch(dataset_id), options.get("subset"), split=options.get("split", "train"))
    except Exception as error:  # of the network, of a hub, of a file: there are dozens
        raise DatasetError(f"the dataset {dataset_id} can't be had: {str(error).splitlines()[0][:300]}") from error
    columns = {name: options.get(name, name) for name in HUB_COLUMNS}
    constant = {name: value for name, value in columns.items() if value.startswith("<")}
    missing = [
        value
        for name, value in columns.items()
        if value not in table.column_names and name not in constant and (name in options or name in ("image", "query"))
    ]
    if missing:
        have = ", ".join(table.column_names)
        raise DatasetError(
            f"{dataset_id} has no column {', '.join(missing)}, but {have}: name them, as in ?image=picture"
        )
    for name, feature in table.features.items():
        if isinstance(feature, Pictures):  # opened when its row is met, and by us
            table = table.cast_column(name, Pictures(decode=False))
    for row in table:
        named = {name: row[value] for name, value in columns.items() if value in table.column_names}
        yield _record(named | constant, Path())


def _modelscope_folder(dataset_id: str) -> str:
    if Path(dataset_id).is_dir():
        return dataset_id
    from modelscope import dataset_snapshot_download

    return dataset_snapshot_download(dataset_id)
