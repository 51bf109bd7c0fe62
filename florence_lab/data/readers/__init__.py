"""TODO"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from ...exceptions import DatasetError
from .coco import _read_coco
from .files import _read_lines, _read_list
from .hub import _modelscope_folder, _read_hub
from .scenes import _read_scenes

if TYPE_CHECKING:
    from ..rows import Record


def _records(dataset: str) -> Iterator[Record | str]:
    """The rows of a dataset; a string is what is wrong with one."""
    kind, colon, rest = dataset.partition(":")
    if colon and kind in READERS:
        place, _, options = rest.partition("?")
        return READERS[kind](place, dict(parse_qsl(options)))
    path = Path(dataset).expanduser()
    if path.suffix not in FILES:
        known = ", ".join([*FILES, *(f"{kind}:" for kind in READERS)])
        raise DatasetError(f"unknown dataset {dataset!r}: it ends or begins with none of {known}")
    if not path.is_file():
        raise DatasetError(f"{path} can't be read: there is no such file")
    return FILES[path.suffix](path)


FILES: dict[str, Callable[[Path], Iterator[Record | str]]] = {".jsonl": _read_lines, ".json": _read_list}

READERS: dict[str, Callable[[str, dict[str, str]], Iterator[Record | str]]] = {
    "coco": _read_coco,
    "scenes": _read_scenes,
    "hf": partial(_read_hub, str),
    "ms": partial(_read_hub, _modelscope_folder),
}
"""What stands before the colon -> its reader, which gets what stands behind it and the options."""
