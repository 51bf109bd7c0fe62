"""Checkpoints that are verified before a run is resumed."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from florence_lab.exceptions import FlorenceLabWarning, TrainingError
from florence_lab.finetuning.checkpoint_files import (
    check_process_count,
    find_non_finite,
    verify_checkpoint,
    verify_names,
)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_state(**changes):
    def replace(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return replace


FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
DAMAGES = [
    *((name, damage) for name in FILES for damage in (os.unlink, cut)),
    *((name, lambda path: path.write_bytes(b"")) for name in FILES),
    *((name, lambda path: torch.save([1], path)) for name in FILES),
    *((name, lambda path: torch.save({"another": 1}, path)) for name in FILES),
    *((name, lambda path: path.write_bytes(os.urandom(500))) for name in FILES),
    ("adapter_model.safetensors", lambda path: save_file({"a": torch.tensor([1, float("nan")])}, path)),
    ("adapter_model.safetensors", lambda path: save_file({}, path)),
    ("trainer_state.json", lambda path: path.write_text("[" * 100_000)),
    ("trainer_state.json", replace_state(global_step="5")),
    ("trainer_state.json", replace_state(global_step=7)),
    ("trainer_state.json", replace_state(max_steps=None)),
    ("trainer_state.json", replace_state(best_model_checkpoint=3)),
    ("trainer_state.json", replace_state(stateful_callbacks=[])),
]


def test_a_whole_checkpoint_is_accepted(tmp_path, write_checkpoint, recwarn):
    verify_checkpoint(write_checkpoint(tmp_path, 5))
    assert not recwarn


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_file_is_named(tmp_path, write_checkpoint, name, damage):
    checkpoint = write_checkpoint(tmp_path, 5)
    damage(checkpoint / name)
    expected = "no weights" if not (checkpoint / "adapter_model.safetensors").exists() else name
    with pytest.raises(TrainingError, match=expected):
        verify_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"])
@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_no_code_of_a_pickle_runs(tmp_path, write_checkpoint, name, write):
    checkpoint = write_checkpoint(tmp_path, 5)
    write({"state": Malicious(tmp_path / "broken_in")}, checkpoint / name)
    with pytest.raises(TrainingError, match=name):
        verify_checkpoint(checkpoint)
    assert not (tmp_path / "broken_in").exists()


def test_another_number_of_processes_warns(tmp_path, write_checkpoint):
    with pytest.warns(FlorenceLabWarning, match="written by 1 processes and is resumed by 2"):
        check_process_count(write_checkpoint(tmp_path, 5), 2)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, None),
        ({"weight": torch.ones(2, 2)}, "no weights bias"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, "unexpected weights weight"),
        ({"weight": torch.ones(2, 2), "bias": torch.ones(2), "b": torch.ones(2)}, "unexpected weights b"),
    ],
)
def test_weights_of_another_run_are_refused(tmp_path, weights, message):
    save_file(weights, tmp_path / "model.safetensors")
    if message is None:
        verify_names(nn.Linear(2, 2), tmp_path)
    else:
        with pytest.raises(TrainingError, match=message):
            verify_names(nn.Linear(2, 2), tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_that_is_not_finite_is_found(value):
    tensors = {"whole": torch.ones(2, dtype=torch.long), "good": torch.ones(2), "bad": torch.tensor([0, value])}
    assert find_non_finite(tensors.items()) == "bad"
    assert find_non_finite(list(tensors.items())[:2]) is None
