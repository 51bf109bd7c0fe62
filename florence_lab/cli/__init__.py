"""The command line `florence-lab`: one function for each command in `commands`, parsing in `arguments`."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TextIO

from ..exceptions import FlorenceLabError
from .commands import COMMANDS
from .swift_options import name_as_given, parse_arguments

_PROGRAM = "florence-lab"
_INVALID = 2  # exit status, the same that argparse uses
_INTERRUPTED = 130  # exit status of a process that Ctrl+C ended

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Messages and warnings of the package go to standard error, each in a line that begins with `florence-lab: `.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        0, 2 if the command failed (standard error says why), or 130 if Ctrl+C ended it.

    Raises:
        SystemExit: for `--help` (status 0) and for arguments that cannot be parsed (status 2).
    """
    with _messages_on_stderr():
        arguments = parse_arguments(_build_parser(), argv)
        try:
            return arguments.run(arguments) or 0
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            logger.error("%s", name_as_given(_format_error(error), getattr(arguments, "given_as", None)))
            return _INVALID
        except KeyboardInterrupt:
            return _INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage, which takes half a screen for `sft`."""

    def error(self, message: str) -> NoReturn:
        message = name_as_given(message, self.get_default("given_as"))
        self.exit(_INVALID, f"{_PROGRAM}: {message}; see {self.prog} --help\n")


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=_PROGRAM, description="A research toolkit for Florence-2.")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.help, description=command.help)
        if command.add_arguments is not None:
            command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


@contextmanager
def _messages_on_stderr() -> Iterator[None]:
    """Show log messages of the package and user warnings as lines on standard error, until the block ends."""
    package_logger = logging.getLogger(__name__.partition(".")[0])
    level, propagate = package_logger.level, package_logger.propagate
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{_PROGRAM}: %(message)s"))
    package_logger.addHandler(handler)
    package_logger.setLevel(logging.INFO)
    package_logger.propagate = False  # or a handler of the root logger would show each message a second time
    try:
        with warnings.catch_warnings():  # restores showwarning as well
            warnings.showwarning = _log_warning
            yield
    finally:
        package_logger.removeHandler(handler)
        package_logger.setLevel(level)
        package_logger.propagate = propagate


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, UserWarning):  # deprecations concern the authors of libraries
        logger.warning("%s", message)


def _format_error(error: BaseException) -> str:
    message = str(error) or type(error).__name__
    # messages of the package may list rows; those of other libraries may be pages long
    return message if isinstance(error, FlorenceLabError) else " ".join(message.split())
