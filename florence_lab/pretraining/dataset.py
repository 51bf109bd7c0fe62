"""TODO"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..scenes import CATEGORIES, TRAIN_SEEDS, Scene, draw_scene
from ..scenes.answers import referenced_objects
from ..scenes.layout import PLAN_SIDE, plan_scene
from ..scenes.types import PlannedObject
from ..tasks import TASKS
from .arguments import PretrainArguments
from .config import IMAGE_SIZE, PAD
from .curriculum import _pick_tasks, stage_of
from .dense_targets import COLORS, TARGET_MAP_SIZE, _letters_of, build_dense_targets, split_dense_targets


class QAPair(NamedTuple):
    """A question about a scene: as the model reads it, what it shall answer, and which things (their numbers) are meant."""

    prompt: str
    target: str
    referenced_objects: tuple[int, ...]


def questions(scene: Scene, task: str, seed: int, at_most: int = 4) -> list[QAPair]:
    """Questions of a task about a scene, in varied wordings; none where the task makes no sense."""
    dice = random.Random(seed)
    inputs = list(scene.queries(task, dice))
    # a task without an input has one question, but several wordings of the answer
    chosen = dice.sample(inputs, min(at_most, len(inputs))) if inputs != [None] else [None] * at_most
    asked = []
    for text in chosen:
        answer = scene.answer(task, text, variant=dice.randrange(1000))
        # "there is nothing" is an answer too, but most scenes have no text, and it is soon learnt
        if answer.raw or dice.random() < 0.15:
            things = [id(thing) for thing in referenced_objects(scene, task, text)]
            numbers = tuple(i for i, thing in enumerate(scene.objects) if id(thing) in things)
            asked.append(QAPair(answer.prompt, answer.raw, numbers))
    return list(dict.fromkeys(asked))


# Larger than what the model sees, as people's pictures are, and shrunk the way the processor does it.
_DRAWN_SIZES = ((256, 256), (256, 256), (320, 320), (384, 384), (512, 512), (400, 300), (300, 400))


class Example(NamedTuple):
    """A training scene, ready to be asked about.

    Attributes:
        pixels: H x W x 3 uint8, at the largest size that the model sees.
        seen: 192 x 192 uint8, which thing shows there: 1 for the first one, 0 for none.
        things: n x 6 float32: the category's index in `CATEGORIES`, the colour's in the palette, -1 where colour says
            nothing, and the box, x0, y0, x1, y1 in fractions of the picture.
        letters: 192 x 192 uint8, 0 or 1 + the index in `LETTERS` of the letter that is there.
        asked: task -> its questions.
    """

    pixels: np.ndarray
    seen: np.ndarray
    things: np.ndarray
    letters: np.ndarray
    asked: dict[str, list[QAPair]]


def draw_example(number: int, max_objects: int) -> Example:
    """Training scene `number`, with at most so many things.

    There are words in less than half of all scenes, which would make reading the last thing to be learnt. So one in
    four is chosen for having one, if one of its eight seeds has, and one in eight shows nothing but signs. And what goes
    wrong goes wrong where there are many things: every other scene is the fullest of its first three seeds.
    """
    dice = random.Random(number)
    seeds = TRAIN_SEEDS[8 * number : 8 * number + 8]
    seed = seeds[0]
    if number % 2 == 0:
        seed = max(seeds[:3], key=lambda seed: len(_items(seed, max_objects)))
    elif number % 4 == 1:
        seed = next((seed for seed in seeds if any(item.word for item in _items(seed, max_objects))), seed)
    scene = draw_scene(seed, dice.choice(_DRAWN_SIZES), max_objects, ["sign"] if number % 8 == 3 else None)
    seen = np.zeros((TARGET_MAP_SIZE, TARGET_MAP_SIZE), np.uint8)
    things = []
    for i, thing in enumerate(scene.objects, 1):
        mask = Image.fromarray(thing.mask.astype(np.float32))
        seen[np.asarray(mask.resize(seen.shape, Image.Resampling.BOX)) > 0.5] = i
        color = COLORS.index(thing.color) if thing.color else -1
        things.append((CATEGORIES.index(thing.label), color, *np.array(thing.box) / (scene.size * 2)))
    asked = {task: questions(scene, task, number) for task in TASKS}
    pixels = _shrunk(scene.image, IMAGE_SIZE)
    return Example(pixels, seen, np.array(things, np.float32), _letters_of(scene), asked)


def _items(seed: int, max_objects: int) -> tuple[PlannedObject, ...]:
    return plan_scene(seed, (PLAN_SIDE, PLAN_SIDE), max_objects).items


def _shrunk(image: Image.Image, side: int) -> np.ndarray:
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


class Questions(NamedTuple):
    """N questions about the pictures of a batch.

    Attributes:
        picture: N int64, which picture each is about.
        prompts: N x P int64, `<s> prompt </s>`, padded on the right.
        targets: N x T int64, `<s> answer </s>`, padded on the right.
        meant: N x n float32, for each image token 1 if what it shows is meant by the phrase or the region that is asked
            about, 0 if not, and -1 where it shows no thing or the task takes neither.
        tasks: N task tokens.
    """

    picture: torch.Tensor
    prompts: torch.Tensor
    targets: torch.Tensor
    referenced_objects: torch.Tensor
    tasks: list[str]

    def to(self, device: torch.device) -> Questions:
        return Questions(*(part.to(device) for part in self[:4]), self.tasks)


class Batch(NamedTuple):
    """What one step trains on: B pictures, several questions about each, those with answers of like length together.

    Attributes:
        pixels: B x 3 x H x W uint8.
        cells: B x n x 39 float32, see `build_dense_targets`.
        groups: the questions, `_GROUP` at a time.
    """

    pixels: torch.Tensor
    cells: torch.Tensor
    groups: list[Questions]

    def to(self, device: torch.device) -> Batch:
        return Batch(self.pixels.to(device), self.cells.to(device), [group.to(device) for group in self.groups])


_SCENES_OF_A_SEED = 1_000_000

_GROUP = 16  # outlines take ten times the tokens of a category: padded to one length, most would be padding


class Steps(Dataset):
    """Batch of step k, for any k: a function of the arguments and of k, of nothing else."""

    def __init__(self, arguments: PretrainArguments, tokenizer):
        self.arguments = arguments
        self.tokenizer = tokenizer

    def __len__(self) -> int:
        return self.arguments.steps

    def __getitem__(self, step: int) -> Batch:
        arguments = self.arguments
        stage = stage_of(step, arguments)
        dice = random.Random(f"{arguments.seed}/{step}")
        begin = arguments.seed * _SCENES_OF_A_SEED
        first = begin + arguments.new_scenes * step
        last = first + arguments.new_scenes
        numbers = list(range(first, last))
        oldest = max(begin, last - arguments.remembered)
        numbers += [dice.randrange(oldest, last) for _ in range(arguments.batch_size - len(numbers))]
        pixels, cells, asked = [], [], []
        for i, number in enumerate(numbers):
            example = self.example(number, stage.max_objects)
            small = _shrunk(Image.fromarray(example.pixels), stage.image_size)
            pixels.append(torch.tensor(small).permute(2, 0, 1))
            shown = build_dense_targets(example.seen, example.things, example.letters, stage.image_size // 16)
            cells.append(torch.from_numpy(shown))
            number = split_dense_targets(cells[-1])["number"][:, 0]
            for task in _pick_tasks({t: w for t, w in stage.weights.items() if example.asked[t]}, arguments, dice):
                prompt, target, things = dice.choice(example.asked[task])
                asked.append((i, task, _meant(task, things, number), *self.encode(prompt, target)))
        asked.sort(key=lambda question: len(question[-1]))
        groups = [_group(asked[start : start + _GROUP]) for start in range(0, len(asked), _GROUP)]
        return Batch(torch.stack(pixels), torch.stack(cells), groups)

    def example(self, number: int, max_objects: int) -> Example:
        """A scene as drawn the first time it was met: later it is read from the run's folder."""
        folder = Path(self.arguments.out, "drawn", f"{max_objects}")
        path = folder / f"{number}.npz"
        try:
            with np.load(path) as saved:
                parts = [saved[name] for name in ("pixels", "seen", "things", "letters")]
                return Example(*parts, json.loads(saved["asked"].tobytes()))
        except FileNotFoundError:
            example = draw_example(number, max_objects)
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"{number}.{os.getpid()}.tmp"
            with temporary.open("wb") as file:
                np.savez(
                    file, **example._asdict() | {"asked": np.frombuffer(json.dumps(example.asked).encode(), np.uint8)}
                )
            temporary.replace(path)
            (folder / f"{number - self.arguments.remembered}.npz").unlink(missing_ok=True)
            return example

    def encode(self, *texts: str) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=True)["input_ids"]


def _meant(task: str, things: Sequence[int], number: torch.Tensor) -> torch.Tensor:
    """See `Questions.referenced_objects`, for one question; `number` is 0 or 1 + the thing's, of each token."""
    referenced_objects = torch.isin(number - 1, torch.tensor(things, dtype=number.dtype))
    return torch.where((number > 0) & (TASKS[task].input != "none"), referenced_objects.float(), -1.0)


def _group(asked: list[tuple]) -> Questions:
    """(picture, task, what is meant, prompt's ids, target's ids) of each question -> tensors."""
    pictures, tasks, referenced_objects, prompts, targets = zip(*asked, strict=True)
    return Questions(
        torch.tensor(pictures), _padded(prompts), _padded(targets), torch.stack(referenced_objects), list(tasks)
    )


def _padded(rows: Sequence[list[int]]) -> torch.Tensor:
    """Ids, padded to a multiple of 8, so that there are few shapes."""
    length = math.ceil(max(map(len, rows)) / 8) * 8
    return torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
