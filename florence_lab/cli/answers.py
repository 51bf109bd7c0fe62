"""Where the answers of `florence-lab infer` go: standard output, `answers.jsonl`, overlays and caption files."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.prediction_files import ANSWERS_FILE, append_rows
from ..exceptions import ImageError, PromptError
from ..output_files import write_bytes, write_text
from ..results import Result, Text
from ..sources import NamedSource, is_video
from ..swift import Response

_MAX_STEM_LENGTH = 50  # characters of an image's name in that of its overlay; file systems allow 255 bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnswerWriter:
    """Prints answers, and saves them if folders are given.

    Attributes:
        result_dir: folder for `answers.jsonl`; None writes none.
        overlay_dir: folder for images with their results drawn on them; None writes none.
        caption_files: write the text of an answer beside its image, as `cat.txt` for `cat.jpg`.
        max_new_tokens: the maximum length of an answer, which is shown for truncated ones.
        file_name: the name of the file in `result_dir`.
    """

    result_dir: str | None = None
    overlay_dir: str | None = None
    caption_files: bool = False
    max_new_tokens: int | None = None
    file_name: str = ANSWERS_FILE

    def write(self, query: str, source: NamedSource, result: Result, is_printed: bool = False) -> None:
        """Print and save an answer.

        Args:
            query: the query.
            source: the image.
            result: the answer.
            is_printed: whether the response was already printed, piece by piece.

        Raises:
            ImageError: for a caption file that exists.
            OSError: if a file cannot be written.
        """
        if not is_printed:
            print(Response(result))
        if not isinstance(result, Text):
            print(_format_table(result))
        elif result.text != result.raw.strip():
            print(result.text)
        if result.truncated:
            print(f"(truncated at {self.max_new_tokens} tokens)")
        answer: dict[str, Any] = {"response": Response(result), "result": result.to_dict()}
        self._append(query, source, answer | {"truncated": result.truncated})
        if self.overlay_dir:
            print(f"overlay: {_save_overlay(Path(self.overlay_dir), result, source.name)}")
        if self.caption_files:
            write_text(free_caption_path(source), f"{caption_text(result)}\n")

    def write_error(self, query: str, source: NamedSource, error: ImageError | PromptError) -> None:
        """Report an image without answer in the log, and save a row with the reason."""
        logger.error("%s", error)
        self._append(query, source, {"response": {}, "result": None, "error": str(error)})

    def _append(self, query: str, source: NamedSource, answer: dict[str, Any]) -> None:
        if self.result_dir:
            append_rows(Path(self.result_dir) / self.file_name, [{"query": query, "image": source.name, **answer}])


def free_caption_path(source: NamedSource) -> Path:
    """Return the path of the caption file of an image.

    Raises:
        ImageError: if the source is not a file, if there is a caption file, or if the folder cannot be written to.
    """
    if not isinstance(source.image, os.PathLike):
        raise ImageError(f"{source.name} is not an image file, beside which a caption file could be written")
    path = Path(source.image).with_suffix(".txt")
    if path.exists():
        raise ImageError(f"{source.name}: {path.name} exists already; remove it to write a new caption")
    if not os.access(path.parent, os.W_OK):
        raise ImageError(f"{source.name}: no caption file can be written into this folder")
    return path


def caption_text(result: Result) -> str:
    """Return the text of an answer in one line."""
    return " ".join((result.text if isinstance(result, Text) else result.raw).split())


def _format_table(result: Result) -> str:
    table = result.to_dataframe()
    return table.to_string(index=False, float_format="{:.2f}".format) if len(table) else "(no instances)"


def _save_overlay(folder: Path, result: Result, image: str) -> Path:
    """Write the image with the result drawn on it, under a name that is not taken."""
    from ..visualization.overlay import to_png

    name = image.split("?")[0] if "://" in image else image
    video, _, time = name.rpartition("#t=")
    stem = f"{Path(video).stem[:_MAX_STEM_LENGTH]}-{time}" if is_video(video) else Path(name).stem[:_MAX_STEM_LENGTH]
    task_name = re.sub(r"[^\w-]+", "_", result.task.strip("<>")) or "question"
    stem = f"{stem or 'image'}-{task_name}"
    path, number = folder / f"{stem}.png", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.png"
    write_bytes(path, to_png(result.image, result))
    return path
