"""What can be chosen for a run: a dataclass for each command, light to import, whose fields are the command's options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def option(default: Any, help: str) -> Any:
    """A field with its line for `--help`."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class PretrainArguments:
    """Pretraining from nothing. One step is `batch_size` pictures, each with `tasks_per_image` questions."""

    out: str = option("runs/nano", "folder of the run; one that is already there is continued")
    steps: int = option(13_000, "how long it trains; the learning rate falls to a fiftieth at the end")
    batch_size: int = option(16, "pictures a step")
    tasks_per_image: int = option(6, "questions about each picture, on different tasks")
    new_scenes: int = option(4, "pictures of a step that are drawn for it; the others are met again")
    remembered: int = option(4_000, "how many of the scenes drawn last are kept to be met again (0.5 GB)")
    lr: float = option(1e-3, "highest learning rate")
    warmup: int = option(300, "steps in which the learning rate rises")
    weight_decay: float = option(0.02, "of AdamW")
    clip: float = option(1.0, "longest gradient")
    ema_decay: float = option(0.999, "of the averaged weights, which are what is exported")
    location_sigma: float = option(3.0, "width, in bins, of the Gaussian around the right location token")
    helper: float = option(1.0, "weight of what every image token has to tell by itself, see Helper")
    save_every: int = option(250, "steps between checkpoints")
    measure_every: int = option(500, "steps between looks at held-out scenes, with a picture of the answers")
    measured: int = option(32, "how many held-out scenes are looked at then")
    workers: int = option(1, "processes that draw scenes")
    seed: int = option(0, "of everything random")
    dtype: str = option("auto", "float32, bfloat16, or auto: bfloat16 where the machine computes in it")
    device: str = option("auto", "cpu, cuda …; auto is CUDA where it is")
