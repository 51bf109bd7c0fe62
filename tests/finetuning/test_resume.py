"""Runs that are interrupted, and the checkpoints that they keep."""

import dataclasses
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from florence_lab.exceptions import TrainingError
from florence_lab.finetuning.run import sft
from florence_lab.finetuning.run_directory import RunDirectory
from florence_lab.finetuning.trainer import Florence2Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

KILLED = """
import os, signal, sys, torch
from florence_lab.cli import main
from florence_lab.finetuning.trainer import Florence2Trainer

def kill(): os.kill(os.getpid(), signal.SIGKILL)

def kill_in_step(self, model, inputs, *args, step=Florence2Trainer.training_step):
    if self.state.global_step == 3:
        self.optimizer.step()
        kill()
    return step(self, model, inputs, *args)

def kill_in_checkpoint(state, path, *args, save=torch.save, **kwargs):
    save(state, path, *args, **kwargs)
    if "checkpoint-4" in str(path):
        os.truncate(path, os.path.getsize(path) // 2)
        kill()

when = sys.argv.pop(1)
if when == "step": Florence2Trainer.training_step = kill_in_step
if when == "checkpoint": torch.save = kill_in_checkpoint
sys.exit(main(sys.argv[1:]))
"""


def to_command(arguments):
    command = ["sft"]
    for name, value in dataclasses.asdict(arguments).items():
        if value not in (None, "", ()):
            command += [f"--{name}", *(map(str, value) if isinstance(value, (list, tuple)) else [str(value)])]
    return command


def run_python(*command, **environment):
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": root} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def losses_of(run):
    lines = map(json.loads, (run / "logging.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def weights_of(checkpoint):
    (path,) = [*checkpoint.glob("adapter_model.safetensors"), *checkpoint.glob("model.safetensors")]
    return load_file(path)


def assert_same_weights(a, b):
    a, b = weights_of(a), weights_of(b)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_resumed_run_ends_like_an_uninterrupted_one(arguments, monkeypatch, tmp_path):
    whole = sft(arguments(max_steps=3, output_dir=str(tmp_path / "whole")))

    def interrupt(self, *args, step=Florence2Trainer.training_step):
        if self.state.global_step == 1:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Florence2Trainer, "training_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sft(arguments(max_steps=3))
    monkeypatch.undo()
    resumed = sft(arguments(max_steps=3, resume_from_checkpoint=True))
    assert_same_weights(resumed, whole)
    assert losses_of(resumed.parent) == losses_of(whole.parent)


def test_a_full_disk_leaves_the_last_complete_checkpoint(arguments, monkeypatch):
    save = torch.save

    def fail(state, path, *args, **kwargs):
        if "checkpoint-2" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(state, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(TrainingError, match=r"checkpoint-2 .*No space left.*MB.*checkpoint-1;"):
        sft(arguments())
    monkeypatch.undo()
    assert sft(arguments(resume_from_checkpoint=True)).name == "checkpoint-2"


def test_the_best_checkpoint_is_kept_and_training_stops_early(arguments, rows_folder, monkeypatch, curves):
    values = iter([0.3, 0.9, 0.2, 0.1, 0.1])
    monkeypatch.setattr(Florence2Trainer, "compute_generation_metrics", lambda self: {"OD/mAP@0.5": next(values)})
    best = sft(
        arguments(
            val_dataset=str(rows_folder / "val.jsonl"),
            metric_for_best_model="OD/mAP@0.5",
            max_steps=5,
            early_stopping_patience=2,
            save_total_limit=1,
        )
    )
    assert best.name == "checkpoint-2"
    assert sorted(path.name for path in best.parent.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert (best.parent / "images" / "metrics.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("sft_type", ["lora", "full"])
@pytest.mark.parametrize("when", ["step", "checkpoint"])
def test_a_killed_run_ends_like_an_uninterrupted_one(arguments, tmp_path, sft_type, when):
    changes = {
        "max_steps": 6,
        "eval_steps": 2,
        "sft_type": sft_type,
        "freeze_vision": True,
        "cache_image_features": True,
    }
    whole = sft(arguments(**changes))
    chosen = arguments(**changes, output_dir=str(tmp_path / "killed"))
    killed = run_python("-c", KILLED, when, *to_command(chosen))
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    (path,) = (tmp_path / "killed" / "tiny").iterdir()
    assert RunDirectory(path).last_checkpoint().name == "checkpoint-2"
    assert (path / "checkpoint-4").exists() == (when == "checkpoint")
    resumed = sft(dataclasses.replace(chosen, resume_from_checkpoint="true"))
    assert resumed == path / "checkpoint-6"
    assert_same_weights(resumed, whole)
    assert losses_of(path) == losses_of(whole.parent)


@pytest.mark.slow
def test_two_processes_train_like_one_with_twice_the_batch(arguments, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    changes = {"model_id_or_path": "", "lora_dropout": 0.0}  # florence-2-nano has no dropout, so the losses must agree
    alone = sft(arguments(**changes, batch_size=4))
    chosen = arguments(**changes, batch_size=2, output_dir=str(tmp_path / "two"))
    done = run_python("-m", "florence_lab.cli", *to_command(chosen), NPROC_PER_NODE="2", MASTER_PORT=port)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "two" / "florence-2-nano").iterdir()
    assert losses_of(path) == pytest.approx(losses_of(alone.parent), rel=1e-4)
    a, b = weights_of(alone), weights_of(path / "checkpoint-2")
    differences = torch.cat([(a[name] - b[name]).abs().flatten() for name in a])
    # Adam moves a weight by the learning rate even where its gradient is rounding noise, whose sign differs
    assert (differences > 1e-4).float().mean() < 1e-3
    assert differences.mean() < 1e-6
