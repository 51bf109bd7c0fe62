"""The training data: scenes drawn on demand, and the batch of each step."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import BartTokenizer

from ..exceptions import ArgumentError
from ..scenes import CATEGORIES, TRAIN_SEEDS, Scene, draw_scene
from ..scenes.absence import (
    sample_absent_expression,
    sample_absent_phrase,
    sample_caption_with_absent_phrase,
    sample_name_list,
)
from ..scenes.answers import referenced_objects
from ..scenes.layout import PLAN_SIDE, plan_scene
from ..scenes.types import PlannedObject
from ..tasks import TASKS
from ..template.locations import format_location_tokens
from ..template.prompts import Prompt
from .arguments import PretrainArguments
from .config import IMAGE_SIZE, PAD_ID, PATCH_SIZE
from .curriculum import sample_tasks, stage_at
from .dense_targets import (
    COLOR_NAMES,
    TARGET_MAP_SIZE,
    build_dense_targets,
    render_letter_map,
    split_dense_targets,
)

RENDER_SIZES = ((256, 256), (256, 256), (320, 320), (384, 384), (512, 512), (400, 300), (300, 400))
"""Sizes in which scenes are drawn: most are larger than the model's input, and are resized as the processor does it."""

SEEDS_PER_SAMPLE = 8
"""Each training sample is one of the scenes of this many consecutive seeds."""

SAMPLES_PER_RUN_SEED = 1_000_000
"""Runs with different seeds use different samples."""

DECODE_GROUP_SIZE = 16
"""Prompts that are decoded together. Answers differ in length by a factor of ten, so that larger groups are mostly padding."""

EMPTY_ANSWER_PROBABILITY = 0.15
"""Fraction of empty answers that are used: most scenes have no text, and the empty answer is learned quickly."""


class QAPair(NamedTuple):
    """A prompt about a scene with its answer.

    Attributes:
        prompt: the text that the model reads.
        target: the target string.
        referenced_objects: indices of the objects that the phrase or the region refers to.
    """

    prompt: str
    target: str
    referenced_objects: tuple[int, ...]


def check_scene_supply(arguments: PretrainArguments) -> None:
    """Verify that there are enough training scenes for a run.

    Raises:
        ArgumentError: if the steps of this seed need scenes beyond the last one.
    """
    available = len(TRAIN_SEEDS) // SEEDS_PER_SAMPLE
    needed = arguments.seed * SAMPLES_PER_RUN_SEED + arguments.steps * arguments.new_scenes
    if needed > available:
        raise ArgumentError(
            f"--seed {arguments.seed} with --steps {arguments.steps} and --new_scenes {arguments.new_scenes} needs scene {needed:,}, "
            f"but there are {available:,}; each seed begins {SAMPLES_PER_RUN_SEED:,} scenes after the one before"
        )


def sample_qa_pairs(scene: Scene, task: str, seed: int, max_count: int = 4) -> list[QAPair]:
    """Sample prompts of a task about a scene with their answers, in varied wordings; empty if the task does not apply."""
    rng = random.Random(seed)
    inputs = scene.sample_inputs(task, rng)
    # a task without an input has one prompt, but several wordings of the answer
    chosen = [None] * max_count if inputs == [None] else rng.sample(inputs, min(max_count, len(inputs)))
    pairs = []
    for text in chosen:
        answer = scene.answer(task, text, phrasing=rng.randrange(1000))
        if answer.raw or rng.random() < EMPTY_ANSWER_PROBABILITY:
            pairs.append(QAPair(answer.prompt, answer.raw, _referenced_indices(scene, task, text)))
    return list(dict.fromkeys(pairs))


def _referenced_indices(scene: Scene, task: str, text: str | None) -> tuple[int, ...]:
    referenced = {id(scene_object) for scene_object in referenced_objects(scene, task, text)}
    return tuple(i for i, scene_object in enumerate(scene.objects) if id(scene_object) in referenced)


