"""`florence-lab infer`: an interactive session, or one query about many images."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import tee
from typing import Any, Literal

from tqdm.auto import tqdm

from ..exceptions import ImageError, PromptError
from ..predictor import Predictor
from ..results import Result
from ..sources import NamedSource
from ..swift import Response, seed_everything
from ..template.locations import Region, RegionFormat
from .answers import AnswerWriter, free_caption_path
from .errors import describe_error, is_debugging

QUERY_PROMPT = "<<< "
IMAGE_PROMPT = "Input a media path or URL <<< "
SEPARATOR = "-" * 50
EXIT_COMMANDS = ("exit", "quit")

Outcome = Result | ImageError | PromptError
"""An answer, or the reason why there is none."""


@dataclass(frozen=True)
class Session:
    """Answers queries about images.

    Attributes:
        predictor: the model.
        writer: prints and saves the answers.
        stream: print answers while they are generated.
        seed: seed of sampling. It is set for each answer, so that an answer does not depend on those before it.
        batch_size: images that are answered together; `"auto"` is as in `Predictor.predict_iter`.
        generate_kwargs: arguments of `generate`, as for `Predictor.predict`.
    """

    predictor: Predictor
    writer: AnswerWriter
    stream: bool = False
    seed: int = 42
    batch_size: int | Literal["auto"] = "auto"
    generate_kwargs: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Read queries and images from standard input, and answer them until the user leaves.

        `exit`, `quit`, the end of the input or Ctrl+C end the session. An error is printed, and the session continues.
        """
        while (request := _read_request()) is not None:
            query, image = request
            try:
                self.writer.write(
                    query, NamedSource(image, image), self._predict(query, image, None, "xyxy"), self.stream
                )
            except KeyboardInterrupt:
                return
            except Exception as error:
                print(describe_error(error))
                if is_debugging():
                    traceback.print_exception(error)
            print(SEPARATOR)

    def answer_images(
        self,
        query: str,
        sources: Iterable[NamedSource],
        region: Region | None = None,
        region_format: RegionFormat = "xyxy",
    ) -> int:
        """Answer one query about each image and return the number of images that failed.

        An image that cannot be opened, or that does not contain the region, is reported in the log and in `answers.jsonl`; the
        others are still answered. Images are decoded in batches, except for streams and random samples, which are
        reproducible one by one only.

        Args:
            query: the query.
            sources: the images. The length of a sequence is shown by the progress bar.
            region, region_format: the region of the query, as for `Predictor.predict`.
        """
        num_failed = 0
        for source, outcome in self._outcomes(query, sources, region, region_format):
            with tqdm.external_write_mode(sys.stdout):  # the progress bar is drawn again below
                error = self._write(query, source, outcome)
                if error is not None:
                    self.writer.write_error(query, source, error)
                    num_failed += 1
        return num_failed

    def _outcomes(
        self, query: str, sources: Iterable[NamedSource], region: Region | None, region_format: RegionFormat
    ) -> Iterator[tuple[NamedSource, Outcome]]:
        """Each image with its answer, or with the reason why it has none."""
        if self.stream or self._is_sampling:
            for source in sources:
                try:
                    yield source, self._predict(query, self._checked_image(source), region, region_format)
                except (ImageError, PromptError) as error:
                    yield source, error
            return
        named, read = tee(sources)
        images: Iterable[Any] = map(self._checked_image, read)
        if isinstance(sources, Sequence):
            images = list(images)
        outcomes = self.predictor.predict_iter(
            images, query, region, self.batch_size, region_format=region_format, **self.generate_kwargs
        )
        yield from zip(named, outcomes, strict=True)

    def _checked_image(self, source: NamedSource) -> Any:
        """The image, or an error in its place if its caption could not be written, which saves the work."""
        if not self.writer.caption_files or isinstance(source.image, ImageError):
            return source.image
        try:
            free_caption_path(source)
        except ImageError as error:
            return error
        return source.image

    def _write(self, query: str, source: NamedSource, outcome: Outcome) -> ImageError | PromptError | None:
        """Write an answer and return None, or the reason why it could not be given."""
        if not isinstance(outcome, Result):
            return outcome
        try:
            self.writer.write(query, source, outcome, is_printed=self.stream)
        except ImageError as error:
            return error
        return None

    @property
    def _is_sampling(self) -> bool:
        return bool(self.generate_kwargs.get("do_sample", self.predictor.model.generation_config.do_sample))

    def _predict(self, query: str, image: Any, region: Region | None, region_format: RegionFormat) -> Result:
        """Answer one query about one image. With `stream` the response is printed meanwhile."""
        seed_everything(self.seed)
        predict = self._print_stream if self.stream else self.predictor.predict
        return predict(image, query, region, region_format=region_format, **self.generate_kwargs)

    def _print_stream(self, image: Any, query: str, region: Region | None, **kwargs: Any) -> Result:
        """Print the response that `AnswerWriter` prints, piece by piece, and return the complete result."""
        printed = ""
        for result in self.predictor.stream(image, query, region, **kwargs):
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
