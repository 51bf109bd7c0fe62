"""Pretraining: florence-2-nano learns the cartoon world from nothing. Read it top to bottom.

    python -m florence_lab.training.pretrain --out runs/nano --steps 6500

Scenes are drawn as they are needed. Each picture goes through the vision tower once and is asked several tasks, which is
most of the speed. What happens in step k depends on the seed and on k alone, so a run that was killed and is started
again with the same command goes on as if nothing had happened.

On a machine with few cores that do other things too, set OMP_WAIT_POLICY=PASSIVE: threads that wait for one another
then sleep instead of spinning (on 2 cores beside one busy program: 1.5 seconds a step instead of 15).
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import Florence2ForConditionalGeneration

from ..results import Boxes
from ..scenes import CATEGORIES, HELD_OUT_SEEDS, TRAIN_SEEDS, Scene, draw_scene
from ..tasks import TASKS
from ..template import FlorenceTemplate
from . import nano


@dataclass(frozen=True)
class PretrainArguments:
    """What can be chosen. Times are in steps; one step is `batch_size` pictures, each with `tasks_per_image` tasks."""

    out: str = "runs/nano"
    """Folder of the run: checkpoint, log, pictures, the drawn scenes. A run that is already there is continued."""
    steps: int = 6_500
    batch_size: int = 16
    tasks_per_image: int = 3
    new_scenes: int = 8
    """Scenes of a batch that are drawn for it; the others have been drawn before and are met again."""
    lr: float = 1e-3
    warmup: int = 300
    weight_decay: float = 0.02
    clip: float = 1.0
    ema_decay: float = 0.999
    location_sigma: float = 3.0
    """Width, in bins, of the Gaussian around the right location token that the model is to predict."""
    helper: float = 1.0
    """Weight of what every image token has to tell by itself, see `Helper`."""
    save_every: int = 250
    measure_every: int = 500
    """How often held-out scenes are asked, and a picture of the answers is drawn."""
    workers: int = 1
    seed: int = 0
    dtype: str = "auto"
    """`float32`, `bfloat16`, or `auto`: bfloat16 where the machine computes in it."""
    device: str = "auto"


class Stage(NamedTuple):
    """A part of the curriculum: up to which step, on which pictures, and how often each task is asked."""

    until: float
    image_size: int
    max_objects: int
    weights: dict[str, float]


# One thing first: with several in the picture, a place is not found for thousands of steps. Then more, on larger ones.
_PLACES = {"<OD>": 4, "<CAPTION_TO_PHRASE_GROUNDING>": 2, "<CAPTION>": 1, "<REGION_TO_CATEGORY>": 2}
_MOST = {
    "<OD>": 4,
    "<CAPTION>": 3,
    "<CAPTION_TO_PHRASE_GROUNDING>": 3,
    "<DETAILED_CAPTION>": 0.5,
    "<MORE_DETAILED_CAPTION>": 0.5,
    "<DENSE_REGION_CAPTION>": 1.5,
    "<REGION_PROPOSAL>": 0.7,
    "<OPEN_VOCABULARY_DETECTION>": 1.5,
    "<REGION_TO_CATEGORY>": 1,
    "<REGION_TO_DESCRIPTION>": 1,
}
_ALL = {
    **_MOST,
    "<REFERRING_EXPRESSION_SEGMENTATION>": 1,
    "<REGION_TO_SEGMENTATION>": 1,
    "<OCR>": 0.7,
    "<OCR_WITH_REGION>": 0.7,
    "<REGION_TO_OCR>": 0.7,
}
CURRICULUM = (
    Stage(1_080, 128, 1, _PLACES),
    Stage(2_500, 128, 3, _PLACES),
    Stage(6_500, 128, 6, _MOST),
    Stage(math.inf, 192, 6, _ALL),
)


def stage_of(step: int) -> Stage:
    """The stage of the curriculum to which a step belongs."""
    return next(stage for stage in CURRICULUM if step < stage.until)


# ---------------------------------------------------------------------- data: step k -> a batch


def questions(scene: Scene, task: str, seed: int, at_most: int = 4) -> list[tuple[str, str]]:
    """(prompt, target) pairs for a task about a scene, in varied wordings; none where the task makes no sense."""
    dice = random.Random(seed)
    inputs = list(scene.queries(task, dice))
    # a task without an input has one question, but several wordings of the answer
    chosen = dice.sample(inputs, min(at_most, len(inputs))) if inputs != [None] else [None] * at_most
    pairs = []
    for text in chosen:
        answer = scene.answer(task, text, variant=dice.randrange(1000))
        # "there is nothing" is an answer too, but most scenes have no text, and it is soon learnt
        if answer.raw or dice.random() < 0.15:
            pairs.append((answer.prompt, answer.raw))
    return list(dict.fromkeys(pairs))


# Mostly larger than what the model sees, as people's pictures are, and shrunk the way the processor does it.
_DRAWN_SIZES = ((256, 256), (320, 320), (384, 384), (512, 512), (512, 512), (400, 300), (300, 400))


class Example(NamedTuple):
    """A training scene, ready to be asked about.

    Attributes:
        pixels: H x W x 3 uint8, at the model's size.
        cells: n x 5 float32, for every image token what it mostly shows: 0 for background or 1 + the category's index
            in `CATEGORIES`, and that thing's box, x0, y0, x1, y1 in fractions of the picture.
        asked: task -> (prompt, target) pairs.
    """

    pixels: np.ndarray
    cells: np.ndarray
    asked: dict[str, list]


def draw_example(number: int, max_objects: int, image_size: int) -> Example:
    """Training scene `number` for a model that sees image_size x image_size pixels."""
    dice = random.Random(number)
    scene = draw_scene(TRAIN_SEEDS[number], dice.choice(_DRAWN_SIZES), max_objects)
    image = scene.image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    asked = {task: questions(scene, task, number) for task in TASKS}
    return Example(np.asarray(image), cells_of(scene, image_size // 16), asked)


def cells_of(scene: Scene, side: int) -> np.ndarray:
    """What each of side x side cells shows, see `Example`: the thing that covers most of it, if a quarter or more."""
    cells = np.zeros((side, side, 5), np.float32)
    most = np.full((side, side), 0.25)
    for thing in scene.objects:
        mask = Image.fromarray(thing.mask.astype(np.float32))
        covered = np.asarray(mask.resize((side, side), Image.Resampling.BOX))
        cells[covered > most] = (1 + CATEGORIES.index(thing.label), *np.array(thing.box) / (scene.size * 2))
        most = np.maximum(most, covered)
    return cells.reshape(-1, 5)


class Batch(NamedTuple):
    """What one step trains on: B pictures, Q questions about each, in the order of the pictures.

    Attributes:
        pixels: B x 3 x H x W uint8.
        prompts: BQ x P int64, `<s> prompt </s>`, padded on the right.
        targets: BQ x T int64, `<s> answer </s>`, padded on the right.
        tasks: BQ task tokens.
        cells: B x n x 5 float32, see `Example`.
    """

    pixels: torch.Tensor
    prompts: torch.Tensor
    targets: torch.Tensor
    tasks: list[str]
    cells: torch.Tensor


class Steps(Dataset):
    """Batch of step k, for any k: a function of the arguments and of k, of nothing else."""

    def __init__(self, arguments: PretrainArguments, tokenizer):
        self.arguments = arguments
        self.tokenizer = tokenizer

    def __len__(self) -> int:
        return self.arguments.steps

    def __getitem__(self, step: int) -> Batch:
        arguments = self.arguments
        stage = stage_of(step)
        dice = random.Random(f"{arguments.seed}/{step}")
        seen = arguments.new_scenes * step
        numbers = list(range(seen, seen + arguments.new_scenes))
        numbers += [dice.randrange(seen + arguments.new_scenes) for _ in range(arguments.batch_size - len(numbers))]
        pictures, cells, tasks, prompts, targets = [], [], [], [], []
        for number in numbers:
            pixels, shown, asked = self.example(number, stage)
            pictures.append(torch.tensor(pixels).permute(2, 0, 1))
            cells.append(torch.tensor(shown))
            for task in _pick_tasks({t: w for t, w in stage.weights.items() if asked[t]}, arguments, dice):
                prompt, target = dice.choice(asked[task])
                tasks.append(task)
                prompts.append(prompt)
                targets.append(target)
        return Batch(torch.stack(pictures), self.encode(prompts), self.encode(targets), tasks, torch.stack(cells))

    def example(self, number: int, stage: Stage) -> Example:
        """A scene as drawn the first time it was met: later it is read from the run's folder."""
        folder = Path(self.arguments.out, "drawn", f"{stage.image_size}-{stage.max_objects}", f"{number // 1000}")
        path = folder / f"{number}.npz"
        try:
            with np.load(path) as saved:
                return Example(saved["pixels"], saved["cells"], json.loads(saved["asked"].tobytes()))
        except FileNotFoundError:
            example = draw_example(number, stage.max_objects, stage.image_size)
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"{number}.{os.getpid()}.tmp"
            asked = np.frombuffer(json.dumps(example.asked).encode(), np.uint8)
            with temporary.open("wb") as file:
                np.savez(file, pixels=example.pixels, cells=example.cells, asked=asked)
            temporary.replace(path)
            return example

    def encode(self, texts: list[str]) -> torch.Tensor:
        """Texts -> ids, padded to a multiple of 8, so that there are few shapes."""
        ids = self.tokenizer(texts, add_special_tokens=True)["input_ids"]
        length = math.ceil(max(map(len, ids)) / 8) * 8
        return torch.tensor([row + [self.tokenizer.pad_token_id] * (length - len(row)) for row in ids])


