"""The string that names a dataset: `rows.jsonl`, `rows.csv?response=text`, `coco:annotations.json?tasks=OD#500`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from urllib.parse import parse_qsl, quote, urlencode

from ..exceptions import DatasetError, shorten

# at least two letters, so that the drive of a Windows path is not taken for a kind
_KIND_RE = re.compile(r"([A-Za-z][A-Za-z0-9_]+):(?!//)(.*)", re.DOTALL)

# a file name may contain a question mark, but hardly one that is followed by an option
_OPTIONS_RE = re.compile(r"(.*?)\?(\w+=.*)", re.DOTALL)


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset by its format and location.

    Attributes:
        kind: the format: a key of `READERS`, such as "coco"; for a path without a kind in front, the extension of the file, or
            "" for a path without one, such as a folder.
        location: a path, a hub id, or a number of scenes; "" if the kind needs none.
        options: option name -> value.
        sample: number of rows to draw at random; None reads all rows.
    """

    kind: str
    location: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    sample: int | None = None

    @classmethod
    def parse(cls, text: str) -> DatasetSpec:
        """Parse `KIND:LOCATION?OPTION=VALUE&…#SAMPLE`, `PATH?OPTION=VALUE#SAMPLE` or `KIND`. Options are URL-encoded.

        Raises:
            DatasetError: if the sample is not a positive number, or if an option is given twice.
        """
        name, has_sample, count = text.rpartition("#")
        if not has_sample:
            name, sample = text, None
        elif count.isdecimal() and int(count[:18]) > 0:
            sample = int(count[:18])  # more rows than any dataset has; Python refuses to read thousands of digits
        else:
            raise DatasetError(f"{shorten(text)}: # must be followed by the number of rows to sample, as in {name}#500")
        match = _OPTIONS_RE.fullmatch(name)
        path, options = (match[1], _parse_options(match[2], text)) if match else (name, {})
        if kind_match := _KIND_RE.fullmatch(path):
            kind, location = kind_match.groups()
            return cls(kind, location, options, sample)
        if path.endswith(("/", "\\")):
            return cls("", path, options, sample)
        extension = PurePath(path).suffix.lstrip(".").lower()
        if extension:
            return cls(extension, path, options, sample)
        is_path = path.startswith((".", "~")) or "/" in path or "\\" in path
        return cls("", path, options, sample) if is_path else cls(path, "", options, sample)

    @property
    def name(self) -> str:
        """The dataset without the sample, as in messages."""
        options = urlencode(self.options, safe="/<>,:", quote_via=quote)
        kind = "" if self.is_path else self.kind + (":" if self.location else "")
        return f"{kind}{self.location}" + (f"?{options}" if options else "")

    @property
    def is_path(self) -> bool:
        """Whether the dataset is a path without a kind in front: a folder, or a file whose extension is its kind."""
        return not self.kind or PurePath(self.location).suffix.lower() == f".{self.kind}"

    def __str__(self) -> str:
        return self.name if self.sample is None else f"{self.name}#{self.sample}"


def _parse_options(query: str, text: str) -> dict[str, str]:
    """Return option name -> value.

    Raises:
        DatasetError: for an option that is given twice.
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in pairs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DatasetError(f"{shorten(text)}: the option {repeated!r} is given twice")
    return dict(pairs)
