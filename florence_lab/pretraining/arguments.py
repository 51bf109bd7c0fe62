"""TODO"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field with its line for `--help`, and the values that it may have."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class PretrainArguments:
    """Pretraining from nothing. One step is `batch_size` pictures, each with `tasks_per_image` questions."""

    out: str = _option("runs/nano", "folder of the run; one that is already there is continued")
    init_from: str = _option(
        "", "weights to start from, in the last stage of the curriculum: a model or a folder; empty is from nothing"
    )
    steps: int = _option(20_000, "how long it trains; the learning rate falls to nothing at the end")
    batch_size: int = _option(16, "pictures a step")
    tasks_per_image: int = _option(6, "questions about each picture, on different tasks")
    new_scenes: int = _option(4, "pictures of a step that are drawn for it; the others are met again")
    remembered: int = _option(4_000, "how many of the scenes drawn last are kept to be met again (0.5 GB)")
    lr: float = _option(1e-3, "highest learning rate")
    warmup: int = _option(300, "steps in which the learning rate rises")
    weight_decay: float = _option(0.02, "of AdamW")
    clip: float = _option(1.0, "longest gradient")
    ema_decay: float = _option(0.999, "of the averaged weights, which are what is exported")
    location_sigma: float = _option(3.0, "width, in bins, of the Gaussian around the right location token")
    helper: float = _option(1.0, "weight of what every image token has to tell by itself, see Helper")
    save_every: int = _option(250, "steps between checkpoints")
    measure_every: int = _option(500, "steps between looks at held-out scenes, with a picture of the answers")
    measured: int = _option(32, "how many held-out scenes are looked at then")
    workers: int = _option(1, "processes that draw scenes")
    seed: int = _option(0, "of everything random; with another one other scenes are drawn")
    dtype: str = _option("auto", "float32, bfloat16, or auto: bfloat16 where the machine computes in it")
    device: str = _option("auto", "cpu, cuda …; auto is CUDA where it is")
