"""Files of records: JSON, JSON lines, CSV and TSV."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ...exceptions import DatasetError, shorten
from ..rows import AnnotatedRow, InvalidRow, RowError, TextRow
from ..spec import DatasetSpec
from .columns import ROW_OPTIONS, RecordParser
from .files import (
    check_decodable,
    decode_json,
    is_decodable,
    list_names,
    location_path,
    parse_json,
    read_lines,
    read_text,
)


class Record(NamedTuple):
    """A record of a file.

    Attributes:
        content: the record, as far as `RecordReader.read` decodes it.
        line: where it begins, from 1; None if the file has no lines.
    """

    content: Any
    line: int | None = None


class RecordReader(ABC):
    """A file of records, which `RecordParser` turns into rows. Paths of images are relative to the file."""

    options: ClassVar[Mapping[str, str]] = {
        **ROW_OPTIONS,
        "images": "folder of the images (default: the folder of the file)",
    }

    def __init__(self, spec: DatasetSpec, path: Path | None = None) -> None:
        """Prepare to read the file of a dataset, or another path with the options of the dataset."""
        self.name = spec.location if path is None else str(path)
        self.path = location_path(spec, "rows.jsonl") if path is None else path
        self._parser = RecordParser.from_spec(spec, self.path.parent)

    def check(self) -> None:
        """Read the file."""
        if not self._records:
            raise DatasetError(f"{self.path} is empty: it has no rows")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> TextRow | AnnotatedRow | RowError:
        source = f"{self.name}, row {index + 1}"
        record = self._records[index]
        if record.line not in (None, index + 1):
            source += f" (line {record.line})"
        try:
            return self._parser(self.decode(record.content), source)
        except InvalidRow as error:
            return error.at(source)

    @cached_property
    def _records(self) -> list[Record]:
        return self.read()

    @abstractmethod
    def read(self) -> list[Record]:
        """Return the records of the file.

        Raises:
            DatasetError: if the file cannot be read, or has another format.
        """

    @abstractmethod
    def decode(self, content: Any) -> Any:
        """Return a decoded record, column -> value.

        Raises:
            InvalidRow: if it cannot be decoded.
        """


class JsonLinesReader(RecordReader):
    """Rows as JSON objects, one per line. Blank lines are ignored."""

    def read(self) -> list[Record]:
        """Return the lines that are not blank."""
        lines = read_lines(self.path)
        if lines and (lines[0].text.strip() == "[" or (len(lines) == 1 and lines[0].text.startswith("[{"))):
            raise DatasetError(f"{self.path} is a JSON list, not one object per line; its name must end in .json")
        return [Record(line.text, line.number) for line in lines]

    def decode(self, content: str) -> Any:
        """Return the decoded JSON of a line."""
        check_decodable(content)
        return parse_json(content)


class JsonReader(RecordReader):
    """Rows as a JSON list of objects, or an object with such a list as `data`."""

    def read(self) -> list[Record]:
        """Return the items of the list."""
        text = read_text(self.path)
        content = decode_json(text, self.path)
        rows = content.get("data") if isinstance(content, dict) else content
        if not isinstance(rows, list):
            is_coco = isinstance(content, dict) and {"images", "annotations"} & content.keys()
            found = "a COCO file" if is_coco else shorten(content)
            raise DatasetError(f"{self.path} is {found}, not a list of rows; a COCO file is read as coco:{self.path}")
        self._is_utf8 = is_decodable(text)
        return [Record(row) for row in rows]

    def decode(self, content: Any) -> Any:
        """Return the record, whose text must be UTF-8."""
        if not self._is_utf8:
            check_decodable(json.dumps(content, ensure_ascii=False))
        return content


class CsvReader(RecordReader):
    """Rows of a table whose first line names the columns, separated by commas, semicolons or tabs.

    The rules of quoting are those of RFC 4180, so that a text may contain separators and line breaks. (pandas reports no
    faulty rows, and makes numbers of texts.)
    """

    def read(self) -> list[Record]:
        """Return the cells of each row, or the `csv.Error` of an invalid one."""
        text = read_text(self.path)
        records = list(self._split(text, max(",\t;", key=text.partition("\n")[0].count)))
        header = records.pop(0).content if records else []
        if isinstance(header, csv.Error):
            raise DatasetError(f"{self.path} has no line with the names of its columns: {header}")
        self._columns = [name.strip() for name in header]
        repeated = {name for name in self._columns if self._columns.count(name) > 1}
        if repeated:
            raise DatasetError(f"{self.path} names a column twice: {list_names(sorted(repeated))}")
        return records

    @staticmethod
    def _split(text: str, separator: str) -> Iterator[Record]:
        csv.field_size_limit(max(csv.field_size_limit(), len(text)))
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        while True:
            line = rows.line_num + 1
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield Record(error, line)
            else:
                if any(cell.strip() for cell in cells):
                    yield Record(cells, line)

    def decode(self, content: csv.Error | list[str]) -> dict[str, str]:
        """Return a row as column -> text."""
        if isinstance(content, csv.Error):
            raise InvalidRow("invalid CSV", str(content))
        if len(content) != len(self._columns):
            raise InvalidRow(
                "wrong number of columns", f"{len(content)}, but the first line names {len(self._columns)}"
            )
        for cell in content:
            check_decodable(cell)
        return dict(zip(self._columns, content, strict=True))
