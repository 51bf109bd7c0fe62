"""The files of a training checkpoint, and their verification before a run is resumed from them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers.trainer_pt_utils import safe_globals

from ..exceptions import TrainingError, shorten, summarize_error, warn
from ..loading.adapters import ADAPTER_WEIGHTS

COMPLETE_MARKER = "complete"
"""The empty file that is written into a checkpoint last. A checkpoint without it was interrupted."""

TRAINER_STATE = "trainer_state.json"
_PICKLES = {  # pattern of the name -> keys of the dict in it
    "optimizer.pt": ("state", "param_groups"),
    "scheduler.pt": ("last_epoch", "lr_lambdas"),
    "scaler.pt": ("scale",),  # of fp16
    "rng_state*.pth": ("python", "numpy", "cpu"),
}
_OPTIONAL = ("scaler.pt",)
_MODEL_WEIGHTS = "model*.safetensors"  # several files if the model is large
_TRAINER_STATE_TYPES: dict[str, tuple[Any, type | tuple[type, ...]]] = {  # field -> default, types
    "global_step": (None, int),
    "max_steps": (0, int),
    "best_model_checkpoint": (None, (str, type(None))),
    "stateful_callbacks": ({}, dict),
}


def step_of(checkpoint: Path) -> int:
    """Return the N of a folder `checkpoint-N`."""
    return int(checkpoint.name.rpartition("-")[2])


def verify_checkpoint(checkpoint: Path) -> None:
    """Verify that training can continue from a checkpoint: every file is there, and none is cut off or foreign.

    The headers of all files are read. Of the tensors only the weights are, which must be finite.

    Args:
        checkpoint: a folder `checkpoint-<step>` of a run.

    Raises:
        TrainingError: for the first file that is missing or damaged; the message names it.
    """
    state = read_trainer_state(checkpoint)
    if state["global_step"] != step_of(checkpoint):
        raise TrainingError(
            f"{checkpoint / TRAINER_STATE} is that of step {state['global_step']}, not of this checkpoint"
        )
    for path in weight_files(checkpoint):
        _verify_file(path, _check_weights)
    for pattern, keys in _PICKLES.items():
        paths = sorted(checkpoint.glob(pattern))
        if not paths and pattern not in _OPTIONAL:
            paths = [checkpoint / pattern.replace("*", "")]  # is missing
        for path in paths:
            _verify_file(path, functools.partial(_check_pickle, keys=keys))


def check_process_count(checkpoint: Path, num_processes: int) -> None:
    """Warn if a checkpoint was written by another number of processes, each of which has a random state."""
    random_states = list(checkpoint.glob("rng_state*.pth"))
    if len(random_states) != num_processes:
        warn(
            f"{checkpoint} was written by {len(random_states)} processes and is resumed by {num_processes}: the batches are "
            "not those of the uninterrupted run"
        )


def weight_files(checkpoint: Path) -> list[Path]:
    """Return the files with the weights of an adapter or a model.

    Raises:
        TrainingError: if there are none.
    """
    if (checkpoint / ADAPTER_WEIGHTS).exists():
        return [checkpoint / ADAPTER_WEIGHTS]
    files = sorted(checkpoint.glob(_MODEL_WEIGHTS))
    if not files:
        raise TrainingError(f"{checkpoint} has no weights: neither {ADAPTER_WEIGHTS} nor model.safetensors")
    return files


def read_trainer_state(checkpoint: Path) -> dict[str, Any]:
    """Return the `trainer_state.json` of a checkpoint.

    Raises:
        TrainingError: if it is not that of a trainer; the message names file and field.
    """
    path = checkpoint / TRAINER_STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(_describe_damage(path, error)) from error
    if not isinstance(state, dict):
        raise TrainingError(_describe_damage(path, f"a JSON object is expected, got {shorten(state)}"))
    for name, (default, types) in _TRAINER_STATE_TYPES.items():
        if not isinstance(state.setdefault(name, default), types):
            raise TrainingError(_describe_damage(path, f"{name} is {shorten(state[name])}"))
    return state


def verify_names(model: torch.nn.Module, checkpoint: Path) -> None:
    """Verify that a checkpoint has the weights of a model: the trainer would resume with what fits.

    Args:
        model: the model in training, with its adapter.
        checkpoint: a checkpoint with valid files.

    Raises:
        TrainingError: if names or shapes differ; the message names one.
    """
    if isinstance(model, PeftModel):
        own = get_peft_model_state_dict(model, save_embedding_layers=False)
    else:
        own = model.state_dict()
    saved: dict[str, tuple[int, ...]] = {}
    for path in weight_files(checkpoint):
        with safe_open(path, framework="pt") as file:
            saved |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    unexpected = [name for name, shape in saved.items() if name not in own or tuple(own[name].shape) != shape]
    stored = {own[name].data_ptr() for name in saved if name in own}  # of tied weights one is saved
    missing = [name for name, weight in own.items() if name not in saved and weight.data_ptr() not in stored]
    if unexpected or missing:
        what = f"unexpected weights {unexpected[0]}" if unexpected else f"no weights {missing[0]}"
        raise TrainingError(f"{weight_files(checkpoint)[0]} is not of this run: it has {what}")


def find_non_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """Return the name of the first tensor that contains nan or inf; None if all are finite."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and not torch.isfinite(tensor.detach()).all():
            return name
    return None


def _verify_file(path: Path, check: Callable[[Path], None]) -> None:
    try:
        check(path)
    except Exception as error:  # the readers raise types of their own
        raise TrainingError(_describe_damage(path, error)) from error


def _describe_damage(path: Path, reason: str | Exception) -> str:
    if isinstance(reason, FileNotFoundError):
        return f"{path} is missing, so the run cannot be resumed from {path.parent.name}"
    summary = reason if isinstance(reason, str) else summarize_error(reason)
    return f"{path} is damaged, so the run cannot be resumed from {path.parent.name}: {summary}"


def _check_weights(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        if not names:
            raise ValueError("it contains no weights")
        broken = find_non_finite((name, file.get_tensor(name)) for name in names)
    if broken:
        raise ValueError(f"{broken} contains nan or inf")


def _check_pickle(path: Path, keys: tuple[str, ...]) -> None:
    with safe_globals():  # NumPy's random state
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(content, dict):
        raise ValueError(f"a dict is expected, got {type(content).__name__}")
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"it has no {missing[0]!r}")
