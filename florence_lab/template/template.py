"""TODO"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from ..results import Result
from ..tasks import Task, split_query
from .locations import _LOCATION
from .parsing import _build_result
from .prompts import _CHINESE, _INPUT_READERS, _name
from .vocabulary import _IGNORED_MARKUP, _MARKUP, _SILENT_MARKUP, TokenSpan, _Vocabulary

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedTokenizerBase

    from .confidence import TokenProbabilities
    from .locations import Region


@dataclass(frozen=True)
class FlorenceTemplate:
    """The words of Florence-2: `prompt` builds what the model reads, `parse` reads what it wrote.

    Attributes:
        tokenizer: the checkpoint's tokenizer; only `parse` and `decode` need it (`parse_text` reads plain strings).
    """

    tokenizer: PreTrainedTokenizerBase | None = field(default=None, repr=False)

    # ------------------------------------------------------------------ people's words -> the prompt

    def prompt(
        self, query: str, text: str | Region | None = None, image_size: tuple[int, int] | None = None
    ) -> tuple[Task, str, str]:
        """The task of a query, the phrase or region that goes into its prompt, and the prompt.

        Args:
            query: a task token, alone or with its phrase behind it (`"<OPEN_VOCABULARY_DETECTION>a sheep"`), or a
                question in your own words.
            text: the phrase, or the region as (x0, y0, x1, y1) in pixels or as four location tokens.
            image_size: (width, height); needed for a region in pixels.

        Raises:
            ValueError: for an unknown task, and for a missing input or one that the task can't take.
        """
        task, phrase = split_query(query)
        beside = "" if text is None else text
        if phrase and not (isinstance(beside, str) and not beside.strip()):
            raise ValueError(f"{_name(task)} got its input twice: {phrase!r} in the query and {beside!r} beside it")
        phrase = _INPUT_READERS[task.input](task, phrase or beside, image_size)
        if _CHINESE.search(phrase):
            warnings.warn(
                f"Florence-2 was not trained on Chinese; the answer to {phrase!r} may be useless", stacklevel=3
            )
        return task, phrase, task.prompt.replace("{input}", phrase)

    # ------------------------------------------------------------------ the model's tokens -> a result

    def parse(
        self,
        token_ids: Iterable[int],
        task: str | Task,
        image_size: tuple[int, int],
        phrase: str = "",
        probabilities: TokenProbabilities | None = None,
        image: Image.Image | None = None,
    ) -> Result:
        """Generated token ids -> a typed result in pixels of an image of (width, height).

        Tolerant of what models really emit: text without boxes and boxes without text, a cut-off last box, start and
        end tokens anywhere, a label in front of several boxes, doubled words and pronouns in grounding.
        """
        ids = [int(i) for i in token_ids]
        return _build_result(
            self._pieces(ids),
            self.decode(ids),
            task,
            image_size,
            phrase=phrase,
            probabilities=probabilities,
            image=image,
        )

    def parse_text(self, raw: str, task: str | Task, image_size: tuple[int, int], phrase: str = "") -> Result:
        """The same for text in Florence-2's grammar, as in a training target: no tokenizer, and no scores."""
        raw = _SILENT_MARKUP.sub("", raw)
        pieces = []
        for i, part in enumerate(filter(None, _MARKUP.split(_IGNORED_MARKUP.sub("", raw)))):
            pieces.append(TokenSpan(part, int(part[5:-1]) if _LOCATION.fullmatch(part) else None, (i,)))
        return _build_result(pieces, raw, task, image_size, phrase=phrase)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text as generated: location tokens and all, without `<s>`, `</s>` and `<pad>`."""
        kept = [i for i in token_ids if i not in self._vocabulary.silent]
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _pieces(self, ids: Sequence[int]) -> list[TokenSpan]:
        """Token ids -> pieces: neighbouring word tokens are decoded together, tokens that say nothing are passed over."""
        vocabulary = self._vocabulary
        pieces: list[TokenSpan] = []
        words: list[int] = []

        def flush() -> None:
            if words:
                text = self.tokenizer.decode([ids[i] for i in words], clean_up_tokenization_spaces=False)
                pieces.append(TokenSpan(text, None, tuple(words)))
                words.clear()

        for position, token_id in enumerate(ids):
            if token_id in vocabulary.markup:
                flush()
                pieces.append(TokenSpan(*vocabulary.markup[token_id], (position,)))
            elif token_id not in vocabulary.ignored:
                words.append(position)
        flush()
        return pieces

    @cached_property
    def _vocabulary(self) -> _Vocabulary:
        return _Vocabulary.of(self.tokenizer)

    @property
    def first_location_id(self) -> int:
        """The id of `<loc_0>`; the other 999 follow it."""
        return self._vocabulary.first_location_id
