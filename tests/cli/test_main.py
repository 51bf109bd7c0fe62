"""The program `florence-lab`: exit statuses, messages on standard error, and what `--help` imports."""

import io
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from safetensors import SafetensorError
from support import PHOTO, copy_of_tiny

from florence_lab.cli import commands, main
from florence_lab.exceptions import DatasetError
from florence_lab.exceptions import warn as package_warn

ROOT = Path(__file__).parents[2]
QUERY = ("--query", "<OD>", "--images", PHOTO)


def assert_one_line(err, message):
    assert err.startswith("florence-lab: ")
    assert message in err
    assert err.count("\n") == 1
    assert err.endswith("\n")


@pytest.fixture
def fake_command(monkeypatch):
    """Replace the command `tasks` by a function."""

    def replace(run):
        monkeypatch.setitem(commands.COMMANDS, "tasks", commands.Command("help", run))

    return replace


# ---------------------------------------------------------------------- exit status and messages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--query", "<OD>", "--images", "nowhere.png"), "nowhere.png does not exist"),
        (("--query", "<ODD>", "--images", PHOTO, PHOTO), "unknown task '<ODD>'"),
        (("--query", "<OD>"), "--query and --images must be given together"),
        (("--images", PHOTO), "--query and --images must be given together"),
        (("--val_dataset", "rows.jsonl"), "--val_dataset needs --result_dir"),
        (("--val_dataset", "rows.jsonl", "--result_dir", "answers"), "rows.jsonl"),
        (("--dtype", "fp8", *QUERY), "fp8"),
        (("--device", "abacus", *QUERY), "abacus"),
        (("--stream", "1", "--num_beams", 2, *QUERY), "num_beams=1 only, got 2"),
        (("--result_dir", PHOTO, *QUERY), "is not a folder that can be written to: File exists"),
    ],
)
def test_a_failed_command_exits_with_2_and_one_line(infer, capfd, arguments, message):
    assert infer(*arguments) == 2
    assert_one_line(capfd.readouterr().err, message)


@pytest.mark.usefixtures("unreachable_hubs")
@pytest.mark.parametrize("session", [(), QUERY])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (("--model_type", "florence-2-larg"), "unknown model_type 'florence-2-larg'; did you mean 'florence-2-large'?"),
        (("--model_id_or_path", "/no/such/folder"), "/no/such/folder does not exist"),
        (("--ckpt_dir", "WITHOUT_WEIGHTS"), "weights"),
        (("--model_type", "florence-2-base"), "AI-ModelScope/Florence-2-base"),
    ],
)
def test_a_model_that_cannot_be_loaded_fails_before_the_first_prompt(
    type_lines, tmp_path, capfd, session, model, message
):
    remaining = type_lines("not read")
    folder = copy_of_tiny(tmp_path / "checkpoint")
    (folder / "model.safetensors").unlink()
    model = [str(folder) if word == "WITHOUT_WEIGHTS" else word for word in model]
    assert main(["infer", *model, *map(str, session)]) == 2
    assert_one_line(capfd.readouterr().err, message)
    assert remaining == ["not read"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["infer", "--stream", "perhaps"],
        ["infer", "--max_new_tokens", "0"],
        ["sft", "--sft_type", "prompt"],
        ["sft", "--no_such_option"],
        ["no_such_command"],
        [],
    ],
)
def test_arguments_that_cannot_be_parsed_exit_with_2_and_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert_one_line(capsys.readouterr().err, "--help")


def test_ctrl_c_exits_with_130(fake_command):
    def run(arguments):
        raise KeyboardInterrupt

    fake_command(run)
    assert main(["tasks"]) == 130


