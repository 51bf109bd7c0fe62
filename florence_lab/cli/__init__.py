"""TODO"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from .commands import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 2 with the reason on standard error if it was asked for something that can't be."""
    arguments = _parser().parse_args(argv)
    warnings.showwarning = _show_warning
    try:
        arguments.run(arguments)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        said = str(error) or type(error).__name__
        if not type(error).__module__.startswith("florence_lab"):  # libraries write pages; ours are lists of rows
            said = " ".join(said.split())
        print(f"florence-lab: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if issubclass(category, UserWarning):  # what libraries deprecate is nothing to people at a prompt
        print(f"florence-lab: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="florence-lab", description="A research toolkit for Florence-2.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (description, run, add_arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=description, description=description)
        add_arguments(command)
        command.set_defaults(run=run)
    return parser
