"""The session of `florence-lab infer`: question and picture in, the answer as a line, a table, a file and an overlay."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..predictor import Predictor
from ..results import Result, Text
from ..swift import Response, seed_everything

QUERY_PROMPT = "<<< "
IMAGE_PROMPT = "Input a media path or URL <<< "
RULE = "-" * 50
GOODBYES = ("exit", "quit")


@dataclass
class Session:
    """How `florence-lab infer` was called.

    Attributes:
        predictor: the model that is asked.
        stream: whether answers are printed as they grow.
        seed: for sampling; set again for each answer, so that an answer does not depend on those before it.
        overlay_dir: a folder for pictures with overlays, if wanted.
        result_dir: a folder for `answers.jsonl`, if wanted.
        generation: settings for `generate`.
    """

    predictor: Predictor
    stream: bool = False
    seed: int = 42
    overlay_dir: str | None = None
    result_dir: str | None = None
    generation: dict[str, Any] = field(default_factory=dict)

    def run(self, query: str | None = None, images: Sequence[str] | None = None) -> None:
        """Answers one query about some images, or opens a session until the person leaves."""
        if query is not None:
            for image in images or ():
                self.answer(query, image)
            return
        while (asked := self._ask()) is not None:
            try:
                self.answer(*asked)
            except KeyboardInterrupt:
                return
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                print(error)
            print(RULE)

    def _ask(self) -> tuple[str, str] | None:
        """A query and its picture; None if the person leaves."""
        try:
            while not (query := input(QUERY_PROMPT).strip()):
                continue
            if query.lower() in GOODBYES:
                return None
            image = input(IMAGE_PROMPT).strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return None
        return None if image.lower() in GOODBYES else (query, image)

    def answer(self, query: str, image: str) -> None:
        """One answer: printed, and kept where that was asked for."""
        seed_everything(self.seed)
        if self.stream:
            result = self._print_growing(query, image)
        else:
            result = self.predictor.predict(image, query, **self.generation)
            print(Response(result))
        if not isinstance(result, Text):
            print(_table(result))
        elif result.text != result.raw.strip():
            print(result.text)
        if self.overlay_dir:
            print(f"overlay: {_save_overlay(Path(self.overlay_dir), result, image)}")
        if self.result_dir:
            _append(Path(self.result_dir) / "answers.jsonl", query, image, result)

    def _print_growing(self, query: str, image: str) -> Result:
        """The same line as without a stream, piece by piece."""
        written = ""
        for result in self.predictor.stream(image, query, **self.generation):
            line = str(Response(result))[:-2]  # without the closing quote and brace, which come when all is said
            print(line[len(written) :], end="", flush=True)
            written += line[len(written) :]
        whole = str(Response(result))
        print(whole[-2:])
        if not whole.startswith(written):  # a quote within the text changed how Python writes the whole
            print(whole)
        return result


def _table(result: Result) -> str:
    table = result.to_dataframe()
    return table.to_string(index=False, float_format="{:.2f}".format) if len(table) else "(nothing found)"


def _save_overlay(folder: Path, result: Result, image: str) -> Path:
    from ..visualization.overlay import to_png

    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{Path(image.split('?')[0]).stem or 'image'}-{result.task.strip('<>') or 'question'}"
    path = folder / f"{stem}.png"
    number = 2
    while path.exists():
        path = folder / f"{stem}-{number}.png"
        number += 1
    path.write_bytes(to_png(result.image, result))
    return path


def _append(path: Path, query: str, image: str, result: Result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {"query": query, "image": image, "response": Response(result), "result": result.to_dict()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
