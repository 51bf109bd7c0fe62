"""TODO"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..inference.device import has_native_bf16
from ..loading.checkpoint import build_processor
from .arguments import PretrainArguments
from .auxiliary_heads import AuxiliaryHeads
from .config import PAD
from .curriculum import stage_of
from .dataset import Batch, Steps
from .losses import _mean_per_task, answer_losses, token_weights
from .model import _build, _start_from, forward, resize
from .monitoring import look, picture
from .tokenizer import _tokenizer


def pretrain(arguments: PretrainArguments, watch: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """Train, or go on training, and export.

    Args:
        arguments: what can be chosen.
        watch: is called after every step with its line of the log, as a `LiveLossPlot` is; the line has a `picture`, a path,
            where one was drawn.

    Returns:
        The folder of the exported model.
    """
    out = Path(arguments.out)
    tokenizer = _tokenizer(out, arguments.init_from)
    run = _Run(arguments, tokenizer)
    if not run.load(out / "last.pt"):
        tokenizer.save_pretrained(out / "tokenizer")  # only now: what it can't start with leaves nothing behind
    loader = DataLoader(
        Steps(arguments, tokenizer),
        batch_size=None,
        sampler=range(run.step, arguments.steps),
        num_workers=arguments.workers,
        prefetch_factor=8 if arguments.workers else None,
        pin_memory=run.device.type == "cuda",
    )
    bar = tqdm(loader, initial=run.step, total=arguments.steps, unit="step", smoothing=0.05)
    for batch in bar:
        started = time.perf_counter()
        line = run.learn(batch, stage_of(run.step, arguments).image_size)
        line["images_per_s"] = arguments.batch_size / (time.perf_counter() - started)
        _log(out / "log.jsonl", line)
        bar.set_postfix(loss=f"{line['loss']:.3f}", images=f"{line['images_per_s']:.0f}/s")
        if run.step % arguments.measure_every == 0:
            evaluation = look(run.ema.module, tokenizer, run.image_size, arguments.measured)
            _log(out / "measures.jsonl", {"step": run.step} | evaluation.metrics)
            line["picture"] = str(out / f"answers-{run.step}.png")
            picture(evaluation).savefig(line["picture"])
        if watch:
            watch(line)
        if run.step % arguments.save_every == 0 or run.step == arguments.steps:
            run.save(out / "last.pt")
    return export(out / "last.pt", out / "model")


class _Run:
    """All that a checkpoint holds: model, average, optimizer, scheduler, the state of the dice, the step."""

    def __init__(self, arguments: PretrainArguments, tokenizer):
        self.arguments = arguments
        self.device = device = _device(arguments.device)
        self.low = arguments.dtype == "bfloat16" or (arguments.dtype == "auto" and has_native_bf16(device))
        self.first_location = tokenizer.convert_tokens_to_ids("<loc_0>")
        self.step = 0
        self.image_size = stage_of(0, arguments).image_size
        model = _build(tokenizer, self.image_size, arguments.seed)
        if arguments.init_from:
            _start_from(model, arguments.init_from, self.image_size)
        self.model = model.to(device).train()
        config = self.model.config
        self.helper = AuxiliaryHeads(config.text_config.d_model, config.vision_config.embed_dim[-2]).to(device)
        self.learner = torch.nn.ModuleDict({"model": self.model, "helper": self.helper})
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

    def learn(self, batch: Batch, image_size: int) -> dict[str, Any]:
        """One step on a batch of pictures of that size. Returns its line for the log."""
        self.see(image_size)
        arguments = self.arguments
        batch = batch.to(self.device)
        real = [group.targets != PAD for group in batch.groups]
        targets = torch.cat([group.targets[mask] for group, mask in zip(batch.groups, real, strict=True)])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            output = forward(self.model, batch)
            hidden = torch.cat([hidden[mask] for hidden, mask in zip(output.hidden, real, strict=True)])
            losses = answer_losses(hidden, targets, self.model.lm_head, self.first_location, arguments.location_sigma)
            cells = batch.cells[torch.cat([group.picture for group in batch.groups])]
            referenced_objects = torch.cat([group.referenced_objects for group in batch.groups])
            helper = self.helper.loss(torch.cat(output.tokens), cells, referenced_objects)
            helper = helper + self.helper.halfway_loss(torch.cat(output.halfway), cells)
            helper = helper + self.helper.fine_loss(output.maps, batch.cells)
        lengths = torch.cat([mask.sum(1) for mask in real])
        tasks = [task for group in batch.groups for task in group.tasks]
        weights = token_weights(lengths, tasks)
        loss = (losses * weights).sum() / weights.sum()
        (loss + arguments.helper * helper).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), arguments.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.scheduler.step_update(self.step)
        self.ema.update(self.model, self.step)
        line = {"step": self.step, "loss": loss.item(), "helper": helper.item(), "norm": norm.item()}
        line["lr"] = self.optimizer.param_groups[0]["lr"]
        return line | {"tasks": _mean_per_task(losses.detach(), lengths, tasks)}

    def see(self, image_size: int) -> None:
        """From now on pictures have this size."""
        for model in (self.model, self.ema.module) if image_size != self.image_size else ():
            resize(model, self.image_size, image_size)
        self.image_size = image_size

    def save(self, path: Path) -> None:
        """Write the checkpoint; a crash while writing leaves the old one whole."""
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
        torch.save(state, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> bool:
        """Go on from a checkpoint; False if there is none. Today's arguments count, not those it was written with."""
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.see(state["image_size"])
        self.learner.load_state_dict(state["learner"])
        self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.scheduler.step_update(self.step)
        torch.set_rng_state(state["dice"].cpu())
        if state["cuda_dice"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([dice.cpu() for dice in state["cuda_dice"]])
        return True


def export(checkpoint: Path | str, folder: Path | str) -> Path:
    """Write a checkpoint's averaged weights, in fp16 as Florence-2's are published, and its processor in transformers' layout."""
    checkpoint, folder = Path(checkpoint), Path(folder)
    tokenizer = _tokenizer(checkpoint.parent)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = _build(tokenizer, state["image_size"], seed=0)
    model.load_state_dict(state["ema"])
    model.half()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    model.save_pretrained(temporary)
    build_processor(tokenizer, state["image_size"]).save_pretrained(temporary)
    for file in sorted(temporary.iterdir()):  # each file whole at any moment, the weights last
        file.chmod(0o644)  # safetensors writes files that only their owner may read
        os.replace(file, folder / file.name)
    temporary.rmdir()
    return folder


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _log(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
