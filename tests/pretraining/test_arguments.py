"""`arguments`: the options of `florence-lab pretrain`."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from florence_lab.exceptions import ArgumentError
from florence_lab.pretraining.arguments import PretrainArguments


def test_every_option_has_a_help_text():
    for field in dataclasses.fields(PretrainArguments):
        assert field.metadata["help"], field.name


def test_defaults_are_among_the_choices():
    for field in dataclasses.fields(PretrainArguments):
        assert field.metadata["choices"] is None or field.default in field.metadata["choices"], field.name


def test_the_options_are_imported_without_torch():
    """`florence-lab pretrain --help` is fast."""
    code = (
        "import sys; from florence_lab.pretraining.arguments import PretrainArguments; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({name: value}, f"{name} must be")
            for name in (
                "steps",
                "batch_size",
                "tasks_per_image",
                "new_scenes",
                "remembered",
                "save_every",
                "measure_every",
            )
            for value in (0, -1, 1.5, "1", None, True, 10**30)
        ),
        *(
            ({name: value}, f"{name} must be")
            for name in ("lr", "clip", "location_sigma")
            for value in (0, -1, math.inf, math.nan)
        ),
        *(
            ({name: -1}, f"{name} must be")
            for name in ("warmup", "weight_decay", "helper", "workers", "seed", "ema_decay")
        ),
        ({"ema_decay": 2}, "ema_decay must be"),
        ({"measured": 100_001}, "measured must be at least 1 and at most 100,000"),
        ({"workers": 100_000}, "workers must be"),
        ({"seed": 2**32}, "seed must be"),
        ({"dtype": "x"}, "--dtype 'x': must be one of auto, float32, bfloat16"),
        ({"dtype": 5}, "dtype must be a string"),
        ({"device": "hpu"}, "--device 'hpu'"),
        ({"device": "cuda:x"}, "--device 'cuda:x'"),
        ({"out": ""}, "--out is empty"),
        ({"out": "a\0b"}, "--out .* null byte"),
        ({"out": None}, "out must be a string"),
        ({"tasks_per_image": 16}, "--tasks_per_image 16: must be at most 15, the number of tasks"),
        ({"new_scenes": 17}, "--new_scenes 17: must be at most 16, --batch_size"),
        ({"new_scenes": 5, "remembered": 4}, "--new_scenes 5: must be at most 4, --remembered"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ArgumentError, match=message):
        PretrainArguments(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"warmup": 0, "helper": 0, "weight_decay": 0, "workers": 0, "seed": 0, "ema_decay": 0},
        {"steps": 1, "warmup": 300, "batch_size": 1, "new_scenes": 1, "remembered": 1, "tasks_per_image": 1},
        {"steps": np.int64(5), "lr": np.float32(0.5), "device": "cuda:1", "dtype": "bfloat16", "measured": 100_000},
        {"tasks_per_image": 15, "new_scenes": 16, "batch_size": 16},
    ],
)
def test_sensible_numbers_are_accepted(changes):
    arguments = PretrainArguments(**changes)
    assert all(getattr(arguments, name) == value for name, value in changes.items())


def test_paths_become_text():
    assert PretrainArguments(out=Path("runs") / "a", init_from=Path("b")) == PretrainArguments(
        out="runs/a", init_from="b"
    )