def sample_absent_pairs(scene: Scene, task: str, seed: int, max_count: int = 4) -> list[QAPair]:
    """Sample prompts of a task about something that a scene does not show. The answer is empty, or only a part of it is there.

    `<OPEN_VOCABULARY_DETECTION>` and `<CAPTION_TO_PHRASE_GROUNDING>` are also asked by bare names of categories, one and many at
    a time, which is how users ask for classes. For a task whose input cannot be absent the list is empty, and for two of three
    scenes that of `<REFERRING_EXPRESSION_SEGMENTATION>`.
    """
    rng = random.Random(f"absent/{task}/{seed}")
    if rng.random() >= _SHARE_WITH_ABSENT_INPUTS.get(task, 1.0):
        return []
    if task == "<REGION_TO_OCR>":
        regions = [format_location_tokens(o.box, scene.size) for o in scene.objects if not o.text]
        chosen = rng.sample(regions, min(max_count, len(regions)))
        return [QAPair(Prompt.from_task(task, region).prompt, "", ()) for region in chosen]
    pairs = []
    for sample_input in _ABSENT_INPUTS.get(task, ())[:max_count]:
        text = sample_input(scene, rng)
        answer = scene.answer(task, text)
        pairs.append(QAPair(answer.prompt, answer.raw, _referenced_indices(scene, task, text)))
    return list(dict.fromkeys(pairs))


def _bare_name(scene: Scene, rng: random.Random) -> str:
    return rng.choice(scene.objects).label


_ABSENT_INPUTS: dict[str, tuple[Callable[[Scene, random.Random], str], ...]] = {
    "<OPEN_VOCABULARY_DETECTION>": (*(sample_absent_phrase,) * 3, _bare_name),
    "<CAPTION_TO_PHRASE_GROUNDING>": (
        sample_caption_with_absent_phrase,
        sample_absent_phrase,
        sample_name_list,
        sample_name_list,
    ),
    "<REFERRING_EXPRESSION_SEGMENTATION>": (sample_absent_expression,),
}


_SHARE_WITH_ABSENT_INPUTS = {"<REFERRING_EXPRESSION_SEGMENTATION>": 1 / 3}
"""Task -> share of the scenes that are asked for something absent; the other tasks ask in every scene. An absent expression in every
scene made the model answer 9% of the expressions that do refer to something by nothing."""