def _pick_tasks(weights: dict[str, float], arguments: PretrainArguments, dice: random.Random) -> list[str]:
    """As many tasks as are asked per picture: different ones as long as there are enough, the heavier the likelier."""
    keys = {task: dice.random() ** (1 / weight) for task, weight in weights.items()}
    ranked = sorted(keys, key=keys.get, reverse=True)
    return [ranked[i % len(ranked)] for i in range(arguments.tasks_per_image)]


# ---------------------------------------------------------------------- one step


class Helper(torch.nn.Linear):
    """What an image token mostly shows, read off the encoder's output: one linear layer, thrown away in the end.

    From answers alone the model learns for a thousand steps nothing but what is frequent: the tower isn't told what to
    see before the decoder knows where to look, and the other way round. Every token's own task cuts that knot.
    """

    def __init__(self, width: int):
        super().__init__(width, 1 + len(CATEGORIES) + 4)

    def loss(self, tokens: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the category and, where there is a thing, five times the mean error of its box's sides.

        Args:
            tokens: B x n x width, the encoder's output for the image tokens.
            cells: B x n x 5, see `Example`.
        """
        label, box = self(tokens).float().split([1 + len(CATEGORIES), 4], dim=-1)
        kind = cells[..., 0].long()
        off = (box - cells[..., 1:]).abs().mean(-1) * (kind > 0)
        return F.cross_entropy(label.flatten(0, 1), kind.flatten()) + 5 * off.sum() / (kind > 0).sum().clamp(min=1)


def forward(model: Florence2ForConditionalGeneration, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The decoder's output, BQ x T x width, and the encoder's for the image tokens, BQ x n x width.

    The vision tower runs once per picture, however many questions there are about it.
    """
    mean, std = (batch.pixels.new_tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (_MEAN, _STD))
    images = model.get_image_features((batch.pixels / 255 - mean) / std).pooler_output
    images = images.repeat_interleave(len(batch.prompts) // len(images), dim=0)
    words = model.get_input_embeddings()(batch.prompts)
    seen = torch.ones(images.shape[:2], dtype=torch.long, device=images.device)
    output = model.model.language_model(
        inputs_embeds=torch.cat([images.to(words.dtype), words], dim=1),
        attention_mask=torch.cat([seen, (batch.prompts != _PAD).long()], dim=1),
        decoder_input_ids=torch.cat([torch.full_like(batch.targets[:, :1], _END), batch.targets[:, :-1]], dim=1),
        use_cache=False,
    )
    # the first image token is the mean of the others
    return output.last_hidden_state, output.encoder_last_hidden_state[:, 1 : images.shape[1]]


def answer_losses(
    hidden: torch.Tensor, targets: torch.Tensor, head: torch.nn.Module, first_location: int, sigma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of every token of the answers, and which question each belongs to: two vectors of as many entries.

    A location token's neighbours are nearly as right as itself: its target is a Gaussian over them. What is
    unavoidable then, the entropy of the target, is taken off, so that 0 is perfect.

    Args:
        hidden: BQ x T x width, the decoder's output.
        targets: BQ x T, padded.
        head: from the decoder's output to logits.
        first_location: the id of `<loc_0>`.
        sigma: width of the Gaussian in bins.
    """
    real = targets != _PAD
    question = torch.arange(len(real), device=real.device)[:, None].expand_as(real)[real]
    targets = targets[real]
    log_p = head(hidden[real]).float().log_softmax(-1)
    losses = F.nll_loss(log_p, targets, reduction="none")

    is_place = (targets >= first_location) & (targets < first_location + 1000)
    places = targets[is_place, None] - first_location
    near = places + torch.arange(-round(3 * sigma), round(3 * sigma) + 1, device=places.device)
    inside = (near >= 0) & (near < 1000)
    share = torch.exp(-0.5 * ((near - places) / sigma) ** 2) * inside
    share = share / share.sum(-1, keepdim=True)
    expected = -(share * log_p[is_place].gather(1, first_location + near.clamp(0, 999))).sum(-1)
    entropy = torch.special.entr(share).sum(-1)
    return losses.masked_scatter(is_place, expected - entropy), question


_PAD, _END = 1, 2
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def resize(model: Florence2ForConditionalGeneration, old: int, new: int) -> None:
    """Make a model that saw pictures of old x old pixels see new x new ones, its sense of place stretched to fit."""
    model.model.vision_tower.config.window_size = new // 16
    for module in model.model.vision_tower.modules():
        if hasattr(module, "window_size"):
            module.window_size = new // 16
    a, b = old // 16, new // 16
    if a == b:
        return
    place = model.model.multi_modal_projector.image_position_embed
    with torch.no_grad():
        for table in (place.row_embeddings.weight, place.column_embeddings.weight):
            table[:b] = F.interpolate(table[None, :a].mT, size=b, mode="linear")[0].mT
        # the encoder numbers what it reads: (2 unused), the mean of the picture, its a x a tokens, the prompt
        table = model.model.language_model.encoder.embed_positions.weight
        grid = table[3 : 3 + a * a].view(1, a, a, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(b, b), mode="bilinear")[0].flatten(1).mT
        # what is left over at the end is cut, what is missing there is filled
        table.copy_(torch.cat([table[:3], grid, table[3 + a * a :], table])[: len(table)])


# ---------------------------------------------------------------------- the run


def pretrain(arguments: PretrainArguments) -> Path:
    """Train, or go on training, and export. Returns the folder of the exported model."""
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(out)
    run = _Run(arguments, tokenizer)
    run.load(out / "last.pt")
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
        line = run.learn(batch, stage_of(run.step).image_size)
        line["images_per_s"] = arguments.batch_size / (time.perf_counter() - started)
        _log(out / "log.jsonl", line)
        bar.set_postfix(loss=f"{line['loss']:.3f}", images=f"{line['images_per_s']:.0f}/s")
        if run.step % arguments.measure_every == 0:
            asked = run.ema.module, tokenizer, run.image_size
            _log(out / "measures.jsonl", {"step": run.step} | measure(*asked))
            picture(*asked).save(out / f"answers-{run.step}.png")
        if run.step % arguments.save_every == 0 or run.step == arguments.steps:
            run.save(out / "last.pt")
    return export(out / "last.pt", out / "model")


class _Run:
    """All that a checkpoint holds: model, average, optimizer, scheduler, the state of the dice, the step."""

    def __init__(self, arguments: PretrainArguments, tokenizer):
        self.arguments = arguments
        self.device = device = _device(arguments.device)
        self.low = arguments.dtype == "bfloat16" or (arguments.dtype == "auto" and _is_good_at_bfloat16(device))
        self.first_location = tokenizer.convert_tokens_to_ids("<loc_0>")
        self.step = 0
        self.image_size = CURRICULUM[0].image_size
        self.model = _build(tokenizer, self.image_size, arguments.seed).to(device).train()
        self.helper = Helper(self.model.config.text_config.d_model).to(device)
        self.learner = torch.nn.ModuleDict({"model": self.model, "helper": self.helper})
        self.ema = ModelEmaV3(self.model, decay=arguments.ema_decay, use_warmup=True)
        self.optimizer = create_optimizer_v2(
            self.learner, "adamw", lr=arguments.lr, weight_decay=arguments.weight_decay, betas=(0.9, 0.98)
        )
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=arguments.steps,
            lr_min=arguments.lr / 50,
            warmup_t=arguments.warmup,
            warmup_lr_init=arguments.lr / 100,
            t_in_epochs=False,
        )
        self.scheduler.step_update(0)

    def learn(self, batch: Batch, image_size: int) -> dict[str, Any]:
        """One step on a batch of pictures of that size. Returns its line for the log."""
        self.see(image_size)
        arguments = self.arguments
        batch = Batch(*(part.to(self.device) if torch.is_tensor(part) else part for part in batch))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            hidden, tokens = forward(self.model, batch)
            losses, question = answer_losses(
                hidden, batch.targets, self.model.lm_head, self.first_location, arguments.location_sigma
            )
            helper = self.helper.loss(tokens, batch.cells.repeat_interleave(arguments.tasks_per_image, dim=0))
        loss = losses.mean()
        (loss + arguments.helper * helper).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), arguments.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.scheduler.step_update(self.step)
        self.ema.update(self.model, self.step)
        line = {"step": self.step, "loss": loss.item(), "helper": helper.item(), "norm": norm.item()}
        line["lr"] = self.optimizer.param_groups[0]["lr"]
        return line | {"tasks": _mean_per_task(losses.detach(), question, batch.tasks)}

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

    def load(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one. The arguments of today count, not those it was written with."""
        if not path.exists():
            return
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


def export(checkpoint: Path | str, folder: Path | str) -> Path:
    """Write a checkpoint's averaged weights and its processor as a folder in transformers' layout."""
    checkpoint, folder = Path(checkpoint), Path(folder)
    tokenizer = _tokenizer(checkpoint.parent)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = _build(tokenizer, state["image_size"], seed=0)
    model.load_state_dict(state["ema"])
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    model.save_pretrained(temporary)
    nano.build_processor(tokenizer, state["image_size"]).save_pretrained(temporary)
    for file in sorted(temporary.iterdir()):  # each file whole at any moment, the weights last
        file.chmod(0o644)  # safetensors writes files that only their owner may read
        os.replace(file, folder / file.name)
    temporary.rmdir()
    return folder


def _build(tokenizer, image_size: int, seed: int) -> Florence2ForConditionalGeneration:
    model = nano.build_nano(tokenizer, image_size, seed)
    model.set_attn_implementation("eager")  # on a CPU, torch's fused attention takes twice as long to differentiate
    return model


def _tokenizer(out: Path):
    """The run's tokenizer: read from its folder, or made and put there."""
    folder = out / "tokenizer"
    if not folder.exists():
        nano.build_tokenizer(nano.world_texts()).save_pretrained(folder)
    tokenizer = nano.BartTokenizer.from_pretrained(folder)
    for note in ("is_local", "local_files_only"):  # where it was read from is no part of it
        tokenizer.init_kwargs.pop(note, None)
    return tokenizer


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _is_good_at_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def _mean_per_task(losses: torch.Tensor, question: torch.Tensor, tasks: list[str]) -> dict[str, float]:
    sums = defaultdict(list)
    for loss, q in zip(losses.tolist(), question.tolist(), strict=True):
        sums[tasks[q]].append(loss)
    return {task: round(sum(values) / len(values), 4) for task, values in sorted(sums.items())}


def _log(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


# ---------------------------------------------------------------------- how good it is so far


@torch.no_grad()
def ask(
    model: Florence2ForConditionalGeneration,
    tokenizer,
    scenes: list[Scene],
    asked: list[tuple[str, str | None]],
    image_size: int,
    max_length: int = 200,
) -> list[Any]:
    """One question (task, input) about each scene, answered greedily: a typed result each."""
    template = FlorenceTemplate(tokenizer)
    images = [scene.image.resize((image_size, image_size), Image.Resampling.BICUBIC) for scene in scenes]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    prompts = [template.prompt(task, text, scene.size) for (task, text), scene in zip(asked, scenes, strict=True)]
    tokenizer.padding_side = "right"
    words = tokenizer([prompt for *_, prompt in prompts], padding=True, return_tensors="pt").to(model.device)
    mean, std = (torch.tensor(v, device=model.device).view(1, 3, 1, 1) for v in (_MEAN, _STD))
    features = model.get_image_features((pixels.to(model.device) / 255 - mean) / std).pooler_output
    seen = torch.ones(features.shape[:2], dtype=torch.long, device=model.device)
    mask = torch.cat([seen, words.attention_mask], dim=1)
    inputs = torch.cat([features, model.get_input_embeddings()(words.input_ids)], dim=1)
    encoded = model.get_encoder()(inputs_embeds=inputs, attention_mask=mask)
    ids = model.generate(encoder_outputs=encoded, attention_mask=mask, max_length=max_length)
    return [
        template.parse(row, task, scene.size, phrase, image=scene.image)
        for row, (task, phrase, _), scene in zip(ids.tolist(), prompts, scenes, strict=True)
    ]


def measure(model, tokenizer, image_size: int, count: int = 64) -> dict[str, float]:
    """Held-out scenes, asked greedily, without and with few things: a quick look, `evaluation.py` measures properly.

    Returns precision, recall and F1 of `<OD>` and F1 of grounding the scene's own caption (a box is right if its label
    is and IoU >= 0.5), and the share of captions that name every thing with its number.
    """
    from ..scenes import language

    model.eval()
    scenes = [draw_scene(seed, 384) for seed in HELD_OUT_SEEDS[:count]]
    few = [draw_scene(seed, 384, max_objects=3) for seed in HELD_OUT_SEEDS[count : 2 * count]]
    found = {}
    for name, chosen in (("", scenes), ("few_", few)):
        answers = ask(model, tokenizer, chosen, [("<OD>", None)] * count, image_size)
        truths = [scene.answer("<OD>") for scene in chosen]
        found |= {f"{name}od_{key}": value for key, value in _box_scores(answers, truths).items()}
        captions = ask(model, tokenizer, chosen, [("<CAPTION>", None)] * count, image_size)
        right = [
            language.caption_counts(c.text) == language.object_counts(s) for c, s in zip(captions, chosen, strict=True)
        ]
        found[f"{name}caption"] = sum(right) / count
        asked = [("<CAPTION_TO_PHRASE_GROUNDING>", scene.answer("<CAPTION>").text) for scene in chosen]
        answers = ask(model, tokenizer, chosen, asked, image_size)
        truths = [scene.answer(*question) for scene, question in zip(chosen, asked, strict=True)]
        found[f"{name}grounding_f1"] = _box_scores(answers, truths)["f1"]
    return {key: round(value, 3) for key, value in found.items()}


def _box_scores(answers: list[Boxes], truths: list[Boxes]) -> dict[str, float]:
    hits, said, real = 0, 0, 0
    for answer, truth in zip(answers, truths, strict=True):
        left = list(range(len(truth)))
        for label, box in zip(answer.labels, answer.boxes, strict=True):
            same = [i for i in left if truth.labels[i] == label and _iou(box, truth.boxes[i]) >= 0.5]
            if same:
                left.remove(max(same, key=lambda i: _iou(box, truth.boxes[i])))
        hits, said, real = hits + len(truth) - len(left), said + len(answer), real + len(truth)
    return {
        "precision": hits / max(1, said),
        "recall": hits / max(1, real),
        "f1": 2 * hits / max(1, said + real),
    }


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return float(shared / max(1e-9, np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def picture(model, tokenizer, image_size: int, count: int = 8, side: int = 320) -> Image.Image:
    """Held-out scenes in two rows, with the boxes and the captions that the model gives them."""
    model.eval()
    scenes = [draw_scene(seed, side) for seed in HELD_OUT_SEEDS[:count]]
    boxes = ask(model, tokenizer, scenes, [("<OD>", None)] * count, image_size)
    captions = ask(model, tokenizer, scenes, [("<CAPTION>", None)] * count, image_size)
    sheet = Image.new("RGB", (count // 2 * side, 2 * (side + 40)), "white")
    for i, (scene, found, caption) in enumerate(zip(scenes, boxes, captions, strict=True)):
        image = scene.image.copy()
        pen = ImageDraw.Draw(image)
        for label, box in zip(found.labels, found.boxes, strict=True):
            x0, y0, x1, y1 = box
            pen.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline="magenta", width=2)
            pen.text((x0 + 3, y0 + 1), label, fill="magenta")
        x, y = i % (count // 2) * side, i // (count // 2) * (side + 40)
        sheet.paste(image, (x, y))
        half = len(caption.text) // 2
        split = caption.text.find(" ", half)
        ImageDraw.Draw(sheet).text(
            (x + 4, y + side + 4), f"{caption.text[:split]}\n{caption.text[split:]}", fill="black"
        )
    return sheet


def main() -> None:
    """The command line: every argument of `PretrainArguments` by its name."""
    from transformers import HfArgumentParser

    (arguments,) = HfArgumentParser(PretrainArguments).parse_args_into_dataclasses()
    print(pretrain(arguments))


if __name__ == "__main__":
    main()
