"""The tokens of Florence-2: splitting a generated sequence into text, location tokens and separators."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .locations import LOCATION_RE, LOCATION_TOKENS, NUM_BINS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The tokens that the published processor appends to BART's vocabulary, in this order. The misspelling is theirs.
ADDED_TOKENS = [
    *("<od>", "</od>", "<ocr>", "</ocr>", *LOCATION_TOKENS),
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"),
    *("<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"),
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
]

# Phrases of a caption that have no box: pronouns, and the image itself. The published processor drops them too
# (`banned_grounding_tokens`).
NOT_GROUNDABLE = frozenset(
    "i me mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself we us our "
    "ours ourselves they them their theirs themselves one oneself this that these those who whom whose which what all "
    "another any anybody anyone anything each everybody everyone everything few many nobody none several some somebody "
    "someone something the a an image images lots".split()
) | {"each other", "one another", "the image", "a group", "a set", "other objects"}

SEPARATORS = ("<sep>", "<and>", "<poly>", "</poly>")

_SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")

# The other tokens of the vocabulary. No answer contains them, but a model may still generate them.
_UNUSED_TOKENS = sorted({*ADDED_TOKENS, "<unk>", "<mask>", "<image>"}.difference(LOCATION_TOKENS, SEPARATORS))

RESERVED_TOKENS = (*_SPECIAL_TOKENS, *_UNUSED_TOKENS)
"""Tokens that neither a prompt nor an answer contains as text. The tokenizer adds `<s>`, `</s>` and `<pad>` by itself."""

_MARKUP_RE = re.compile(f"({'|'.join([LOCATION_RE.pattern, *SEPARATORS])})")
_SPECIAL_RE = re.compile("|".join(_SPECIAL_TOKENS))
_UNUSED_RE = re.compile("|".join(_UNUSED_TOKENS))


class TokenSpan(NamedTuple):
    """Consecutive generated tokens: text, one location token, or one separator (`<sep> <and> <poly> </poly>`).

    Attributes:
        text: the decoded text, or the token.
        bin: 0..999 for a location token, else None.
        positions: indices of the tokens in the generated sequence.
    """

    text: str
    bin: int | None
    positions: tuple[int, ...]

    @property
    def is_text(self) -> bool:
        """Whether the span is text, neither a location token nor a separator."""
        return self.bin is None and self.text not in SEPARATORS


@dataclass(frozen=True)
class Vocabulary:
    """The token ids of a tokenizer, by their role in an answer.

    Attributes:
        tokenizer: the tokenizer.
        special_ids: `<s>`, `</s>` and `<pad>`, which are not part of the raw answer.
        skipped_ids: the special ids, and those that no label or text contains.
        markup: id -> (token, bin) of location tokens and separators; the bin of a separator is None.
        location_ids: the ids of `<loc_0>` … `<loc_999>`.
    """

    tokenizer: PreTrainedTokenizerBase
    special_ids: frozenset[int]
    skipped_ids: frozenset[int]
    markup: dict[int, tuple[str, int | None]]
    location_ids: range

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
        """Look up the ids of a tokenizer.

        Raises:
            ValueError: if the tokenizer is not a Florence-2 tokenizer.
        """

        def ids_of(tokens: Sequence[str]) -> list[int]:
            ids = tokenizer.convert_tokens_to_ids(list(tokens))
            return ids if isinstance(ids, list) else [ids]

        ids = ids_of(LOCATION_TOKENS)
        location_ids = range(ids[0], ids[0] + NUM_BINS)
        if ids != list(location_ids):
            raise ValueError("not a Florence-2 tokenizer: it lacks the 1,000 consecutive location tokens")
        markup: dict[int, tuple[str, int | None]] = {
            id_: (token, n) for n, (id_, token) in enumerate(zip(location_ids, LOCATION_TOKENS, strict=True))
        }
        markup |= {id_: (token, None) for id_, token in zip(ids_of(SEPARATORS), SEPARATORS, strict=True)}
        special, unused = frozenset(ids_of(_SPECIAL_TOKENS)), frozenset(ids_of(_UNUSED_TOKENS))
        return cls(tokenizer, special, special | unused, markup, location_ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the generated text with location tokens and separators, without `<s>`, `</s>` and `<pad>`."""
        return self._decode([i for i in token_ids if i not in self.special_ids])

    def split(self, token_ids: Sequence[int]) -> list[TokenSpan]:
        """Split token ids into spans. Text tokens in a row form one span; tokens that no answer contains are skipped."""
        spans: list[TokenSpan] = []
        text_positions: list[int] = []

        def flush() -> None:
            if text_positions:
                text = self._decode([token_ids[i] for i in text_positions])
                spans.append(TokenSpan(text, None, tuple(text_positions)))
                text_positions.clear()

        for position, token_id in enumerate(token_ids):
            if token_id in self.markup:
                flush()
                spans.append(TokenSpan(*self.markup[token_id], (position,)))
            elif token_id not in self.skipped_ids:
                text_positions.append(position)
        flush()
        return spans

    def _decode(self, token_ids: Sequence[int]) -> str:
        text = self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)


def split_text(text: str) -> tuple[str, list[TokenSpan]]:
    """Split a text in Florence-2's answer grammar, such as a training target.

    Returns:
        The text without `<s>`, `</s>` and `<pad>`, and its spans. Positions count the spans, as there are no tokens.
    """
    raw = _SPECIAL_RE.sub("", text)
    parts = filter(None, _MARKUP_RE.split(_UNUSED_RE.sub("", raw)))
    return raw, [
        TokenSpan(part, int(part[5:-1]) if LOCATION_RE.fullmatch(part) else None, (i,)) for i, part in enumerate(parts)
    ]
