"""TODO"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .locations import _LOCATION, _LOCATION_NAMES, NUM_BINS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The tokens that the published processor adds behind BART's vocabulary, in this order (the misspelling is theirs).
ADDED_TOKENS = (
    ["<od>", "</od>", "<ocr>", "</ocr>"]
    + [f"<loc_{i}>" for i in range(1000)]
    + ["<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"]
    + ["<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"]
    + ["<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"]
)

# What a caption's grounding may name without meaning a thing that can be boxed: pronouns, and the picture itself. The
# published processor drops such phrases too.
NOT_GROUNDABLE = frozenset(
    "i me mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself we us our "
    "ours ourselves they them their theirs themselves one oneself this that these those who whom whose which what all "
    "another any anybody anyone anything each everybody everyone everything few many nobody none several some somebody "
    "someone something the a an image images lots".split()
) | {"each other", "one another", "the image", "a group", "a set", "other objects"}

_SEPARATORS = ("<sep>", "<and>", "<poly>", "</poly>")

_SILENT = ("<s>", "</s>", "<pad>")

# What else the vocabulary adds to words. It belongs to no answer, but nothing keeps a model from emitting it.
_IGNORED = sorted({*ADDED_TOKENS, "<unk>", "<mask>", "<image>"}.difference(_LOCATION_NAMES, _SEPARATORS))

_MARKUP = re.compile(f"({'|'.join([_LOCATION.pattern, *_SEPARATORS])})")

_SILENT_MARKUP = re.compile("|".join(_SILENT))

_IGNORED_MARKUP = re.compile("|".join(_IGNORED))


class TokenSpan(NamedTuple):
    """A run of generated tokens: words, one location token, or one of `<sep> <and> <poly> </poly>`.

    Attributes:
        text: the words, or the token.
        location: 0..999 if it is a location token, else None.
        tokens: the positions of its tokens in the generated sequence.
    """

    text: str
    location: int | None
    tokens: tuple[int, ...]


class _Vocabulary(NamedTuple):
    """Token ids: those without a place in `raw`, those without one in words and labels, and what the others mean."""

    silent: frozenset[int]
    ignored: frozenset[int]
    markup: dict[int, tuple[str, int | None]]
    first_location_id: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> _Vocabulary:
        location_ids = tokenizer.convert_tokens_to_ids(_LOCATION_NAMES)
        first = location_ids[0]
        if location_ids != list(range(first, first + NUM_BINS)):
            raise ValueError("this tokenizer has no 1,000 location tokens in a row, so it is none of Florence-2")
        markup: dict[int, tuple[str, int | None]] = {first + i: (name, i) for i, name in enumerate(_LOCATION_NAMES)}
        markup |= {tokenizer.convert_tokens_to_ids(name): (name, None) for name in _SEPARATORS}
        silent = frozenset(tokenizer.convert_tokens_to_ids(list(_SILENT)))
        ignored = frozenset(tokenizer.convert_tokens_to_ids(_IGNORED))
        return cls(silent, silent | ignored, markup, first)
