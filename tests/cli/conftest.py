"""Fixtures of the command line: a small model, and a user who types."""

import pytest

from florence_lab.cli import main


@pytest.fixture
def infer(small):
    """Run `florence-lab infer` with a small model and short answers, and return the exit status."""

    def run(*arguments):
        return main(["infer", "--model_id_or_path", small.name, "--max_new_tokens", "12", *map(str, arguments)])

    return run


@pytest.fixture
def type_lines(monkeypatch):
    """Type lines at the prompts of a session, echoed as in a terminal. An exception stands for a key such as Ctrl+C.

    Returns the list of the lines that are not read yet.
    """

    def start(*lines):
        remaining = list(lines)

        def read(prompt):
            print(prompt, end="")
            line = remaining.pop(0) if remaining else EOFError()
            if isinstance(line, BaseException):
                raise line
            print(line)
            return str(line)

        monkeypatch.setattr("builtins.input", read)
        return remaining

    return start
