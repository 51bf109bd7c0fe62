"""`PretrainArguments`: the options of a pretraining run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from typing import Any

from ..argument_validation import validate_fields
from ..exceptions import ArgumentError, shorten
from ..tasks import TASKS

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """Return a dataclass field with its help text and its permitted values."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class PretrainArguments:
    """Options of `florence-lab pretrain`. One step trains on `batch_size` images with `tasks_per_image` prompts each.

    Raises:
        ArgumentError: for a value of another type or out of its range, or options that contradict each other.
    """

    out: str = _option("runs/nano", "folder of the run; an existing run is resumed")
    init_from: str = _option(
        "",
        "initial weights (model name or checkpoint folder); training then starts at the last curriculum stage "
        "(default: random initialization)",
    )
    steps: int = _option(20_000, "number of training steps; the learning rate decays to 0 over them")
    batch_size: int = _option(16, "images per step")
    tasks_per_image: int = _option(6, "prompts per image, of different tasks as long as the curriculum has enough")
    new_scenes: int = _option(4, "new scenes per step; the rest of the batch is drawn from the replay buffer")
    remembered: int = _option(4_000, "size of the replay buffer in scenes (4,000 scenes take 0.5 GB)")
    lr: float = _option(1e-3, "peak learning rate")
    warmup: int = _option(300, "steps of linear learning rate warm-up")
    weight_decay: float = _option(0.02, "weight decay of AdamW")
    clip: float = _option(1.0, "maximum norm of the gradient")
    ema_decay: float = _option(0.999, "decay of the exponential moving average of the weights, which is exported")
    location_sigma: float = _option(3.0, "standard deviation, in bins, of the Gaussian target of location tokens")
    helper: float = _option(1.0, "weight of the auxiliary losses, see AuxiliaryHeads")
    save_every: int = _option(250, "steps between checkpoints")
    measure_every: int = _option(500, "steps between evaluations on held-out scenes")
    measured: int = _option(32, "number of held-out scenes of each evaluation")
    workers: int = _option(1, "processes that draw scenes; 0 draws them in the training process")
    seed: int = _option(0, "random seed, including the choice of scenes")
    dtype: str = _option(
        "auto",
        "float32, bfloat16, or auto: bfloat16 where the hardware supports it",
        ("auto", "float32", "bfloat16"),
    )
    device: str = _option("auto", "cpu, cuda, cuda:1 ...; auto is cuda if available")

    def __post_init__(self) -> None:
        for name in ("out", "init_from"):
            if isinstance(value := getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(value))
        validate_fields(self)
        for item in fields(self):
            choices, value = item.metadata["choices"], getattr(self, item.name)
            if choices and value not in choices:
                raise ArgumentError(f"--{item.name} {shorten(value)}: must be one of {', '.join(choices)}")
            if "\0" in str(value):
                raise ArgumentError(f"--{item.name} {shorten(value)}: contains a null byte")
        if not self.out.strip():
            raise ArgumentError("--out is empty; give the folder of the run")
        if not _DEVICE.fullmatch(self.device):
            raise ArgumentError(f"--device {shorten(self.device)}: must be auto, cpu, cuda, cuda:0 or mps")
        self._validate_relations()

    def _validate_relations(self) -> None:
        """Raise `ArgumentError` for a number that is too large for another one."""
        limits = (
            ("tasks_per_image", len(TASKS), "the number of tasks"),
            ("new_scenes", self.batch_size, "--batch_size"),
            ("new_scenes", self.remembered, "--remembered"),
        )
        for name, limit, meaning in limits:
            if (value := getattr(self, name)) > limit:
                raise ArgumentError(f"--{name} {value}: must be at most {limit}, {meaning}")
