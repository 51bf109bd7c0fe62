"""Pretraining: florence-2-nano learns the cartoon world from nothing. Read it top to bottom.

    florence-lab pretrain --out runs/nano

Scenes are drawn as they are needed. Each picture goes through the vision tower once and is asked several tasks, which is
most of the speed. What happens in step k depends on the seed and on k alone, so a run that was killed and is started
again with the same command goes on as if nothing had happened.

On a machine with few cores that do other things too, set GOMP_SPINCOUNT=20000: threads that wait for one another then
soon go to sleep, instead of spinning on a core that is needed.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import Florence2ForConditionalGeneration

from ..draw import gallery
from ..evaluation import Evaluation, evaluate, scene_questions
from ..predictor import Predictor, is_good_at_bf16, load
from ..scenes import CATEGORIES, HELD_OUT_SEEDS
from ..scenes.language import COLUMNS
from ..tasks import TASKS
from . import nano
from .arguments import PretrainArguments
from .curriculum import COLORS, LETTERS, MOST, Batch, Steps, parts_of, stage_of, world_texts

# ---------------------------------------------------------------------- one step


class Helper(torch.nn.Module):
    """What a part of the picture shows, read off by linear layers that are thrown away in the end.

    From answers alone the model learns for a thousand steps nothing but what is frequent: the tower isn't told what to
    see before the decoder knows where to look, and the other way round. A task of their own for the encoder's image
    tokens cuts that knot. Letters and categories are told twice, first by the tower's last but one map, which is twice as
    fine: there each letter has a place of its own, and is learnt much faster. Which part of a token's square
    its thing fills is what outlines are made of.

    The rest is what takes more than one place to tell, and what answers go wrong by: how many of a kind there are and where
    the first of them is, which a caption says in one word, before it has named any of them; and whether the
    question means what is here. To count things, large and small, each must count once: halfway through the encoder
    tokens are asked whether they are the middle of their thing, so that the layers behind have one token of each to look at.
    """

    # category, colour, box, letters, outline; how many of a category, of its colour too, and in its column too; first of
    # each of these; column; meant
    PARTS = (1 + len(CATEGORIES), 1 + len(COLORS), 4, 4 * (1 + len(LETTERS)), 16, *[1 + MOST] * 3, 3, len(COLUMNS), 1)
    FINE_PARTS = (1 + len(LETTERS), 1 + len(CATEGORIES))
    HALFWAY_PARTS = (1 + len(CATEGORIES), 1)  # category, middle

    def __init__(self, width: int, fine_width: int):
        super().__init__()
        self.tokens = torch.nn.Linear(width, sum(self.PARTS))
        self.halfway = torch.nn.Linear(width, sum(self.HALFWAY_PARTS))
        self.fine = torch.nn.Linear(fine_width, sum(self.FINE_PARTS))
        for layer in (self.tokens, self.halfway, self.fine):
            # a model that knows something already would pay for what a helper that knows nothing makes of it
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)

    def loss(self, tokens: torch.Tensor, cells: torch.Tensor, meant: torch.Tensor) -> torch.Tensor:
        """Cross-entropies, some with a weight, and five times the mean error of the box's sides.

        Args:
            tokens: N x n x width, the encoder's output for the image tokens.
            cells: N x n x 39, see `cells_of`.
            meant: N x n, see `Questions`.
        """
        said = self.tokens(tokens).float().flatten(0, 1).split(self.PARTS, dim=-1)
        label, color, box, letters, own, *counts, first, column, asked = said
        true = parts_of(cells.flatten(0, 1))
        kind, filled, alike = true["kind"][:, 0].long(), true["filled"], true["alike"].long()
        thing = kind > 0
        edge = thing & (filled.mean(-1) < 1)  # within a thing there is nothing to learn of its outline
        outline = F.binary_cross_entropy_with_logits(own, filled, reduction="none").mean(-1)
        # where there is no thing, its colour would be the category over again
        of_things = (
            F.cross_entropy(color, true["color"][:, 0].long(), reduction="none")
            + 5 * (box - true["box"]).abs().mean(-1)
            + 0.5 * sum(F.cross_entropy(count, alike[:, i], reduction="none") for i, count in enumerate(counts))
            + 0.5 * F.binary_cross_entropy_with_logits(first, true["first"], reduction="none").sum(-1)
            + 0.5 * F.cross_entropy(column, true["column"][:, 0].long(), reduction="none")
        )
        meant = meant.flatten()
        right = F.binary_cross_entropy_with_logits(asked[:, 0], meant.clamp(min=0), reduction="none")
        return (
            F.cross_entropy(label, kind)
            + _mean_of(of_things, thing)
            + _mean_of(outline, edge)
            + _mean_of(right, meant >= 0)
            + _letters_loss(letters.unflatten(-1, (4, -1)), true["letters"])
        )

    def halfway_loss(self, tokens: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Cross-entropies of categories and of middles, these where there is a thing.

        Args:
            tokens: N x n x width, what the encoder makes of the image tokens halfway through.
            cells: N x n x 39, see `cells_of`.
        """
        label, middle = self.halfway(tokens).float().flatten(0, 1).split(self.HALFWAY_PARTS, dim=-1)
        true = parts_of(cells.flatten(0, 1))
        kind, middles = true["kind"][:, 0].long(), true["middle"][:, 0]
        losses = F.binary_cross_entropy_with_logits(middle[:, 0], middles, reduction="none")
        right = _mean_of(losses, middles > 0) + _mean_of(losses, (kind > 0) & (middles == 0))
        return F.cross_entropy(label, kind) + right

    def fine_loss(self, maps: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Cross-entropies of letters and categories.

        Args:
            maps: B x width x 2s x 2s, the tower's last but one map.
            cells: B x s*s x 39, see `cells_of`.
        """
        fine = maps.unfold(2, 2, 2).unfold(3, 2, 2)  # B x width x s x s x 2 x 2: the quarters of the tokens
        read = self.fine(fine.permute(0, 2, 3, 4, 5, 1).reshape(-1, maps.shape[1])).float()
        letters, kinds = read.split(self.FINE_PARTS, dim=-1)
        true = parts_of(cells)
        return _letters_loss(letters, true["letters"]) + F.cross_entropy(kinds, true["kinds"].flatten().long())


def _mean_of(losses: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    return (losses * which).sum() / which.sum().clamp(min=1)


def _letters_loss(logits: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, its mean where there is a letter and its mean where there is none: there are few letters."""
    letters = letters.flatten().long()
    losses = F.cross_entropy(logits.reshape(len(letters), -1), letters, reduction="none")
    return sum(_mean_of(losses, there) for there in (letters > 0, letters == 0))


class Output(NamedTuple):
    """What the model makes of a batch, one entry per group of questions.

    Attributes:
        hidden: N x T x width each, the decoder's output.
        tokens: N x n x width each, the encoder's output for the image tokens.
        halfway: the same, of what half of the encoder's layers make.
        maps: B x C x H x W, the tower's last but one map.
    """

    hidden: list[torch.Tensor]
    tokens: list[torch.Tensor]
    halfway: list[torch.Tensor]
    maps: torch.Tensor


def forward(model: Florence2ForConditionalGeneration, batch: Batch) -> Output:
    """The vision tower once per picture, then the language model for every group of questions."""
    mean, std = (batch.cells.new_tensor(v).view(1, 3, 1, 1) for v in (_MEAN, _STD))
    tower = model.get_image_features((batch.pixels / 255 - mean) / std, output_hidden_states=True)
    images = tower.pooler_output
    # the first one is what enters the first block
    output = Output([], [], [], tower.hidden_states[sum(model.config.vision_config.depths[:-1])])
    for group in batch.groups:
        words = model.get_input_embeddings()(group.prompts)
        seen = images[group.picture].to(words.dtype)
        here = torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device)
        said = model.model.language_model(
            inputs_embeds=torch.cat([seen, words], dim=1),
            attention_mask=torch.cat([here, (group.prompts != nano.PAD).long()], dim=1),
            decoder_input_ids=torch.cat(
                [torch.full_like(group.targets[:, :1], nano.END), group.targets[:, :-1]], dim=1
            ),
            use_cache=False,
            output_hidden_states=True,
        )
        output.hidden.append(said.last_hidden_state)
        # the first image token is the mean of the others
        layers = said.encoder_hidden_states  # the first one is what enters the first layer
        output.tokens.append(layers[-1][:, 1 : seen.shape[1]])
        output.halfway.append(layers[len(layers) // 2][:, 1 : seen.shape[1]])
    return output


def answer_losses(
    hidden: torch.Tensor, targets: torch.Tensor, head: torch.nn.Module, first_location: int, sigma: float
) -> torch.Tensor:
    """The loss of every token of the answers, N of them.

    A location token's neighbours are nearly as right as itself: its target is a Gaussian over them. What is
    unavoidable then, the entropy of the target, is taken off, so that 0 is perfect.

    Args:
        hidden: N x width, the decoder's output.
        targets: N token ids.
        head: from the decoder's output to logits.
        first_location: the id of `<loc_0>`.
        sigma: width of the Gaussian in bins.
    """
    log_p = head(hidden).float().log_softmax(-1)
    losses = F.nll_loss(log_p, targets, reduction="none")

    is_place = (targets >= first_location) & (targets < first_location + 1000)
    places = targets[is_place, None] - first_location
    near = places + torch.arange(-round(3 * sigma), round(3 * sigma) + 1, device=places.device)
    inside = (near >= 0) & (near < 1000)
    share = torch.exp(-0.5 * ((near - places) / sigma) ** 2) * inside
    share = share / share.sum(-1, keepdim=True)
    expected = -(share * log_p[is_place].gather(1, first_location + near.clamp(0, 999))).sum(-1)
    entropy = torch.special.entr(share).sum(-1)
    return losses.masked_scatter(is_place, expected - entropy)


def token_weights(lengths: torch.Tensor, tasks: list[str]) -> torch.Tensor:
    """What the loss of every token of the answers counts for.

    A long answer counts for more than a short one, but not by its whole length: there are thirty corners to an outline and
    one word to a category. Of an outline the first corner, behind `<s>`, says which thing is meant; it counts as a whole
    answer would, or the model outlines well what nobody asked for.

    Args:
        lengths: N int64, the tokens of each answer.
        tasks: N task tokens.

    Returns:
        float32, one for each token of all answers.
    """
    weights = lengths.float().rsqrt().repeat_interleave(lengths)
    outlines = torch.tensor([TASKS[task].result == "polygons" for task in tasks], device=lengths.device)
    first = (lengths.cumsum(0) - lengths)[outlines & (lengths > 2)]
    weights[first + 1] = weights[first + 2] = 1.0
    return weights


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


def pretrain(arguments: PretrainArguments, watch: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """Train, or go on training, and export.

    Args:
        arguments: what can be chosen.
        watch: is called after every step with its line of the log, as a `LiveCurve` is; the line has a `picture`, a path,
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
            _log(out / "measures.jsonl", {"step": run.step} | evaluation.metrics())
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
        self.low = arguments.dtype == "bfloat16" or (arguments.dtype == "auto" and is_good_at_bf16(device))
        self.first_location = tokenizer.convert_tokens_to_ids("<loc_0>")
        self.step = 0
        self.image_size = stage_of(0, arguments).image_size
        model = _build(tokenizer, self.image_size, arguments.seed)
        if arguments.init_from:
            _start_from(model, arguments.init_from, self.image_size)
        self.model = model.to(device).train()
        config = self.model.config
        self.helper = Helper(config.text_config.d_model, config.vision_config.embed_dim[-2]).to(device)
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
        real = [group.targets != nano.PAD for group in batch.groups]
        targets = torch.cat([group.targets[mask] for group, mask in zip(batch.groups, real, strict=True)])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            output = forward(self.model, batch)
            hidden = torch.cat([hidden[mask] for hidden, mask in zip(output.hidden, real, strict=True)])
            losses = answer_losses(hidden, targets, self.model.lm_head, self.first_location, arguments.location_sigma)
            cells = batch.cells[torch.cat([group.picture for group in batch.groups])]
            meant = torch.cat([group.meant for group in batch.groups])
            helper = self.helper.loss(torch.cat(output.tokens), cells, meant)
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


def _start_from(model: Florence2ForConditionalGeneration, init_from: str, image_size: int) -> None:
    """Give a model that sees pictures of image_size x image_size the weights of another one of its shape.

    One that has fewer encoder layers gets more: copies of its last that add nothing at first.
    """
    start = load(init_from, "cpu")
    weights = start.model.state_dict()
    layers = start.model.model.language_model.encoder.layers
    while (missing := len(layers)) < model.config.text_config.encoder_layers:
        layers.append(_idle(layers[-1]))
        prefix = f"model.language_model.encoder.layers.{missing}."
        weights |= {prefix + name: value for name, value in layers[-1].state_dict().items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        known = "florence-2-nano, or what pretrain or sft wrote for it"
        raise ValueError(
            f"--init_from {init_from}: its layers are not those of florence-2-nano; would do: {known}"
        ) from None
    resize(model, start.processor.image_processor.size["height"], image_size)


def _idle(layer: torch.nn.Module) -> torch.nn.Module:
    """A layer to put behind one of BART's: a copy whose output is nearly its input.

    What attention and the feed-forward network add is nothing; the norms behind them, which come after the sum in BART, give
    back the mean and the deviation that the output of `layer` has: its own last norm gives them to normalised values.
    """
    copy = deepcopy(layer)
    scale, shift = layer.final_layer_norm.weight, layer.final_layer_norm.bias
    with torch.no_grad():
        for linear in (copy.self_attn.out_proj, copy.fc2):
            linear.weight.zero_()
            linear.bias.zero_()
        for norm in (copy.self_attn_layer_norm, copy.final_layer_norm):
            norm.weight.fill_((scale.square().mean() + shift.var(correction=0)).sqrt())
            norm.bias.fill_(shift.mean())
    return copy


def _tokenizer(out: Path, init_from: str = ""):
    """The run's tokenizer: that of its folder, or of what it starts with, or made anew."""
    folder = out / "tokenizer"
    if not folder.exists() and not init_from:
        return nano.build_tokenizer(world_texts())
    tokenizer = (
        nano.BartTokenizer.from_pretrained(folder) if folder.exists() else load(init_from, "cpu").processor.tokenizer
    )
    for note in ("is_local", "local_files_only"):  # where it was read from is no part of it
        tokenizer.init_kwargs.pop(note, None)
    return tokenizer


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _mean_per_task(losses: torch.Tensor, lengths: torch.Tensor, tasks: list[str]) -> dict[str, float]:
    """The mean loss of the tokens of every task, from the answers' tokens and how many each answer has."""
    of_task = defaultdict(list)
    for answer, task in zip(losses.split(lengths.tolist()), tasks, strict=True):
        of_task[task].append(answer)
    return {task: round(torch.cat(answers).mean().item(), 4) for task, answers in sorted(of_task.items())}


def _log(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


# ---------------------------------------------------------------------- how good it is so far


def look(model: Florence2ForConditionalGeneration, tokenizer, image_size: int, count: int) -> Evaluation:
    """Every task on `count` held-out scenes: a quick look, `florence-lab eval` measures properly."""
    predictor = Predictor(model.eval(), nano.build_processor(tokenizer, image_size), name="held-out scenes")
    # an untrained model finds no end
    return evaluate(predictor, scene_questions(HELD_OUT_SEEDS[:count]), max_new_tokens=160)


def picture(evaluation: Evaluation) -> Figure:
    """The first answer to every task."""
    first = {}
    for question, answer in zip(evaluation.questions, evaluation.answers, strict=True):
        first.setdefault(question.task, (question.image, answer))
    return gallery([first[task] for task in TASKS if task in first], columns=5)
