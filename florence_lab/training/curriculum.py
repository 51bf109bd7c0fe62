"""What florence-2-nano learns, and when: the stages, the questions about a scene, and the batch of every step.

Scenes are drawn as they are needed. What a batch holds depends on the arguments and on the number of the step alone.
"""

from __future__ import annotations

import json
import math
import os
import random
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..scenes import CATEGORIES, TRAIN_SEEDS, Scene, draw_scene
from ..scenes.answers import meant
from ..scenes.paint import PALETTE, load_font
from ..scenes.scene import PLAN_SIDE, Item, plan_scene
from ..tasks import TASKS
from .arguments import PretrainArguments
from .nano import IMAGE_SIZE, PAD


class Stage(NamedTuple):
    """A part of the curriculum: up to which step, on which pictures, and how often each task is asked."""

    until: float
    image_size: int
    max_objects: int
    weights: dict[str, float]


# One thing first: with several in the picture, a place is not found for thousands of steps. Then more, then larger.
_PLACES = {"<OD>": 4, "<CAPTION_TO_PHRASE_GROUNDING>": 2, "<CAPTION>": 1, "<REGION_TO_CATEGORY>": 2}
# Counting for captions and drawing outlines are what takes longest.
_ALL = {
    "<CAPTION>": 6,
    "<DETAILED_CAPTION>": 3.5,
    "<MORE_DETAILED_CAPTION>": 12,
    "<OD>": 2.5,
    "<DENSE_REGION_CAPTION>": 1,
    "<REGION_PROPOSAL>": 1,
    "<CAPTION_TO_PHRASE_GROUNDING>": 1.5,
    "<OPEN_VOCABULARY_DETECTION>": 1,
    "<REFERRING_EXPRESSION_SEGMENTATION>": 5,
    "<REGION_TO_SEGMENTATION>": 2,
    "<REGION_TO_CATEGORY>": 0.3,
    "<REGION_TO_DESCRIPTION>": 0.5,
    "<OCR>": 3,
    "<OCR_WITH_REGION>": 1.5,
    "<REGION_TO_OCR>": 0.5,
}
CURRICULUM = (
    Stage(1_080, 128, 1, _PLACES),
    Stage(2_500, 128, 3, _PLACES),
    Stage(8_600, 128, 6, _ALL),
    Stage(17_000, 192, 6, _ALL),
    Stage(math.inf, IMAGE_SIZE, 6, _ALL),
)


def stage_of(step: int, arguments: PretrainArguments) -> Stage:
    """The stage of the curriculum to which a step belongs; who starts with weights is in the last one."""
    return CURRICULUM[-1] if arguments.init_from else next(stage for stage in CURRICULUM if step < stage.until)


# ---------------------------------------------------------------------- data: step k -> a batch


class Asked(NamedTuple):
    """A question about a scene: as the model reads it, what it shall answer, and which things (their numbers) are meant."""

    prompt: str
    target: str
    meant: tuple[int, ...]


def questions(scene: Scene, task: str, seed: int, at_most: int = 4) -> list[Asked]:
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
            things = [id(thing) for thing in meant(scene, task, text)]
            numbers = tuple(i for i, thing in enumerate(scene.objects) if id(thing) in things)
            asked.append(Asked(answer.prompt, answer.raw, numbers))
    return list(dict.fromkeys(asked))


# Larger than what the model sees, as people's pictures are, and shrunk the way the processor does it.
_DRAWN_SIZES = ((256, 256), (256, 256), (320, 320), (384, 384), (512, 512), (400, 300), (300, 400))
_MAP_SIDE = 192  # of the maps of what is where; as many times any number of image tokens a side
MOST = 6  # things in a scene
COLORS = tuple(PALETTE)
LETTERS = string.digits + string.ascii_letters


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
    asked: dict[str, list[Asked]]


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
    seen = np.zeros((_MAP_SIDE, _MAP_SIDE), np.uint8)
    things = []
    for i, thing in enumerate(scene.objects, 1):
        mask = Image.fromarray(thing.mask.astype(np.float32))
        seen[np.asarray(mask.resize(seen.shape, Image.Resampling.BOX)) > 0.5] = i
        color = COLORS.index(thing.color) if thing.color else -1
        things.append((CATEGORIES.index(thing.label), color, *np.array(thing.box) / (scene.size * 2)))
    asked = {task: questions(scene, task, number) for task in TASKS}
    pixels = _shrunk(scene.image, IMAGE_SIZE)
    return Example(pixels, seen, np.array(things, np.float32), _letters_of(scene), asked)


