"""When two labels, or two short answers, are the same."""

from __future__ import annotations

import re
import string

_ARTICLE_RE = re.compile(r"^(?:an?|the) (?=.)")


def normalize_space(text: str) -> str:
    """Return a text whose words are separated by one space."""
    return " ".join(text.split())


def normalize_label(text: str) -> str:
    """Return the name of a category or region without case, punctuation at its ends and superfluous white space."""
    return normalize_space(text.casefold()).strip(string.punctuation + " ")


def normalize_phrase(text: str) -> str:
    """Return a normalized label without an article before it: "The man" and "man" are the same phrase."""
    return _ARTICLE_RE.sub("", normalize_label(text))
