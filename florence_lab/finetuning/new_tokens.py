"""The tokens that a run adds to the vocabulary, as `--new_special_tokens` gives them."""

from __future__ import annotations

import re
from pathlib import Path

from ..argument_validation import validate_text
from ..exceptions import ArgumentError, shorten, summarize_error
from ..tasks import Task, get_task, register_task
from ..template.vocabulary import RESERVED_TOKENS, SEPARATORS
from .arguments import SftArguments

_OPTION = "--new_special_tokens"
_LOCATION_RE = re.compile(r"<loc_\d+>")


def read_new_tokens(arguments: SftArguments) -> list[str]:
    """Return the new tokens of a run, without repetitions. Those that look like a misspelled task become a task of their own.

    Args:
        arguments: their `new_special_tokens` are tokens, or names of `.txt` files with tokens between blanks, as in ms-swift.

    Raises:
        ArgumentError: for a file that cannot be read, a token with blanks, one that Florence-2 has already, and one of a task
            whose prompt does not contain it.
    """
    tokens = [token for item in arguments.new_special_tokens for token in _read_item(item)]
    for token in tokens:
        _check_token(token)
        if token.startswith("<") and token.endswith(">"):
            _check_task(token)
    return list(dict.fromkeys(tokens))


def _read_item(item: str) -> list[str]:
    if not item.endswith(".txt"):
        return [item.strip()]
    path = Path(item).expanduser()
    try:
        tokens = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{_OPTION} {shorten(item)}: the file cannot be read: {summarize_error(error)}") from error
    if not tokens:
        raise ArgumentError(f"{_OPTION} {shorten(item)}: the file has no tokens")
    return tokens


def _check_token(token: str) -> None:
    validate_text(_OPTION, token)
    if not token or token.split() != [token]:
        raise ArgumentError(f"{_OPTION} {shorten(token)}: a token is text without blanks, such as <DocVQA>")
    if token in RESERVED_TOKENS or token in SEPARATORS or _LOCATION_RE.fullmatch(token):
        raise ArgumentError(f"{_OPTION} {shorten(token)}: Florence-2 has this token already")


def _check_task(token: str) -> None:
    """Verify that prompts contain a token. One that `get_task` takes for a misspelled one is registered: here it is meant."""
    try:
        task = get_task(token)
    except ArgumentError:
        task = register_task(Task(token))
    if token not in task.prompt:
        raise ArgumentError(
            f"{_OPTION} {shorten(token)}: the model never reads this token, as the prompt of {task.token} is {task.prompt!r}"
        )
