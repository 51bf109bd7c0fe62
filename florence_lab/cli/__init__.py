"""The command line `florence-lab`: one function for each command in `commands`, parsing in `arguments`."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import NoReturn, TextIO

from .commands import COMMANDS
from .errors import describe_error, is_debugging
from .swift_options import name_as_given, parse_arguments

_PROGRAM = "florence-lab"
_INVALID = 2  # exit status, the same that argparse uses
_INTERRUPTED = 130  # exit status of a process that Ctrl+C ended

_MAY_BE_EMPTY = ("--hub", "--feature_dir")  # their help says what an empty text selects

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Messages and warnings of the package go to standard error, each in a line that begins with `florence-lab: `. A failure is
    one such line; the environment variable `FLORENCE_LAB_DEBUG=1` adds the traceback.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        0, 2 if the command failed (standard error says why), or 130 if Ctrl+C ended it.

    Raises:
        SystemExit: for `--help` (status 0) and for arguments that cannot be parsed (status 2).
    """
    with (
        _any_characters(sys.stdout, "backslashreplace"),
        _any_characters(sys.stdin, "surrogateescape"),
        _messages_on_stderr(),
    ):
        return _run(parse_arguments(_build_parser(), argv))


def _run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    try:
        status = arguments.run(arguments) or 0
        _flush_output()
        return status
    except BrokenPipeError:  # the reader, such as `head`, has what it wants
        _discard_output()
        return _INVALID
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        message = name_as_given(describe_error(error), getattr(arguments, "given_as", None))
        logger.error("%s", message, exc_info=is_debugging())
        try:
            _flush_output()
        except OSError:
            _discard_output()
        return _INVALID


def _flush_output() -> None:
    """Write what is printed, so that a full disk is noticed here and not when the interpreter ends."""
    if sys.stdout is not None:  # it is None in a process without standard output
        sys.stdout.flush()


def _discard_output() -> None:
    """Connect standard output to nothing. The interpreter fails when it cannot write what is left at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage, which takes half a screen for `sft`."""

    def error(self, message: str) -> NoReturn:
        line = name_as_given(" ".join(message.split()), self.get_default("given_as"))
        self.exit(_INVALID, f"{_PROGRAM}: {line}; see {self.prog} --help\n")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        words = list(sys.argv[1:] if args is None else args)
        for option, word in pairwise(["", *words]):
            if "\0" in word:  # a process cannot be given one, but a caller of `main` can
                self.error(f"the argument {word!r} contains a null byte")
            name, _, value = word.partition("=") if word.startswith("--") and "=" in word else (option, "", word)
            if not value.strip() and name not in _MAY_BE_EMPTY:
                self.error(f"argument {name or 'COMMAND'}: got {value!r}; is it a shell variable that is not set?")
        return super().parse_known_args(words, namespace)


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
def _any_characters(stream: TextIO | None, errors: str) -> Iterator[None]:
    """Read or write characters that the encoding of a stream does not have, until the block ends."""
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    before = stream.errors
    with suppress(io.UnsupportedOperation, ValueError):  # something was already read, or the stream is closed
        stream.reconfigure(errors=errors)
    try:
        yield
    finally:
        with suppress(io.UnsupportedOperation, ValueError, OSError):
            stream.reconfigure(errors=before)


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