def _items(seed: int, max_objects: int) -> tuple[Item, ...]:
    return plan_scene(seed, (PLAN_SIDE, PLAN_SIDE), max_objects).items


def _letters_of(scene: Scene) -> np.ndarray:
    """See `Example`; letters are as wide, compared with one another, as in one of the fonts, which is nearly so."""
    written = np.zeros((_MAP_SIDE, _MAP_SIDE), np.uint8)
    middles = np.stack(np.meshgrid(*[(np.arange(_MAP_SIDE) + 0.5) / _MAP_SIDE] * 2), axis=-1)
    font = load_font("DejaVuSans", 48)
    for thing in scene.objects:
        if thing.text:
            corner, right, _, below = thing.quad / scene.size
            # in units of the word's width and of its height
            inside = (middles - corner) @ np.linalg.inv(np.stack([right - corner, below - corner]))
            ends = np.array([font.getlength(thing.text[: i + 1]) for i in range(len(thing.text))])
            which = np.searchsorted(ends / ends[-1], inside[..., 0].clip(0, 1))
            here = ((inside >= 0) & (inside <= 1)).all(-1)
            written[here] = 1 + np.array([LETTERS.index(letter) for letter in thing.text])[which[here]]
    return written


def _shrunk(image: Image.Image, side: int) -> np.ndarray:
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


# What is told of an image token, and in how many numbers: see `cells_of`.
_CELL_PARTS = {
    "kind": 1,
    "color": 1,
    "box": 4,
    "letters": 4,
    "kinds": 4,
    "filled": 16,
    "number": 1,
    "alike": 3,
    "first": 3,
    "column": 1,
    "middle": 1,
}


