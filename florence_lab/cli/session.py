"""`florence-lab infer`: an interactive session, or one query about many images."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..exceptions import ImageError, PromptError
from ..predictor import Predictor
from ..results import Result, Text
from ..swift import Response, seed_everything

QUERY_PROMPT = "<<< "
IMAGE_PROMPT = "Input a media path or URL <<< "
SEPARATOR = "-" * 50
EXIT_COMMANDS = ("exit", "quit")

logger = logging.getLogger(__name__)


@dataclass
class Session:
    """Answers queries about images, prints the answers, and saves them if a folder is given.

    Attributes:
        predictor: the model.
        stream: print answers while they are generated.
        seed: seed of sampling. It is set for each answer, so that an answer does not depend on those before it.
        overlay_dir: folder for images with their results drawn on them; None writes none.
        result_dir: folder for `answers.jsonl`; None writes none.
        generate_kwargs: arguments of `generate`, as for `Predictor.predict`.
    """

    predictor: Predictor
    stream: bool = False
    seed: int = 42
    overlay_dir: str | None = None
    result_dir: str | None = None
    generate_kwargs: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Read queries and images from standard input, and answer them until the user leaves.

        `exit`, `quit`, the end of the input or Ctrl+C end the session. An error is printed, and the session continues.
        """
        while (request := _read_request()) is not None:
            try:
                self.answer(*request)
            except KeyboardInterrupt:
                return
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                print(error)
            print(SEPARATOR)

    def answer_images(self, query: str, images: Sequence[str]) -> int:
        """Answer one query about each image and return the number of images that failed.

        An image that cannot be opened, or that does not contain the region in the query, is reported in the log; the others
        are still answered.
        """
        num_failed = 0
        for image in images:
            try:
                self.answer(query, image)
            except (ImageError, PromptError) as error:
                logger.error("%s", error)
                num_failed += 1
        return num_failed

    def answer(self, query: str, image: str) -> None:
        """Answer one query about one image, and print and save the answer.

        Raises:
            PromptError, ImageError, ValueError: as `Predictor.predict`.
            OSError: if a folder cannot be written.
        """
        seed_everything(self.seed)
        if self.stream:
            result = self._print_stream(query, image)
        else:
            result = self.predictor.predict(image, query, **self.generate_kwargs)
            print(Response(result))
        if not isinstance(result, Text):
            print(_format_table(result))
        elif result.text != result.raw.strip():
            print(result.text)
        if self.overlay_dir:
            print(f"overlay: {_save_overlay(Path(self.overlay_dir), result, image)}")
        if self.result_dir:
            _append_jsonl(Path(self.result_dir) / "answers.jsonl", query, image, result)

    def _print_stream(self, query: str, image: str) -> Result:
        """Print the line that `answer` prints without streaming, piece by piece, and return the complete result."""
        printed = ""
        for result in self.predictor.stream(image, query, **self.generate_kwargs):
            line = str(Response(result))[:-2]  # the closing quote and brace follow at the end
            print(line[len(printed) :], end="", flush=True)
            printed += line[len(printed) :]
        complete = str(Response(result))
        print(complete[-2:])
        if not complete.startswith(printed):  # a quote in the text changed which quotes Python puts around it
            print(complete)
        return result


def _read_request() -> tuple[str, str] | None:
    """A query and an image; None if the user leaves."""
    try:
        while not (query := input(QUERY_PROMPT).strip()):
            continue
        if query.lower() in EXIT_COMMANDS:
            return None
        image = input(IMAGE_PROMPT).strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return None
    return None if image.lower() in EXIT_COMMANDS else (query, image)


def _format_table(result: Result) -> str:
    table = result.to_dataframe()
    return table.to_string(index=False, float_format="{:.2f}".format) if len(table) else "(no instances)"


def _save_overlay(folder: Path, result: Result, image: str) -> Path:
    """Write the image with the result drawn on it, under a name that is not taken."""
    from ..visualization.overlay import to_png

    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{Path(image.split('?')[0]).stem or 'image'}-{result.task.strip('<>') or 'question'}"
    path, number = folder / f"{stem}.png", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.png"
    path.write_bytes(to_png(result.image, result))
    return path


def _append_jsonl(path: Path, query: str, image: str, result: Result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {"query": query, "image": image, "response": Response(result), "result": result.to_dict()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
