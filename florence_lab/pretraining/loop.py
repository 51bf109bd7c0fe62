"""The pretraining loop. Read it top to bottom: `pretrain`, then one step of `TrainingState`.

    florence-lab pretrain --out runs/nano

Scenes are drawn on demand. Each image passes through the vision tower once and is used for several prompts. The batch of a step
depends on the arguments and the step alone, so a run that was interrupted continues exactly when the command is repeated.

On machines with few cores that also run other processes, set GOMP_SPINCOUNT=20000: waiting threads then sleep sooner.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]  # timm re-exports without __all__
from timm.scheduler import CosineLRScheduler  # type: ignore[attr-defined]
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import BartTokenizer

from ..data.worker_errors import is_worker_error, summarize_data_error
from ..exceptions import ArgumentError, FlorenceLabError, TrainingError, summarize_error, warn
from ..images import GENERATOR_TAG
from ..inference.device import has_native_bf16, select_device
from ..loading.processor import build_processor
from ..output_files import prepare_output_folder, write_text
from ..visualization.curves import read_log
from .arguments import PretrainArguments
from .auxiliary_heads import AuxiliaryHeads
from .config import PAD_ID
from .curriculum import stage_at
from .dataset import StepDataset, TrainingBatch, check_scene_supply
from .losses import mean_loss_per_task, token_losses, token_weights
from .model import build_for_training, forward_batch, load_initial_weights, resize_position_embeddings
from .monitoring import evaluate_held_out, finite_metrics, plot_predictions
from .tokenizer import load_or_build_tokenizer, save_tokenizer

_ARGUMENTS_OF_THE_MACHINE = ("out", "save_every", "measure_every", "measured", "workers", "device")
"""Arguments that do not change the weights that a run ends with."""


def pretrain(arguments: PretrainArguments, on_log: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """Train florence-2-nano, or resume its training, and export it.

    The folder `arguments.out` receives `tokenizer/`, the checkpoint `last.pt`, `log.jsonl` (a line for each step),
    `measures.jsonl` and `answers-<step>.png` (evaluations), the cache `drawn/`, and `model/`, the exported model.

    Args:
        arguments: the options of the run.
        on_log: called after each step with its log entry, for example a `LiveLossPlot`. After an evaluation, the entry
            `picture` is the path of the figure.

    Returns:
        The folder of the exported model.

    Raises:
        ArgumentError: for a device that does not exist, a folder that cannot be written to, or more scenes than there are.
        CheckpointError: if the initial weights are not those of florence-2-nano.
        TrainingError: for a run that cannot be resumed, a loss or weights that are not finite, or a full disk.
    """
    _training_device(arguments.device)
    check_scene_supply(arguments)
    out = prepare_output_folder("--out", arguments.out)
    with _describe_failures(out):
        _train(arguments, out, on_log)
        return export_checkpoint(out / "last.pt", out / "model")


def _train(arguments: PretrainArguments, out: Path, on_log: Callable[[dict[str, Any]], None] | None) -> None:
    """Take the steps that are left, and write `last.pt`."""
    tokenizer = load_or_build_tokenizer(out, arguments.init_from)
    state = TrainingState(arguments, tokenizer)
    if state.load(out / "last.pt"):
        for name in ("log.jsonl", "measures.jsonl"):
            truncate_log(out / name, state.step)
    else:
        save_tokenizer(tokenizer, out)  # not earlier: a run that cannot start leaves no files
    loader = DataLoader(
        StepDataset(arguments, tokenizer),
        batch_size=None,
        sampler=range(state.step, arguments.steps),
        num_workers=arguments.workers,
        prefetch_factor=8 if arguments.workers else None,
        pin_memory=state.device.type == "cuda",
    )
    with tqdm(loader, initial=state.step, total=arguments.steps, unit="step", smoothing=0.05) as progress:
        for batch in progress:
            started = time.perf_counter()
            entry = state.train_step(batch, stage_at(state.step, arguments).image_size)
            entry["images_per_s"] = arguments.batch_size / (time.perf_counter() - started)
            append_log(out / "log.jsonl", entry)
            progress.set_postfix(loss=f"{entry['loss']:.3f}", images=f"{entry['images_per_s']:.0f}/s")
            if state.step % arguments.measure_every == 0:
                evaluation = evaluate_held_out(state.ema.module, tokenizer, state.image_size, arguments.measured)
                append_log(out / "measures.jsonl", {"step": state.step} | finite_metrics(evaluation))
                entry["picture"] = str(out / f"answers-{state.step}.png")
                plot_predictions(evaluation).savefig(entry["picture"])
            if on_log:
                on_log(entry)
            if state.step % arguments.save_every == 0 or state.step == arguments.steps:
                state.save(out / "last.pt")


@contextmanager
def _describe_failures(out: Path) -> Iterator[None]:
    """Raise `TrainingError` for a full disk, and for errors of the processes that draw scenes."""
    try:
        yield
    except Exception as error:
        if is_worker_error(error) or (isinstance(error, OSError) and not isinstance(error, FlorenceLabError)):
            raise TrainingError(f"{out}: {summarize_data_error(error)}. The same command resumes the run") from error
        raise


class TrainingState:
    """Everything that a checkpoint holds: model, moving average, optimizer, scheduler, random state, step.

    Attributes:
        step: number of completed steps.
        image_size: current side of the images in pixels.
        model: the model in training.
        ema: `ModelEmaV3`, the moving average of its weights.
        device: the device of the model.
    """

    def __init__(self, arguments: PretrainArguments, tokenizer: BartTokenizer) -> None:
        self.arguments = arguments
        self.device = device = _training_device(arguments.device)
        self.use_bf16 = arguments.dtype == "bfloat16" or (arguments.dtype == "auto" and has_native_bf16(device))
        self.first_location_id = tokenizer.get_vocab()["<loc_0>"]
        self.step = 0
        self.image_size = stage_at(0, arguments).image_size
        self.image_processor = build_processor(tokenizer, self.image_size).image_processor
        model = build_for_training(tokenizer, self.image_size, arguments.seed)
        if arguments.init_from:
            load_initial_weights(model, arguments.init_from, self.image_size)
        model.to(device)  # type: ignore[arg-type]  # transformers annotates the decorated method wrongly
        self.model = model.train()
        config: Any = self.model.config
        heads = AuxiliaryHeads(config.text_config.d_model, config.vision_config.embed_dim[-2])
        self.auxiliary_heads = heads.to(device)
        self.learner = torch.nn.ModuleDict({"model": self.model, "helper": self.auxiliary_heads})
        self.ema = ModelEmaV3(self.model, decay=arguments.ema_decay, use_warmup=True)
        self.optimizer = create_optimizer_v2(
            self.learner, "adamw", lr=arguments.lr, weight_decay=arguments.weight_decay, betas=(0.9, 0.98)
        )
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=arguments.steps,
            warmup_t=arguments.warmup,
            warmup_lr_init=arguments.lr / 100,
            t_in_epochs=False,
        )
        self.scheduler.step_update(0)

    def train_step(self, batch: TrainingBatch, image_size: int) -> dict[str, Any]:
        """Train one step on a batch of images of image_size x image_size pixels. Returns its log entry.

        Raises:
            TrainingError: if a loss or the norm of the gradient is not finite.
        """
        self.set_image_size(image_size)
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.use_bf16):
            losses, auxiliary_loss = self._losses(batch)
        lengths = torch.cat([(group.target_ids != PAD_ID).sum(1) for group in batch.groups])
        tasks = [task for group in batch.groups for task in group.tasks]
        weights = token_weights(lengths, tasks)
        loss = (losses * weights).sum() / weights.sum()
        (loss + self.arguments.helper * auxiliary_loss).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.arguments.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.scheduler.step_update(self.step)
        self.ema.update(self.model, self.step)
        entry = {
            "step": self.step,
            "loss": loss.item(),
            "helper": auxiliary_loss.item(),
            "norm": norm.item(),
            "lr": self.optimizer.param_groups[0]["lr"],
            "tasks": mean_loss_per_task(losses.detach(), lengths, tasks),
        }
        for name, meaning in (("loss", "loss"), ("helper", "auxiliary loss"), ("norm", "norm of the gradient")):
            if not math.isfinite(entry[name]):
                raise self._non_finite_error(f"the {meaning} is {entry[name]}")
        return entry

    def check_weights(self) -> None:
        """Verify that all weights and their moving average are finite.

        Raises:
            TrainingError: if one is not; the message names it.
        """
        for weights in (self.learner.state_dict(), self.ema.module.state_dict()):
            for name, weight in weights.items():
                if weight.is_floating_point() and not torch.isfinite(weight).all():
                    raise self._non_finite_error(f"the weights {name} contain nan or inf")

    def _non_finite_error(self, what: str) -> TrainingError:
        return TrainingError(
            f"{self.arguments.out}: training stopped at step {self.step}: {what}. The likely cause is a learning rate that is too "
            f"high (--lr is {self.arguments.lr:g}). last.pt keeps the last good step; remove it to start again with other options"
        )

    def _losses(self, batch: TrainingBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the losses of the tokens of all answers, and the sum of the auxiliary losses."""
        output = forward_batch(self.model, batch, self.image_processor)
        masks = [group.target_ids != PAD_ID for group in batch.groups]
        target_ids = torch.cat([group.target_ids[mask] for group, mask in zip(batch.groups, masks, strict=True)])
        hidden = torch.cat([hidden[mask] for hidden, mask in zip(output.decoder_hidden, masks, strict=True)])
        sigma = self.arguments.location_sigma
        losses = token_losses(hidden, target_ids, self.model.lm_head, self.first_location_id, sigma)
        dense_targets = batch.dense_targets[torch.cat([group.image_index for group in batch.groups])]
        reference_targets = torch.cat([group.reference_targets for group in batch.groups])
        heads = self.auxiliary_heads
        auxiliary_loss = (
            heads.encoder_loss(torch.cat(output.image_states), dense_targets, reference_targets)
            + heads.intermediate_loss(torch.cat(output.intermediate_image_states), dense_targets)
            + heads.vision_loss(output.vision_map, batch.dense_targets)
        )
        return losses, auxiliary_loss

    def set_image_size(self, image_size: int) -> None:
        """Adapt the model and its moving average to a new image size, see `resize_position_embeddings`."""
        if image_size != self.image_size:
            for model in (self.model, self.ema.module):
                resize_position_embeddings(model, self.image_size, image_size)
        self.image_size = image_size

    def save(self, path: Path) -> None:
        """Write the checkpoint. An interruption, weights that are not finite, or a full disk leave the previous one intact.

        Raises:
            TrainingError: if a weight is not finite, or the file cannot be written.
        """
        self.check_weights()
        temporary = path.with_suffix(".tmp")
        state = {
            "step": self.step,
            "image_size": self.image_size,
            "learner": self.learner.state_dict(),
            "ema": self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "dice": torch.get_rng_state(),
            "cuda_dice": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "arguments": asdict(self.arguments),
        }
        try:
            torch.save(state, temporary)
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:  # torch raises a RuntimeError on a full disk
            temporary.unlink(missing_ok=True)
            raise TrainingError(
                f"{path} cannot be written: {summarize_error(error)}. The checkpoint before it stays; the same command resumes "
                "the run"
            ) from error

    def load(self, path: Path) -> bool:
        """Resume from a checkpoint, with the arguments of this run. Returns False if there is none.

        Raises:
            TrainingError: if the file is damaged, or if it has more steps than the run.
        """
        if not path.exists():
            return False
        try:
            before = self._restore(torch.load(path, map_location=self.device, weights_only=True))
        except Exception as error:  # a file that is cut off, other keys, other shapes
            raise TrainingError(
                f"{path} is damaged, or not of florence-2-nano: {summarize_error(error)}. Remove it to start the run again"
            ) from error
        if self.step > self.arguments.steps:
            raise TrainingError(
                f"{path} has {self.step} steps already: --steps must be at least that, got {self.arguments.steps}"
            )
        changed = [
            f"--{name} was {before[name]} and is {value}"
            for name, value in asdict(self.arguments).items()
            if name not in _ARGUMENTS_OF_THE_MACHINE and before.get(name, value) != value
        ]
        if changed:
            warn(f"{path.parent} goes on with other arguments than it was started with: {'; '.join(changed)}")
        return True

    def _restore(self, state: dict[str, Any]) -> dict[str, Any]:
        """Restore a saved state, and return the arguments that it was saved with."""
        self.set_image_size(state["image_size"])
        self.learner.load_state_dict(state["learner"])
        self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
        self.scheduler.step_update(self.step)
        torch.set_rng_state(state["dice"].cpu())
        if state["cuda_dice"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([rng_state.cpu() for rng_state in state["cuda_dice"]])
        return dict(state["arguments"])


def export_checkpoint(checkpoint: Path | str, folder: Path | str) -> Path:
    """Export the moving average of a training checkpoint as a model in transformers' layout, in fp16.

    `config.json` receives `trained_on`, by which `Predictor` recognizes models that know cartoon scenes only.

    Args:
        checkpoint: `last.pt` of a run, beside its `tokenizer` folder.
        folder: folder of the model; existing files are replaced one by one, the weights last.

    Returns:
        The folder of the model.

    Raises:
        TrainingError: if a weight is beyond fp16.
    """
    checkpoint, folder = Path(checkpoint), Path(folder)
    tokenizer = load_or_build_tokenizer(checkpoint.parent)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = build_for_training(tokenizer, state["image_size"], seed=0)
    model.load_state_dict(state["ema"])
    model.config.trained_on = GENERATOR_TAG
    model.half()
    for name, weight in model.state_dict().items():
        if not torch.isfinite(weight).all():
            raise TrainingError(
                f"{checkpoint}: the weights {name} are beyond fp16, or not finite; the model is not exported"
            )
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    model.save_pretrained(temporary)
    build_processor(tokenizer, state["image_size"]).save_pretrained(temporary)
    for file in sorted(temporary.iterdir()):
        file.chmod(0o644)  # safetensors writes files that only their owner may read
        os.replace(file, folder / file.name)
    temporary.rmdir()
    return folder


def append_log(path: Path, entry: dict[str, Any]) -> None:
    """Append an entry to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def truncate_log(path: Path, step: int) -> None:
    """Remove the entries after a step, which is repeated, and what a kill left of a line."""
    if path.exists():
        write_text(path, "".join(json.dumps(entry) + "\n" for entry in read_log(path) if entry["step"] <= step))


def _training_device(name: str) -> torch.device:
    """Return the device of a name. `"auto"` is CUDA or the CPU, never MPS, on which training is untested.

    Raises:
        ArgumentError: if it does not exist.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return select_device(name)
    except ValueError as error:
        raise ArgumentError(f"--device {name}: {error}") from error