def test_an_error_of_a_library_is_joined_to_one_line(fake_command, capsys):
    def run(arguments):
        raise RuntimeError("first\n  second")

    fake_command(run)
    assert main(["tasks"]) == 2
    assert capsys.readouterr().err == "florence-lab: first second\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("x"), "internal error: KeyError: 'x' (test_main.py, line "),
        (
            SafetensorError("header\ntoo large"),
            "internal error: SafetensorError: header too large (test_main.py, line ",
        ),
        (ZeroDivisionError(), "internal error: ZeroDivisionError: ZeroDivisionError (test_main.py, line "),
        (AssertionError("x" * 10_000), "internal error: AssertionError: xxxx"),
        (RecursionError("too deep"), "internal error: RecursionError: too deep (test_main.py, line "),
        (MemoryError(), "MemoryError\n"),
        (OSError(28, "No space left on device", "a.png"), "[Errno 28] No space left on device: 'a.png'\n"),
    ],
)
@pytest.mark.parametrize("debug", [None, "0", "1"])
def test_any_exception_is_one_line_and_a_traceback_if_it_is_asked_for(
    fake_command, monkeypatch, capsys, error, message, debug
):
    def run(arguments):
        raise error

    monkeypatch.delenv("FLORENCE_LAB_DEBUG", raising=False)
    if debug:
        monkeypatch.setenv("FLORENCE_LAB_DEBUG", debug)
    fake_command(run)
    assert main(["tasks"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"florence-lab: {message}")
    assert ("Traceback" in err) == (debug == "1")
    assert debug == "1" or (err.count("\n") == 1 and len(err) < 3000)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_characters_that_the_output_does_not_have_are_escaped(fake_command, monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    fake_command(lambda arguments: print("a · é 猫 \udcff"))
    assert main(["tasks"]) == 0
    assert stream.buffer.getvalue().startswith(b"a ")
    assert stream.errors == "strict"  # as before


def test_a_process_without_standard_output_succeeds(fake_command, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    fake_command(lambda arguments: print("nobody reads it"))
    assert main(["tasks"]) == 0


def test_an_error_of_the_package_keeps_its_list_of_rows(fake_command, capsys):
    def run(arguments):
        raise DatasetError("2 invalid rows:\n- row 1\n- row 2")

    fake_command(run)
    assert main(["tasks"]) == 2
    assert capsys.readouterr().err == "florence-lab: 2 invalid rows:\n- row 1\n- row 2\n"


@pytest.mark.filterwarnings("default")
def test_log_messages_and_user_warnings_are_lines_on_standard_error(fake_command, capsys):
    def run(arguments):
        logging.getLogger("florence_lab.finetuning").info("step 5")
        logging.getLogger("florence_lab.finetuning").debug("not shown")
        package_warn("the image is small")
        warnings.warn("a user warning", UserWarning, stacklevel=1)
        warnings.warn("not shown", DeprecationWarning, stacklevel=1)

    fake_command(run)
    assert main(["tasks"]) == 0
    lines = [f"florence-lab: {text}\n" for text in ("step 5", "the image is small", "a user warning")]
    assert capsys.readouterr().err == "".join(lines)


def test_logging_and_warnings_are_as_before_after_a_command(fake_command):
    def run(arguments):
        raise ValueError

    logger = logging.getLogger("florence_lab")
    before = (warnings.showwarning, list(warnings.filters), logger.level, logger.propagate, list(logger.handlers))
    fake_command(run)
    main(["tasks"])
    after = (warnings.showwarning, list(warnings.filters), logger.level, logger.propagate, list(logger.handlers))
    assert after == before


# ---------------------------------------------------------------------- in a process of its own


def run_program(*arguments, code=None, **options):
    command = [sys.executable, *(["-c", code] if code else ["-m", "florence_lab.cli"]), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env=environment, timeout=120, check=False, **options
    )


def test_help_imports_neither_torch_nor_transformers_nor_numpy():
    code = """
import contextlib, io, sys
from florence_lab.cli import main
from florence_lab.cli.commands import COMMANDS
for arguments in [["--help"], *([name, "--help"] for name in COMMANDS)]:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main(arguments)
print([name for name in ("torch", "transformers", "numpy", "PIL", "matplotlib") if name in sys.modules])
"""
    done = run_program(code=code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status", "err"),
    [
        ("tasks > /dev/full", 2, "florence-lab: [Errno 28] No space left on device\n"),
        ("tasks >&-", 0, ""),
        ("tasks | true", 0, ""),  # the status of a pipe is that of its last command
        ("models", 0, ""),
        ("infer --query $'\\xff' --images a.png", 2, "florence-lab: argument --query: '\\udcff' contains a lone"),
        ("scenes --count 1 --out /dev/null", 2, "florence-lab: --out '/dev/null' is not a folder"),
    ],
)
def test_a_process_ends_without_a_traceback(command, status, err):
    shell = ["bash", "-c", f"PYTHONIOENCODING=ascii {sys.executable} -m florence_lab.cli {command}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(shell, capture_output=True, encoding="utf-8", env=environment, timeout=120, check=False)
    assert done.returncode == status
    assert done.stderr.startswith(err)
    assert done.stderr.count("\n") <= 1


@pytest.mark.slow
def test_a_session_goes_on_after_bytes_that_are_not_utf8(small):
    options = ["infer", "--model_id_or_path", small.name, "--max_new_tokens", "8", "--num_beams", "1"]
    photo = os.fsencode(PHOTO)
    lines = b"\n".join([b"\xff\xfe", photo, b"<CAPTION>", photo, b""])
    command = [sys.executable, "-m", "florence_lab.cli", *map(str, options)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, input=lines, capture_output=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0
    assert b"lone surrogate" in done.stdout
    assert done.stdout.count(b"{'What does the image describe?'") == 1


@pytest.mark.slow
def test_a_session_reads_queries_from_a_pipe(small):
    lines = f"<CAPTION>\n{PHOTO}\n<OD>\nnowhere.png\n"
    options = ("--model_id_or_path", small.name, "--max_new_tokens", 8, "--num_beams", 1)
    done = run_program("infer", *options, input=lines)
    answer = small.predict(PHOTO, "<CAPTION>", num_beams=1, max_new_tokens=8)
    printed = done.stdout.split("\n")
    assert printed[0] == f"<<< Input a media path or URL <<< {{{answer.prompt!r}: {answer.raw!r}}}"
    assert printed[-3:] == ["-" * 50, "<<< ", ""]
    assert "nowhere.png does not exist" in printed[-4]
    warning = "florence-lab: the answer is truncated at max_new_tokens=8; see `result.truncated`\n"
    assert (done.returncode, done.stderr) == (0, warning)
