"""Options of ms-swift 3 and 4 on the command line: a script that calls `swift` runs with `florence-lab` in its place.

`parse_arguments` replaces the options in the tables of `swift_option_tables` by our own before argparse reads them.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..exceptions import ArgumentError
from .swift_option_tables import REFUSED_COMMANDS, REFUSED_PREFIXES, TABLES, Entry, Ignore, Refuse

_OPTION = re.compile(r"--([A-Za-z][\w-]*)(=.*)?", re.DOTALL)

logger = logging.getLogger(__name__)


@dataclass
class _Option:
    """An option as it was given: its name without dashes, its arguments, and its values."""

    name: str
    arguments: list[str]
    values: list[str] = field(default_factory=list)


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command with our options, or with those of ms-swift.

    Args:
        parser: with one subparser for each command.
        argv: the arguments; by default those of the process.

    Returns:
        What the parser returns, with `given_as`: our name of an option -> the name that was given.

    Raises:
        SystemExit: for arguments that cannot be parsed (status 2) and for `--help` (status 0).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    command, *arguments = argv or [""]
    if command in REFUSED_COMMANDS:
        parser.error(f"the command {command} is not offered: {REFUSED_COMMANDS[command]}")
    subparser = _subparsers(parser).get(command)
    if subparser is not None:
        try:
            translated, given_as = translate_options(command, arguments, _option_names(subparser))
        except ArgumentError as error:
            subparser.error(str(error))
        for each in (parser, subparser):  # for their messages
            each.set_defaults(given_as=given_as)
        argv = [command, *translated]
    return parser.parse_args(argv)


def name_as_given(message: str, given_as: dict[str, str] | None) -> str:
    """Return a message in which options have the names that the user gave, see `parse_arguments`."""
    for ours, given in (given_as or {}).items():
        message = re.sub(rf"--{ours}\b", f"--{given}", message)
    return message


def translate_options(
    command: str, arguments: Sequence[str], own_options: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """Replace the options of ms-swift by our own.

    Args:
        command: the command.
        arguments: what follows it.
        own_options: names of the options that the command has, without dashes.

    Returns:
        The arguments, and our name of each option that was only renamed -> the name that was given.

    Raises:
        ArgumentError: for an option that does not exist or does not apply, and for one that is given under two names.
    """
    table = TABLES.get(command, {})
    options = _split(arguments)
    given = {option.name: option.values for option in options}
    translated: list[str] = []
    given_as: dict[str, str] = {}
    source: dict[str, str] = {}  # our option -> the option that gave it
    for option in options:
        entry = table.get(option.name)
        new = option.arguments
        if entry is not None:
            new = entry.translate(option.name, option.values, given)
        elif option.name and not _is_known(option.name, own_options):
            raise ArgumentError(_describe_unknown(option.name, table, own_options))
        if isinstance(entry, Ignore):
            logger.info("--%s is ignored: %s", option.name, entry.reason)
        for name in (other.name for other in _split(new) if other.name):
            if name != option.name and new == [f"--{name}", *option.values]:
                given_as[name] = option.name
            if entry is not None and name not in own_options:
                raise ArgumentError(
                    f"--{option.name} does not apply to `florence-lab {command}`, which has no --{name}"
                )
            if source.setdefault(name, option.name) != option.name:
                raise ArgumentError(f"--{source[name]} and --{option.name} set the same option; give one of them")
        translated += new
    return translated, given_as


def _split(arguments: Iterable[str]) -> list[_Option]:
    """Group arguments by their options. Arguments before the first option have an empty name."""
    options = [_Option("", [])]
    for argument in arguments:
        match = _OPTION.fullmatch(argument)
        if match:
            options.append(_Option(match[1], [argument], [match[2][1:]] if match[2] else []))
        else:
            options[-1].arguments.append(argument)
            options[-1].values.append(argument)
    return options


def _is_known(name: str, own_options: Collection[str]) -> bool:
    return any(own.startswith(name) for own in own_options)  # argparse accepts a beginning that is unique


def _describe_unknown(name: str, table: Mapping[str, Entry], own_options: Collection[str]) -> str:
    for prefix, reason in REFUSED_PREFIXES.items():
        if table and name.startswith(prefix):
            return f"--{name} does not apply: {reason}"
    applicable = [other for other, entry in table.items() if not isinstance(entry, (Ignore, Refuse))]
    closest = difflib.get_close_matches(name.replace("-", "_").lower(), [*own_options, *applicable], n=1)
    return f"unknown option --{name}" + (f" (did you mean --{closest[0]}?)" if closest else "")


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands. argparse has no public name for them."""
    actions = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
    return dict(next(actions).choices)


def _option_names(parser: argparse.ArgumentParser) -> list[str]:
    """The names of the options of a command, without dashes. argparse has no public name for them."""
    strings = (text for action in parser._actions for text in action.option_strings)  # noqa: SLF001
    return [text.removeprefix("--") for text in strings if text.startswith("--")]
