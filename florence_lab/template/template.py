"""`FlorenceTemplate`: prompts for the model, and results from what it generates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentTypeError, PromptError, shorten
from ..results import Result
from ..tasks import Task
from .confidence import TokenProbabilities
from .locations import Region, RegionFormat
from .parsing import build_result
from .prompts import Prompt, build_prompt
from .vocabulary import TokenSpan, Vocabulary, split_text

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class FlorenceTemplate:
    """Prompt construction and answer parsing of Florence-2.

    Attributes:
        tokenizer: the tokenizer of the checkpoint. `build_prompt` and `parse_text` work without one.
    """

    tokenizer: PreTrainedTokenizerBase | None = field(default=None, repr=False)

    def build_prompt(
        self,
        query: str,
        text: str | Region | None = None,
        image_size: tuple[int, int] | None = None,
        region_format: RegionFormat = "xyxy",
    ) -> Prompt:
        """Return the prompt of a query.

        Args:
            query: a task token, alone or followed by its phrase (`"<OPEN_VOCABULARY_DETECTION>a sheep"`), or a free-form
                question.
            text: the phrase, or the region as four numbers or as four location tokens.
            image_size: (width, height); required for a region of four numbers.
            region_format: the units of the four numbers, see `locations.REGION_FORMATS`.

        Raises:
            PromptError: for a misspelled task token, and for a missing input or one that the task does not accept.
        """
        if image_size is None and not isinstance(text, (str, type(None))):
            raise PromptError(f"the region {shorten(text)} in pixels needs the size of the image")
        return build_prompt(query, text, image_size, region_format=region_format)

    def parse(
        self,
        token_ids: Iterable[int],
        prompt: Prompt | Task | str,
        image_size: tuple[int, int],
        probabilities: TokenProbabilities | None = None,
        image: Image.Image | None = None,
        truncated: bool = False,
    ) -> Result:
        """Parse generated token ids into a typed result in pixels.

        The parser accepts what models actually generate: text without boxes, boxes without text, a truncated last box,
        start and end tokens anywhere, a label followed by several boxes, doubled words and pronouns in grounding.

        Args:
            token_ids: the T generated ids.
            prompt: the prompt that was answered, or a task without input.
            image_size: (width, height) in pixels.
            probabilities: of the T tokens; without them the result has no scores.
            image: stored in the result, for drawing.
            truncated: stored in the result.
        """
        ids = _to_ids(token_ids)
        vocabulary = self.vocabulary
        raw, spans = vocabulary.decode(ids), vocabulary.split(ids)
        return build_result(spans, raw, _as_prompt(prompt), image_size, probabilities, image, truncated)

    @validate_arguments
    def parse_text(self, text: str, prompt: Prompt | Task | str, image_size: tuple[int, int]) -> Result:
        """Parse a text in Florence-2's answer grammar, such as a training target. The result has no scores.

        Args:
            text: for example `"cat<loc_52><loc_333><loc_932><loc_774>"`.
            prompt: the prompt that the text answers, or a task without input.
            image_size: (width, height) in pixels.
        """
        raw, spans = split_text(text)
        return build_result(spans, raw, _as_prompt(prompt), image_size)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the generated text with location tokens and separators, without `<s>`, `</s>` and `<pad>`."""
        return self.vocabulary.decode(_to_ids(token_ids))

    def split_tokens(self, token_ids: Sequence[int]) -> list[TokenSpan]:
        """Split generated token ids into text, location tokens and separators."""
        return self.vocabulary.split(_to_ids(token_ids))

    @property
    def location_ids(self) -> range:
        """The token ids of `<loc_0>` … `<loc_999>`."""
        return self.vocabulary.location_ids

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the tokenizer by their role.

        Raises:
            ValueError: if there is no tokenizer, or if it is not a Florence-2 tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError(
                "this FlorenceTemplate has no tokenizer; only build_prompt and parse_text work without one"
            )
        return Vocabulary.from_tokenizer(self.tokenizer)


def _to_ids(token_ids: Iterable[int]) -> list[int]:
    """Token ids as integers of Python. They are not validated one by one, as streaming parses a sequence at each token."""
    try:
        return [int(token_id) for token_id in token_ids]
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentTypeError(f"token_ids must be whole numbers, got {shorten(token_ids)}") from error


def _as_prompt(prompt: Prompt | Task | str) -> Prompt:
    return prompt if isinstance(prompt, Prompt) else Prompt.from_task(prompt)
