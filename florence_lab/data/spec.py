"""The string that names a dataset: `rows.jsonl`, `coco:annotations.json?tasks=OD#500`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from urllib.parse import parse_qsl, quote, urlencode

from ..exceptions import DatasetError

# at least two letters, so that the drive of a Windows path is not taken for a kind
_KIND_RE = re.compile(r"([A-Za-z][A-Za-z0-9_]+):(?!//)(.*)", re.DOTALL)


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset by its format and location.

    Attributes:
        kind: the format: a key of `READERS`, such as "coco"; for a file without a kind in front, its extension.
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
        """Parse `KIND:LOCATION?OPTION=VALUE&…#SAMPLE`, `PATH#SAMPLE` or `KIND`. Options are URL-encoded.

        Raises:
            DatasetError: if the sample is not a positive number.
        """
        name, has_sample, count = text.rpartition("#")
        if not has_sample:
            name, sample = text, None
        elif count.isdecimal() and int(count) > 0:
            sample = int(count)
        else:
            raise DatasetError(f"{text!r}: # must be followed by the number of rows to sample, as in {name}#500")
        if match := _KIND_RE.fullmatch(name):
            kind, rest = match.groups()
            location, _, query = rest.partition("?")
            return cls(kind, location, dict(parse_qsl(query, keep_blank_values=True)), sample)
        extension = PurePath(name).suffix.lstrip(".")
        return cls(extension.lower(), name, {}, sample) if extension else cls(name, "", {}, sample)

    @property
    def name(self) -> str:
        """The dataset without the sample, as in messages."""
        if self.is_file:
            return self.location
        options = urlencode(self.options, safe="/<>,:", quote_via=quote)
        return self.kind + (f":{self.location}" if self.location else "") + (f"?{options}" if options else "")

    @property
    def is_file(self) -> bool:
        """Whether the dataset is a file whose extension is its kind."""
        return not self.options and PurePath(self.location).suffix.lower() == f".{self.kind}"

    def __str__(self) -> str:
        return self.name if self.sample is None else f"{self.name}#{self.sample}"
