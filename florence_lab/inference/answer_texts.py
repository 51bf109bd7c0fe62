"""The text of an answer as a state machine over tokens: any text, one of given phrases, or text of given characters.

Tokens of Florence-2 are sequences of bytes, and one text has many tokenizations, so all three follow the bytes. Texts are kept
in the form in which the tokenizer's vocabulary is written, one printable character for each byte (`"a cat"` is `"aĠcat"`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from tokenizers import decoders, pre_tokenizers

from ..template.vocabulary import NOT_GROUNDABLE, Vocabulary

TEXT, BLANK, LOCATION, END, UNUSED = range(-1, -6, -1)
"""Kinds of tokens: text, text of white space only, location tokens, tokens that end an answer, and all others. They are negative,
so that they differ from token ids."""

_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_CHARACTERS = decoders.ByteLevel()
_PRINTABLE_RE = re.compile("[!-~]")
_LONGEST = max(map(len, NOT_GROUNDABLE))
_EAST_ASIAN = "\u2e80"  # the first character of scripts without spaces between words


class TokenTable:
    """The tokens of a vocabulary by their kind and by their text.

    Attributes:
        kinds: the kind of each of the V token ids.
        texts: text of a token, in the form of the vocabulary -> its id. Location tokens and the like have none.
        device: of the masks.
    """

    def __init__(self, vocabulary: Vocabulary, vocab_size: int, end_ids: Iterable[int], device: torch.device) -> None:
        """
        Args:
            vocabulary: the vocabulary.
            vocab_size: number of token ids, V, of the model.
            end_ids: tokens that end an answer.
            device: of the masks.
        """
        self.device = device
        self.location_ids = vocabulary.location_ids
        self.separator_ids = {token: id_ for id_, (token, bin_) in vocabulary.markup.items() if bin_ is None}
        self.kinds = [UNUSED] * vocab_size
        self.texts: dict[str, int] = {}
        added = vocabulary.tokenizer.added_tokens_decoder
        for token, id_ in vocabulary.tokenizer.get_vocab().items():
            if id_ < vocab_size and id_ not in vocabulary.markup and id_ not in vocabulary.skipped_ids:
                text = to_bytes(token) if id_ in added else token
                self.texts[text] = id_
                self.kinds[id_] = BLANK if _is_blank(text) else TEXT
        for id_ in self.location_ids:
            self.kinds[id_] = LOCATION
        for id_ in end_ids:
            self.kinds[id_] = END
        self.longest = max(map(len, self.texts), default=0)

    @cached_property
    def masks(self) -> dict[int, torch.Tensor]:
        """Kind -> mask of its tokens, V bool."""
        kinds = torch.tensor(self.kinds, device=self.device)
        return {kind: kinds == kind for kind in (TEXT, BLANK, LOCATION, END)}

    @cached_property
    def all_tokens(self) -> torch.Tensor:
        """The mask of all tokens, V bool."""
        return torch.ones(len(self.kinds), dtype=torch.bool, device=self.device)

    def mask(self, keys: Iterable[int]) -> torch.Tensor:
        """Return the mask of tokens, V bool. A key is a token id or a kind."""
        mask = torch.zeros(len(self.kinds), dtype=torch.bool, device=self.device)
        token_ids = []
        for key in keys:
            if key >= 0:
                token_ids.append(key)
            else:
                mask |= self.masks[key]
        mask[token_ids] = True
        return mask


class TextState(Protocol):
    """What has been generated of a text.

    Attributes:
        is_end: whether the text may end here.
        is_choice: whether the text is one of the labels that the caller allows.
    """

    is_end: bool
    is_choice: bool

    @property
    def keys(self) -> Iterable[int]:
        """The tokens that may follow: token ids, or kinds."""
        ...

    def advance(self, token_id: int, kind: int) -> TextState | None:
        """Return the state after one more token; None if the token cannot follow."""
        ...


class FreeText:
    """Any text."""

    is_choice = False
    keys = (TEXT, BLANK)

    def __init__(self, is_end: bool) -> None:
        self.is_end = is_end

    def advance(self, token_id: int, kind: int) -> TextState | None:
        """Return the state after one more token, see `TextState`."""
        if kind == TEXT:
            return ANY_TEXT
        return self if kind == BLANK else None


ANY_TEXT = FreeText(is_end=True)
"""Any text, also none."""

NONEMPTY_TEXT = FreeText(is_end=False)
"""Text that is more than white space."""


class Phrase(NamedTuple):
    """A part of a source text.

    Attributes:
        source: index of the source text.
        start: its position there.
        ends: positions where the phrase may end.
        last: the greatest of them.
    """

    source: int
    start: int
    ends: frozenset[int]
    last: int


class PhraseTree:
    """A prefix tree over the tokens of phrases, in all their tokenizations. Its nodes are made when they are reached.

    Phrases begin without a space, as in targets: `car<loc_1>…dog<loc_5>…`. (A model that is restricted to few labels may find the
    token of a word within a sentence, `Ġdog`, more probable for no good reason.)
    """

    def __init__(self, table: TokenTable, sources: Sequence[str], phrases: Sequence[Phrase], is_choice: bool) -> None:
        """
        Args:
            table: the tokens.
            sources: texts, in the form of the vocabulary.
            phrases: parts of them.
            is_choice: see `TextState`.
        """
        self.is_choice = is_choice
        self.root = PhraseNode(self, [(phrase, phrase.start) for phrase in phrases])
        self._table, self._sources = table, sources
        self._matches: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def matches(self, source: int, position: int) -> list[tuple[int, int]]:
        """Return the tokens that a source continues with at a position, each with the position behind it."""
        key = source, position
        if key not in self._matches:
            text, texts = self._sources[source], self._table.texts
            ends = range(position + 1, min(len(text), position + self._table.longest) + 1)
            self._matches[key] = [(texts[text[position:end]], end) for end in ends if text[position:end] in texts]
        return self._matches[key]


class PhraseNode:
    """A node of a `PhraseTree`: the phrases that begin with the tokens so far, and the position reached in each."""

    def __init__(self, tree: PhraseTree, candidates: list[tuple[Phrase, int]]) -> None:
        self.is_choice = tree.is_choice
        self.is_end = any(position in phrase.ends for phrase, position in candidates)
        self._tree, self._candidates = tree, candidates

    @cached_property
    def _children(self) -> dict[int, PhraseNode]:
        found: dict[int, list[tuple[Phrase, int]]] = {}
        for phrase, position in self._candidates:
            for token_id, end in self._tree.matches(phrase.source, position):
                if end <= phrase.last:
                    found.setdefault(token_id, []).append((phrase, end))
        return {token_id: PhraseNode(self._tree, candidates) for token_id, candidates in found.items()}

    @property
    def keys(self) -> Iterable[int]:
        """The tokens that may follow."""
        return self._children

    def advance(self, token_id: int, kind: int) -> TextState | None:
        """Return the state after one more token, see `TextState`."""
        return self._children.get(token_id)


def label_tree(table: TokenTable, labels: Sequence[str]) -> PhraseNode:
    """Return the root of the tree of whole labels."""
    sources = [to_bytes(label.strip()) for label in labels]
    phrases = [Phrase(i, 0, frozenset([len(source)]), len(source)) for i, source in enumerate(sources)]
    return PhraseTree(table, sources, phrases, is_choice=True).root


def caption_tree(table: TokenTable, caption: str) -> PhraseNode:
    """Return the root of the tree of the phrases of a caption: consecutive words, apart from those that have no box."""
    offsets = [0]
    for character in caption:
        offsets.append(offsets[-1] + len(character.encode()))
    boundaries = [i for i in range(len(caption) + 1) if _is_boundary(caption, i)]
    starts = [i for i in boundaries if not caption[i : i + 1].isspace()]
    ends = [i for i in boundaries if not caption[i - 1 : i].isspace()]
    phrases = []
    for start in starts:
        found = [end for end in ends if end > start and (end > start + _LONGEST or not _has_no_box(caption[start:end]))]
        if found:
            phrases.append(Phrase(0, offsets[start], frozenset(offsets[end] for end in found), offsets[found[-1]]))
    return PhraseTree(table, [to_bytes(caption)], phrases, is_choice=False).root


def _has_no_box(phrase: str) -> bool:
    return phrase.lower() in NOT_GROUNDABLE


def _is_boundary(text: str, position: int) -> bool:
    """Whether a word can begin or end at a position."""
    before, after = text[position - 1 : position], text[position : position + 1]
    return not (before.isalnum() and after.isalnum() and max(before, after) < _EAST_ASIAN)


class CharacterTree:
    """Text of given characters. One state for each beginning of a character, as tokens may end within one."""

    def __init__(self, table: TokenTable, characters: Iterable[str]) -> None:
        """
        Args:
            table: the tokens.
            characters: the characters.
        """
        self._characters = {to_bytes(character): not character.isspace() for character in characters}
        self._beginnings = {text[:i] for text in self._characters for i in range(len(text))}
        alphabet = {byte for text in self._characters for byte in text}
        self.tokens = [(text, id_) for text, id_ in table.texts.items() if alphabet.issuperset(text)]
        self._states: dict[tuple[str, bool], CharacterState] = {}

    def state(self, beginning: str = "", is_nonempty: bool = False) -> CharacterState:
        """Return the state after the first bytes of a character, in a text that is or is not more than white space."""
        key = beginning, is_nonempty
        return self._states.setdefault(key, CharacterState(self, beginning, is_nonempty))

    def follow(self, text: str, beginning: str, is_nonempty: bool) -> CharacterState | None:
        """Return the state after the text of a token; None if the text contains another character."""
        for byte in text:
            beginning += byte
            if beginning in self._characters:
                is_nonempty |= self._characters[beginning]
                beginning = ""
            elif beginning not in self._beginnings:
                return None
        return self.state(beginning, is_nonempty)


class CharacterState:
    """A state of a `CharacterTree`."""

    is_choice = False

    def __init__(self, tree: CharacterTree, beginning: str, is_nonempty: bool) -> None:
        self.is_end = is_nonempty and not beginning
        self._tree, self._beginning, self._is_nonempty = tree, beginning, is_nonempty

    @cached_property
    def _children(self) -> dict[int, CharacterState]:
        states = ((id_, self._tree.follow(text, self._beginning, self._is_nonempty)) for text, id_ in self._tree.tokens)
        return {id_: state for id_, state in states if state}

    @property
    def keys(self) -> Iterable[int]:
        """The tokens that may follow."""
        return self._children

    def advance(self, token_id: int, kind: int) -> TextState | None:
        """Return the state after one more token, see `TextState`."""
        return self._children.get(token_id)


def to_bytes(text: str) -> str:
    """Return a text in the form of the vocabulary, one printable character for each byte."""
    return "".join(part for part, _ in _BYTES.pre_tokenize_str(text))


def _is_blank(text: str) -> bool:
    """Whether a text in the form of the vocabulary is white space."""
    return not _PRINTABLE_RE.search(text) and not str(_CHARACTERS.decode([text])).strip()
