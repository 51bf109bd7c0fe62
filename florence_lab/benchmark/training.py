"""Seconds of a LoRA step: `sft`, and as the baseline a plain loop of peft and PyTorch over transformers' model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration

from ..finetuning.arguments import SftArguments
from ..finetuning.run import sft
from ..loading.saving import save_model
from ..scenes import TRAIN_SEEDS, write_dataset
from ..tasks import TASKS
from .hardware import time_once
from .models import build_model
from .runners import BACKENDS, TransformersRunner
from .workloads import IMAGE_SIZE, scale_of

_CAPTION = TASKS["<DETAILED_CAPTION>"]
_NUM_BATCHES = 4
"""Batches of different images; they are repeated if there are more steps."""
_WARM_UP_STEPS = 4
"""Steps at the beginning that do not count: processes that load images are then in a steady state."""
_LORA: dict[str, Any] = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.05}

LORA_STEP = "LoRA step"
LORA_STEP_CACHED = "LoRA step, image tokens cached"

TRAINING_BACKENDS: dict[str, tuple[str, ...]] = {
    LORA_STEP: ("transformers bf16", "florence_lab bf16"),
    LORA_STEP_CACHED: ("florence_lab bf16",),
}
"""Row -> backends. They follow each other, as a run cannot be interrupted for another."""


class TrainingFiles(NamedTuple):
    """What a run is started from.

    Attributes:
        folder: also the one that runs write to.
        checkpoint: the model.
        dataset: its rows, JSON lines.
        batch_size: rows of a step.
        device: the device.
    """

    folder: Path
    checkpoint: Path
    dataset: Path
    batch_size: int
    device: torch.device


@contextmanager
def training_files(model_type: str, device: torch.device) -> Iterator[TrainingFiles]:
    """Write a checkpoint and a dataset into a temporary folder, which is removed when the block ends."""
    with TemporaryDirectory(prefix="florence_lab-benchmark-") as name:
        folder, batch_size = Path(name), scale_of(device).num_train_images
        model, processor = build_model(model_type)
        model.generation_config.update(do_sample=False)
        save_model(model, processor, folder / "checkpoint")
        write_dataset(folder, TRAIN_SEEDS[: _NUM_BATCHES * batch_size], IMAGE_SIZE, [_CAPTION.token])
        yield TrainingFiles(folder, folder / "checkpoint", folder / "train.jsonl", batch_size, device)


def time_steps(row: str, backend: str, files: TrainingFiles, repeats: int) -> tuple[float, list[float]]:
    """Train, and return the seconds until the end of the first step, and those of each step in the steady state.

    Args:
        row: a key of `TRAINING_BACKENDS`.
        backend: a key of `BACKENDS`, which gives the library and the format.
        files: the checkpoint and the dataset.
        repeats: steps that are timed.
    """
    train = _train_peft if BACKENDS[backend].runner is TransformersRunner else _train_sft
    start = time.perf_counter()
    ends: list[float] = []
    with torch.inference_mode(False), torch.enable_grad():
        train(
            row, BACKENDS[backend].format, files, 1 + _WARM_UP_STEPS + repeats, lambda: ends.append(time.perf_counter())
        )
    steps = [after - before for before, after in pairwise(ends)]
    return ends[0] - start, steps[_WARM_UP_STEPS:]


def _train_sft(row: str, dtype: str, files: TrainingFiles, num_steps: int, on_step: Callable[[], None]) -> None:
    arguments = SftArguments(
        model_id_or_path=str(files.checkpoint),
        dataset=(str(files.dataset),),
        output_dir=str(files.folder / "runs"),
        feature_dir=str(files.folder / "features"),
        cache_image_features=row == LORA_STEP_CACHED,
        max_steps=num_steps,
        eval_steps=num_steps,
        logging_steps=1,
        batch_size=files.batch_size,
        dtype=dtype,
        device=files.device.type,
    )
    sft(arguments, lambda _: on_step())


def _train_peft(row: str, dtype: str, files: TrainingFiles, num_steps: int, on_step: Callable[[], None]) -> None:
    from peft import LoraConfig, get_peft_model

    runner = TransformersRunner(str(files.checkpoint), torch.float32, files.device)
    model: Any = get_peft_model(runner.model, LoraConfig(target_modules=_attention_layers(runner.model), **_LORA))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    rows = [json.loads(line) for line in files.dataset.read_text(encoding="utf-8").splitlines()]
    batches = [rows[i : i + files.batch_size] for i in range(0, len(rows), files.batch_size)]
    model.train()
    for batch in islice(cycle(batches), num_steps):

        def step(batch: list[dict[str, Any]] = batch) -> None:
            inputs = _collate(runner, batch, files)
            with torch.autocast(files.device.type, torch.bfloat16, enabled=dtype == "bf16"):
                loss = model(**inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        time_once(step)
        on_step()


def _collate(runner: TransformersRunner, rows: list[dict[str, Any]], files: TrainingFiles) -> dict[str, torch.Tensor]:
    images = [Image.open(files.folder / row["images"][0]).convert("RGB") for row in rows]
    inputs = runner.processor(text=[_CAPTION.prompt] * len(rows), images=images, return_tensors="pt")
    labels = runner.processor.tokenizer([row["response"] for row in rows], padding=True, return_tensors="pt")
    targets = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)
    return {name: tensor.to(files.device) for name, tensor in {**inputs, "labels": targets}.items()}


def _attention_layers(model: Florence2ForConditionalGeneration) -> list[str]:
    """The layers of the language model that `sft` gives LoRA by default."""
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    return [name for name, _ in model.named_modules() if "language_model" in name and name.endswith(names)]
