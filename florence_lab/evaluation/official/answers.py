"""Accuracy of answers to questions, by the rules of VQAv2, TextVQA and DocVQA.

The rules are those of the published scorers: `vqaEval.py` of GT-Vision-Lab/VQA, `m4c_evaluators.py` of facebookresearch/mmf, and
the ANLS of the Robust Reading Competition. The tests compare values with those of that code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...argument_validation import validate_arguments
from .text import edit_distance

ANLS_THRESHOLD = 0.5

_NUMBER_WORDS = "zero one two three four five six seven eight nine ten".split()
_NUMBERS = {word: str(i) for i, word in enumerate(_NUMBER_WORDS)} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_RE = re.compile(r"\d,\d")
_COMMAS_RE = re.compile(r"\d,+\d")
# The published pattern begins with "(?!<=\d)", a slip for a lookbehind, which excludes nothing.
_PERIOD_RE = re.compile(r"\.(?!\d)")
_MAX_PERIODS = 32  # the published code passes re.UNICODE, which equals 32, in place of the count

_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd
    how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't
    'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
    they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll
    who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
""".split()
_CONTRACTIONS = {
    word[:i] + word[i + 1 :]: word for word in _CONTRACTED for i, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}
"""Contraction that lacks one of its apostrophes -> as it is written. The last entry is the published code's."""


@validate_arguments
def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return the accuracy of VQAv2: the mean over the annotators of min(1, equal answers of the others / 3).

    Answer and references are normalized if the references differ from each other: punctuation and articles are removed, numbers
    become digits, and apostrophes of contractions are restored.

    Args:
        answer: what the model answers.
        references: the answers of the annotators, ten in the published files.
    """
    answer, references = _strip(answer), [_strip(reference) for reference in references]
    if len(set(references)) > 1:
        answer, references = _normalize_vqa(answer), [_normalize_vqa(reference) for reference in references]
    return _leave_one_out(answer, references)


@validate_arguments
def textvqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return the accuracy of TextVQA: that of VQAv2, with a further normalization that applies to all answers."""
    return _leave_one_out(_normalize_textvqa(answer), [_normalize_textvqa(reference) for reference in references])


@validate_arguments
def anls(answer: str, references: Sequence[str], threshold: float = ANLS_THRESHOLD) -> float:
    """Return the normalized Levenshtein similarity to the closest reference, 0 below a threshold, of DocVQA and ST-VQA.

    Case is ignored, and white space of any length is one space. Two empty answers are equal.

    Args:
        answer: what the model answers.
        references: the accepted answers. Without any the similarity is 0.
        threshold: smaller similarities count as 0.
    """
    similarity = max((_similarity(answer, reference) for reference in references), default=0.0)
    return similarity if similarity >= threshold else 0.0


def _similarity(answer: str, reference: str) -> float:
    length = max(len(answer), len(reference))
    distance = edit_distance(*(" ".join(text.lower().split()) for text in (answer, reference)))
    return 1 - distance / length if length else 1.0


def _leave_one_out(answer: str, references: Sequence[str]) -> float:
    """The mean over references of min(1, how many of the others equal the answer / 3)."""
    if not references:
        return float("nan")
    num_equal = sum(reference == answer for reference in references)
    return sum(min(1.0, (num_equal - (reference == answer)) / 3) for reference in references) / len(references)


def _strip(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _normalize_vqa(text: str) -> str:
    return _normalize_words(_remove_punctuation(text, _COMMA_RE))


def _normalize_textvqa(text: str) -> str:
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return _normalize_words(_remove_punctuation(_strip(text.strip()), _COMMAS_RE))


def _remove_punctuation(text: str, comma_re: re.Pattern[str]) -> str:
    """Remove punctuation beside a space, and all of it in a text with a number such as 1,000; the rest becomes spaces."""
    result = text
    has_comma = comma_re.search(text) is not None
    for mark in _PUNCTUATION:
        is_removed = has_comma or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if is_removed else " ")
    return _PERIOD_RE.sub("", result, count=_MAX_PERIODS)


def _normalize_words(text: str) -> str:
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