def cells_of(seen: np.ndarray, things: np.ndarray, letters: np.ndarray, side: int) -> np.ndarray:
    """What each of side x side image tokens shows: the thing that covers most of it, if it is a quarter or more.

    Args:
        seen, things, letters: see `Example`.

    Returns:
        side * side x 39 float32, `_CELL_PARTS`: 0 for background or 1 + the category; 0 or 1 + the colour; the thing's box; of
        the middles of the token's four quarters, row by row, the letters as in `Example.letters`, and 0 or 1 + the category
        of what shows; of the middles of its sixteen sixteenths whether that thing shows; 0 or 1 + the thing's number; how
        many things are of its category, of its category and colour, and of both in its column; whether it is the leftmost of
        each of these; its column, 0 to 2 from the left, the thirds that captions speak of; whether the token is the one in
        its middle, of which each thing that shows has one.
    """
    blocks = seen.reshape(side, _MAP_SIDE // side, side, -1).swapaxes(1, 2).reshape(side * side, -1)
    covered = np.stack([(blocks == i).mean(1) for i in range(1, len(things) + 1)], axis=1)
    most = covered.argmax(1)
    there = covered.max(1, keepdims=True) >= 0.25
    shown = (things[most] + np.array([1, 1, 0, 0, 0, 0], np.float32)) * there
    kinds = np.concatenate([[0], things[:, 0] + 1])[seen]
    own = _parts(seen, side, 4) == 1 + most[:, None]
    number = (1 + most[:, None]) * there
    among = _among(things)[most] * there
    told = [shown, _parts(letters, side, 2), _parts(kinds, side, 2), own, number, among, _middles(number[:, 0], side)]
    return np.concatenate(told, axis=1).astype(np.float32)


def parts_of(cells: torch.Tensor) -> dict[str, torch.Tensor]:
    """... x 39, see `cells_of` -> its parts by name, views of it."""
    return dict(zip(_CELL_PARTS, cells.split(tuple(_CELL_PARTS.values()), dim=-1), strict=True))


def _among(things: np.ndarray) -> np.ndarray:
    """n x 7: `alike`, `first` and `column` of every thing, see `cells_of`."""
    column = np.digitize(things[:, [2, 4]].mean(1, keepdims=True), (1 / 3, 2 / 3))
    place = np.lexsort(things[:, 5:1:-1].T).argsort()  # 0 for the leftmost of all
    looks = [things[:, :1], things[:, :2], np.concatenate([things[:, :2], column], axis=1)]
    alike = [(look[:, None] == look).all(-1) for look in looks]
    first = [np.where(same, place, len(things)).min(1) == place for same in alike]
    return np.concatenate([np.stack([*(same.sum(1) for same in alike), *first], axis=1), column], axis=1)


def _middles(number: np.ndarray, side: int) -> np.ndarray:
    """The thing of each of side * side tokens, 0 for none -> side * side x 1, whether it is in the middle of its thing's."""
    places = np.stack(np.divmod(np.arange(side * side), side), axis=1)
    middles = np.zeros((side * side, 1))
    for thing in np.unique(number[number > 0]):
        own = np.flatnonzero(number == thing)
        middles[own[((places[own] - places[own].mean(0)) ** 2).sum(1).argmin()]] = 1
    return middles


def _parts(values: np.ndarray, side: int, parts: int) -> np.ndarray:
    """A map of what is where -> its values in the middles of parts x parts places of each of side x side image tokens."""
    step = _MAP_SIDE // (side * parts)
    middles = values[step // 2 :: step, step // 2 :: step]
    return middles.reshape(side, parts, side, parts).swapaxes(1, 2).reshape(side * side, parts * parts)


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
    meant: torch.Tensor
    tasks: list[str]

    def to(self, device: torch.device) -> Questions:
        return Questions(*(part.to(device) for part in self[:4]), self.tasks)


class Batch(NamedTuple):
    """What one step trains on: B pictures, several questions about each, those with answers of like length together.

    Attributes:
        pixels: B x 3 x H x W uint8.
        cells: B x n x 39 float32, see `cells_of`.
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
            shown = cells_of(example.seen, example.things, example.letters, stage.image_size // 16)
            cells.append(torch.from_numpy(shown))
            number = parts_of(cells[-1])["number"][:, 0]
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
    """See `Questions.meant`, for one question; `number` is 0 or 1 + the thing's, of each token."""
    meant = torch.isin(number - 1, torch.tensor(things, dtype=number.dtype))
    return torch.where((number > 0) & (TASKS[task].input != "none"), meant.float(), -1.0)


def _group(asked: list[tuple]) -> Questions:
    """(picture, task, what is meant, prompt's ids, target's ids) of each question -> tensors."""
    pictures, tasks, meant, prompts, targets = zip(*asked, strict=True)
    return Questions(torch.tensor(pictures), _padded(prompts), _padded(targets), torch.stack(meant), list(tasks))


def _padded(rows: Sequence[list[int]]) -> torch.Tensor:
    """Ids, padded to a multiple of 8, so that there are few shapes."""
    length = math.ceil(max(map(len, rows)) / 8) * 8
    return torch.tensor([row + [PAD] * (length - len(row)) for row in rows])


def _pick_tasks(weights: dict[str, float], arguments: PretrainArguments, dice: random.Random) -> list[str]:
    """As many tasks as are asked per picture: different ones as long as there are enough, the heavier the likelier."""
    keys = {task: dice.random() ** (1 / weight) for task, weight in weights.items()}
    ranked = sorted(keys, key=keys.get, reverse=True)
    return [ranked[i % len(ranked)] for i in range(arguments.tasks_per_image)]


# ---------------------------------------------------------------------- words, for the tokenizer


def world_texts(scenes: int = 1000) -> Iterator[str]:
    """Text of the cartoon world, for the tokenizer: prompts, inputs and answers, without location tokens.

    Words on signs are left out, so that they are spelled: a model that reads letters can read a new word.
    """
    for task in TASKS.values():
        yield from [task.prompt.replace("{input}", "")] * scenes
    for seed in TRAIN_SEEDS[-scenes:]:
        scene = draw_scene(seed, 64)
        signs = {thing.text for thing in scene.objects if thing.text}
        for task in TASKS:
            if "OCR" in task:
                continue
            for prompt, target, _ in questions(scene, task, seed):
                for text in (prompt, target):
                    for mark in (*signs, "<sep>", "<and>", "<poly>", "</poly>"):
                        text = text.replace(mark, "\n")
                    yield from (part for line in text.split("\n") for part in _without_locations(line))


def _without_locations(text: str) -> list[str]:
    return [part.split(">")[-1] for part in text.split("<loc_") if part.split(">")[-1]]
