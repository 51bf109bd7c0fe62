"""The environment variables of several processes."""

import os

import pytest

from florence_lab.cli import main
from florence_lab.exceptions import ArgumentError
from florence_lab.finetuning.launch import launch_processes

NAMES = ("NPROC_PER_NODE", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def execv(monkeypatch):
    """The commands that would replace this process."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    commands = []
    monkeypatch.setattr(os, "execv", lambda _, command: commands.append(command))
    return commands


def test_the_variables_become_options_of_torchrun(execv, monkeypatch):
    for name, value in zip(NAMES, ("2", "1:4", "0", "10.0.0.1", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    launch_processes()
    options = ["--nproc_per_node", "2", "--nnodes", "1:4", "--node_rank", "0"]
    assert execv[0][3:13] == [*options, "--master_addr", "10.0.0.1", "--master_port", "29500"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("NPROC_PER_NODE", value) for value in ("x", "0", "-1", "1.5", "two", "２")),
        *(("NNODES", value) for value in ("0", "a", "1:", "-1")),
        *(("NODE_RANK", value) for value in ("-1", "x")),
        *(("MASTER_PORT", value) for value in ("x", "-1", "65536", "99999999")),
        ("MASTER_ADDR", "a b"),
    ],
)
def test_a_value_that_torchrun_does_not_accept_is_named(execv, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError, match=name):
        launch_processes()
    assert not execv


def test_options_are_refused_before_processes_are_started(execv, monkeypatch, capsys):
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert main(["sft", "--dataset", "a.jsonl", "--early_stopping_patience", "2"]) == 2
    assert "--early_stopping_patience" in capsys.readouterr().err
    assert not execv
