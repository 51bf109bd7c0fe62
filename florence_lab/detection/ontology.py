"""The classes that a detection asks for, the words it asks with, and which class a generated label names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..argument_validation import validate_fields, validate_value
from ..exceptions import ArgumentError, shorten, unknown_name
from ..template.grammar import check_tokens
from ..template.vocabulary import split_text

ClassNames = Sequence[str] | Mapping[str, str | Sequence[str]]
"""Names of classes, or name -> the words to ask with."""

Phrases = Mapping[str, str | Sequence[str]]
"""Name of a class -> the words to ask with."""

_WORD_RE = re.compile(r"\w+")
_DETERMINERS = frozenset(
    "a an the this that these those my your his her its our their some one two three four five six seven eight nine ten several many few".split()
)
_NUMBERS_RE = re.compile(r"\d+")

_IRREGULAR = {
    "calves": "calf", "children": "child", "feet": "foot", "geese": "goose", "halves": "half", "hooves": "hoof",
    "knives": "knife", "leaves": "leaf", "lives": "life", "loaves": "loaf", "men": "man", "mice": "mouse", "oxen": "ox",
    "people": "person", "scarves": "scarf", "shelves": "shelf", "teeth": "tooth", "wives": "wife", "wolves": "wolf",
    "women": "woman", "cacti": "cactus", "buses": "bus", "gases": "gas", "lenses": "lens", "canvases": "canvas",
}  # fmt: skip
"""Plural -> singular, where no rule of `_singular` applies."""


@dataclass(frozen=True)
class Ontology:
    """The classes that a detection asks for, with the phrases that stand for each.

    Attributes:
        names: the C names, which become the labels of boxes. Their order gives the class ids.
        phrases: the words to ask with, one or more for each class.

    Raises:
        ArgumentError: without a class, for a name or phrase that occurs twice (upper and lower case are the same), and for
            words that cannot stand in a prompt: blank ones, and tokens such as `<loc_5>` or `</s>`.
    """

    names: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        validate_fields(self)
        if not self.names:
            raise ArgumentError("classes must name at least one class, got none")
        if len(self.phrases) != len(self.names):
            raise ArgumentError(f"{len(self.names)} classes, but {len(self.phrases)} phrases")
        for name in self.names:
            _check_words("a class", name)
        _check_unique("classes", self.names)
        for name, phrases in zip(self.names, self.phrases, strict=True):
            if not phrases:
                raise ArgumentError(f"the class {shorten(name)} needs at least one phrase")
            for phrase in phrases:
                _check_words(f"a phrase of {shorten(name)}", phrase)
        _check_unique("phrases", [phrase for phrases in self.phrases for phrase in phrases])

    @classmethod
    def from_classes(cls, classes: ClassNames, phrases: Phrases | None = None) -> Ontology:
        """Return the ontology of the arguments of `detect`. The words of a class without phrases are its name.

        Args:
            classes: names, or a mapping from name to phrases.
            phrases: name -> one phrase or several, for some of the classes.

        Raises:
            ArgumentError: as `Ontology`, for arguments of another type, and for phrases of no class.
        """
        if isinstance(classes, Mapping):
            if phrases is not None:
                raise ArgumentError("phrases were given twice: in classes, which is a mapping, and as phrases")
            phrases, classes = classes, list(classes)
        names = validate_value("classes", classes, Sequence[str])
        given = {} if phrases is None else validate_value("phrases", phrases, Mapping[str, str | Sequence[str]])
        for name in given:
            if name not in names:
                raise ArgumentError(
                    f"phrases for no class: {unknown_name('class', shorten(name), map(shorten, names))}"
                )
        chosen = [given.get(name, name) for name in names]
        return cls(
            tuple(names), tuple((p.strip(),) if isinstance(p, str) else tuple(map(str.strip, p)) for p in chosen)
        )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def queries(self) -> tuple[tuple[int, str], ...]:
        """All pairs of a class id and a phrase, in the order of the classes."""
        return tuple((i, phrase) for i, phrases in enumerate(self.phrases) for phrase in phrases)

    def named_by(self, label: str) -> tuple[int, ...]:
        """Return the ids of the classes that a label names: one whose name or phrase has the same words.

        Case, articles, numbers and the plural make no difference: "Two Buses" names the class "bus". "hot dog" does not name
        the class "dog".
        """
        return self._ids_of_words.get(_words(label), ())

    def mentioned_by(self, label: str, among: Sequence[int]) -> tuple[int, ...]:
        """Return the ids of the classes that a label in the answer to a caption refers to.

        A grounded label may be a part of the phrase that was asked, or say more: "a sheep on grass" for "white sheep". The
        classes that share the largest part of their words with the label are returned; several if they share equally much.

        Args:
            label: the label.
            among: the ids of the classes in the caption.
        """
        if exact := [i for i in self.named_by(label) if i in among]:
            return tuple(exact)
        words = set(_words(label))
        overlaps = {i: max(_overlap(words, set(phrase)) for phrase in self._words_of_class[i]) for i in among}
        best = max(overlaps.values(), default=0)
        return tuple(i for i, overlap in overlaps.items() if overlap == best > 0)

    @cached_property
    def _words_of_class(self) -> list[set[tuple[str, ...]]]:
        """The words of the name and of the phrases of each class."""
        return [
            {_words(text) for text in (name, *phrases)} for name, phrases in zip(self.names, self.phrases, strict=True)
        ]

    @cached_property
    def _ids_of_words(self) -> dict[tuple[str, ...], tuple[int, ...]]:
        ids: dict[tuple[str, ...], tuple[int, ...]] = {}
        for i, texts in enumerate(self._words_of_class):
            for words in texts:
                ids[words] = (*ids.get(words, ()), i)
        return ids


def with_article(phrase: str) -> str:
    """Return a phrase as it stands in a caption: "a sheep", "an old car"; a plural, and words with a determiner, as they are."""
    words = phrase.casefold().split()
    if not phrase.isascii() or words[0] in _DETERMINERS or _singular(words[-1]) != words[-1]:
        return phrase
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {phrase}"


def _check_words(what: str, text: str) -> None:
    """Raise an `ArgumentError` for words that cannot stand in a prompt, or that cannot be a label."""
    if not text.strip():
        raise ArgumentError(f"{what} must not be blank, got {shorten(text)}")
    check_tokens(text)
    if [span.text for span in split_text(text)[1] if span.is_text] != [text]:
        raise ArgumentError(f"{what} must not contain tokens such as <loc_5> or <sep>, got {shorten(text)}")


def _check_unique(what: str, texts: Sequence[str]) -> None:
    seen: set[str] = set()
    for text in texts:
        key = " ".join(text.casefold().split())
        if key in seen:
            raise ArgumentError(f"{what} must differ by more than case and spaces, but {shorten(text)} occurs twice")
        seen.add(key)


def _overlap(a: set[str], b: set[str]) -> float:
    """Return the Dice coefficient of two sets of words, 0..1."""
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 0.0


@lru_cache(maxsize=4096)
def _words(text: str) -> tuple[str, ...]:
    """Return the words of a text for comparison: lower case, singular, without articles and numbers."""
    words = _WORD_RE.findall(text.casefold())
    content = [w for w in words if w not in _DETERMINERS and not _NUMBERS_RE.fullmatch(w)]
    return tuple(_singular(w) for w in content or words) or (text.strip(),)  # such as an emoji, which is no word


def _singular(word: str) -> str:
    """Return the singular of an English noun, by the regular rules and a table.

    The result is for comparison only: a rule that goes too far, as for "lens", does so for both sides.
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("men"):
        return f"{word[:-2]}an"  # snowmen
    if len(word) <= 3 or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
        return word[:-2]
    return word.removesuffix("s")