class SceneSample(NamedTuple):
    """A training scene with its prompts.

    Attributes:
        pixels: H x W x 3 uint8, at the largest size that the model sees.
        instance_map: 192 x 192 uint8, 0 for the background, else 1 + the index of the visible object.
        instances: n x 6 float32: index of the category in `CATEGORIES`; index of the color in `COLOR_NAMES`, -1 for objects
            without a color; box as (x0, y0, x1, y1) in fractions of the image.
        letter_map: 192 x 192 uint8, see `render_letter_map`.
        qa_pairs: task token -> its prompts with their answers.
    """

    pixels: np.ndarray
    instance_map: np.ndarray
    instances: np.ndarray
    letter_map: np.ndarray
    qa_pairs: dict[str, list[QAPair]]

    def save(self, path: Path) -> None:
        """Write the sample as an `.npz` file. A file appears only when it is complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
        pairs = np.frombuffer(json.dumps(self.qa_pairs).encode(), np.uint8)
        # the keys are those of existing runs, which can be resumed
        with temporary.open("wb") as file:
            np.savez(
                file,
                pixels=self.pixels,
                seen=self.instance_map,
                things=self.instances,
                letters=self.letter_map,
                asked=pairs,
            )
        temporary.replace(path)

    @staticmethod
    def load(path: Path) -> SceneSample:
        """Read a file that `save` wrote."""
        with np.load(path) as saved:
            pairs = json.loads(saved["asked"].tobytes())
            qa_pairs = {task: [QAPair(*pair) for pair in of_task] for task, of_task in pairs.items()}
            return SceneSample(saved["pixels"], saved["seen"], saved["things"], saved["letters"], qa_pairs)


def render_sample(index: int, max_objects: int) -> SceneSample:
    """Draw a training sample.

    Fewer than half of the scenes contain text, which delays OCR: every fourth sample is a scene with text, if one of its eight
    seeds has any, and every eighth shows signs only. Errors concentrate in crowded scenes: every other sample is the most
    crowded of three seeds.

    Args:
        index: number of the sample, from 0.
        max_objects: largest number of objects.
    """
    rng = random.Random(index)
    seeds = TRAIN_SEEDS[SEEDS_PER_SAMPLE * index : SEEDS_PER_SAMPLE * (index + 1)]
    seed = seeds[0]
    if index % 2 == 0:
        seed = max(seeds[:3], key=lambda seed: len(_planned_objects(seed, max_objects)))
    elif index % 4 == 1:
        seed = next((s for s in seeds if any(planned.text for planned in _planned_objects(s, max_objects))), seed)
    scene = draw_scene(seed, rng.choice(RENDER_SIZES), max_objects, ["sign"] if index % 8 == 3 else None)
    instance_map = np.zeros((TARGET_MAP_SIZE, TARGET_MAP_SIZE), np.uint8)
    instances = []
    for i, scene_object in enumerate(scene.objects, 1):
        mask = Image.fromarray(scene_object.mask.astype(np.float32))
        resized = mask.resize((TARGET_MAP_SIZE, TARGET_MAP_SIZE), Image.Resampling.BOX)
        instance_map[np.asarray(resized) > 0.5] = i
        color = COLOR_NAMES.index(scene_object.color) if scene_object.color else -1
        box = np.array(scene_object.box) / (scene.size * 2)
        instances.append((CATEGORIES.index(scene_object.label), color, *box))
    qa_pairs = {task: sample_qa_pairs(scene, task, index) + sample_absent_pairs(scene, task, index) for task in TASKS}
    pixels = _resize(scene.image, IMAGE_SIZE)
    return SceneSample(pixels, instance_map, np.array(instances, np.float32), render_letter_map(scene), qa_pairs)


def _planned_objects(seed: int, max_objects: int) -> tuple[PlannedObject, ...]:
    return plan_scene(seed, (PLAN_SIDE, PLAN_SIDE), max_objects).objects


def _resize(image: Image.Image, side: int) -> np.ndarray:
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


class PromptBatch(NamedTuple):
    """N prompts about the images of a `TrainingBatch`.

    Attributes:
        image_index: N int64, the index of the image in the batch.
        prompt_ids: N x P int64, `<s> prompt </s>`, padded on the right.
        target_ids: N x T int64, `<s> answer </s>`, padded on the right.
        reference_targets: N x n float32, for each image token 1 if the phrase or the region of the prompt refers to the object
            that it shows, 0 if not; -1 if it shows no object or the task takes no input.
        tasks: N task tokens.
    """

    image_index: torch.Tensor
    prompt_ids: torch.Tensor
    target_ids: torch.Tensor
    reference_targets: torch.Tensor
    tasks: list[str]

    def to(self, device: torch.device) -> PromptBatch:
        """Return the batch on a device."""
        return PromptBatch(
            self.image_index.to(device),
            self.prompt_ids.to(device),
            self.target_ids.to(device),
            self.reference_targets.to(device),
            self.tasks,
        )


class TrainingBatch(NamedTuple):
    """The data of one step: B images and several prompts about each.

    Attributes:
        pixels: B x 3 x H x W uint8.
        dense_targets: B x n x 39 float32, see `build_dense_targets`.
        groups: the prompts, sorted by the length of their answers, `DECODE_GROUP_SIZE` in each.
    """

    pixels: torch.Tensor
    dense_targets: torch.Tensor
    groups: list[PromptBatch]

    def to(self, device: torch.device) -> TrainingBatch:
        """Return the batch on a device."""
        groups = [group.to(device) for group in self.groups]
        return TrainingBatch(self.pixels.to(device), self.dense_targets.to(device), groups)


class _EncodedPrompt(NamedTuple):
    """One row of a `PromptBatch`."""

    image_index: int
    task: str
    reference_targets: torch.Tensor
    prompt_ids: list[int]
    target_ids: list[int]


class StepDataset(Dataset[TrainingBatch]):
    """The batch of each step: a function of the arguments and the step alone, so that a resumed run continues exactly.

    Samples are cached in the folder `drawn` of the run, as many as the replay buffer holds.
    """

    def __init__(self, arguments: PretrainArguments, tokenizer: BartTokenizer) -> None:
        self.arguments = arguments
        self.tokenizer = tokenizer

    def __len__(self) -> int:
        return self.arguments.steps

    def __getitem__(self, step: int) -> TrainingBatch:
        stage = stage_at(step, self.arguments)
        rng = random.Random(f"{self.arguments.seed}/{step}")
        pixels, dense_targets, prompts = [], [], []
        for image_index, sample_index in enumerate(self._sample_indices(step, rng)):
            sample = self.load_sample(sample_index, stage.max_objects)
            resized = _resize(Image.fromarray(sample.pixels), stage.image_size)
            pixels.append(torch.tensor(resized).permute(2, 0, 1))
            side = stage.image_size // PATCH_SIZE
            targets = build_dense_targets(sample.instance_map, sample.instances, sample.letter_map, side)
            dense_targets.append(torch.from_numpy(targets))
            instance_index = split_dense_targets(dense_targets[-1])["instance_index"][:, 0]
            weights = {task: weight for task, weight in stage.task_weights.items() if sample.qa_pairs.get(task)}
            for task in sample_tasks(weights, self.arguments.tasks_per_image, rng):
                prompt, target, referenced = rng.choice(sample.qa_pairs[task])
                reference_targets = _reference_targets(task, referenced, instance_index)
                prompts.append(_EncodedPrompt(image_index, task, reference_targets, *self._encode(prompt, target)))
        prompts.sort(key=lambda encoded: len(encoded.target_ids))
        starts = range(0, len(prompts), DECODE_GROUP_SIZE)
        groups = [_collate_prompts(prompts[start : start + DECODE_GROUP_SIZE]) for start in starts]
        return TrainingBatch(torch.stack(pixels), torch.stack(dense_targets), groups)

    def _sample_indices(self, step: int, rng: random.Random) -> list[int]:
        """Return the samples of a step: the new ones, then random ones of the replay buffer."""
        arguments = self.arguments
        begin = arguments.seed * SAMPLES_PER_RUN_SEED
        first = begin + arguments.new_scenes * step
        last = first + arguments.new_scenes
        oldest = max(begin, last - arguments.remembered)
        new = list(range(first, last))
        return new + [rng.randrange(oldest, last) for _ in range(arguments.batch_size - len(new))]

    def load_sample(self, index: int, max_objects: int) -> SceneSample:
        """Return a sample from the run's folder, or draw it, and delete the one that leaves the replay buffer.

        A damaged file is replaced.
        """
        folder = Path(self.arguments.out, "drawn", f"{max_objects}")
        path = folder / f"{index}.npz"
        try:
            return SceneSample.load(path)
        except Exception:  # missing, cut off, or foreign: NumPy, zipfile and json raise many types
            sample = render_sample(index, max_objects)
            sample.save(path)
            (folder / f"{index - self.arguments.remembered}.npz").unlink(missing_ok=True)
            return sample

    def _encode(self, prompt: str, target: str) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer([prompt, target], add_special_tokens=True)["input_ids"]
        return ids


def _reference_targets(task: str, referenced: Sequence[int], instance_index: torch.Tensor) -> torch.Tensor:
    """Return the row of `PromptBatch.reference_targets` of one prompt. `instance_index` is 0 or 1 + the object's index."""
    is_referenced = torch.isin(instance_index - 1, torch.tensor(referenced, dtype=instance_index.dtype))
    return torch.where((instance_index > 0) & (TASKS[task].input != "none"), is_referenced.float(), -1.0)


def _collate_prompts(prompts: Sequence[_EncodedPrompt]) -> PromptBatch:
    return PromptBatch(
        torch.tensor([encoded.image_index for encoded in prompts]),
        _pad_token_ids([encoded.prompt_ids for encoded in prompts]),
        _pad_token_ids([encoded.target_ids for encoded in prompts]),
        torch.stack([encoded.reference_targets for encoded in prompts]),
        [encoded.task for encoded in prompts],
    )


def _pad_token_ids(rows: Sequence[list[int]]) -> torch.Tensor:
    """Pad token ids to a common length. Multiples of 8 keep the number of distinct shapes small."""
    length = math.ceil(max(map(len, rows)) / 8) * 8
    return torch.tensor([row + [PAD_ID] * (length - len(row)) for row in rows])
