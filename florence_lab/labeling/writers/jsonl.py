"""JSON lines, in the layout of `datasets`' `imagefolder`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .base import Entry, Writer, answers_as_columns, objects_as_columns


class JsonLinesWriter(Writer):
    """`SPLIT/metadata.jsonl` beside the images: `file_name`, `width`, `height`, `objects` and the answers to further tasks.

    `load_dataset("imagefolder", data_dir=FOLDER)` reads it.
    """

    @classmethod
    def top_level(cls, splits: Sequence[str]) -> tuple[str, ...]:
        """Return the names in the folder."""
        return tuple(splits)

    def start(self) -> None:
        """Create the folders and files."""
        for split in self.splits:
            (self.folder / split).mkdir(parents=True)
        self._files = {
            split: (self.folder / split / "metadata.jsonl").open("w", encoding="utf-8") for split in self.splits
        }

    def add(self, entry: Entry) -> str:
        """Write the line of an image."""
        width, height = entry.image.size
        row: dict[str, Any] = {"file_name": entry.name, "image_id": entry.number, "width": width, "height": height}
        row |= {"objects": objects_as_columns(entry, self.has_masks, self.tasks)} | answers_as_columns(
            entry, self.tasks
        )
        self._files[entry.split].write(json.dumps(row, ensure_ascii=False) + "\n")
        return self.place_image(entry, f"{entry.split}/{entry.name}")

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
