"""Questions about what is in an image and what is not, sampled from labelled images as POPE does.

POPE (Li et al., 2023, arXiv 2305.10355) asks as often about names that are present as about names that are absent, which are
chosen by one of three strategies: at random, the most frequent ones, or those that occur most often beside what is present.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations
from typing import Literal

from ..argument_validation import validate_arguments, validate_fields, validate_value
from ..data.examples import Example, ImageSource, image_key
from ..exceptions import ArgumentError, DatasetError, shorten
from ..results import Instances
from ..tasks import Task, get_task
from .metrics import locates_phrase

AbsenceStrategy = Literal["random", "popular", "adversarial"]
"""How absent names are chosen."""

ABSENCE_STRATEGIES: tuple[AbsenceStrategy, ...] = ("random", "popular", "adversarial")

ABSENCE_TASKS = (
    "<CAPTION_TO_PHRASE_GROUNDING>",
    "<OPEN_VOCABULARY_DETECTION>",
    "<REFERRING_EXPRESSION_SEGMENTATION>",
)
"""The published tasks that locate a phrase."""

NAMES_STRATEGY = "names"
"""Strategy of the absent names that the caller gives."""

DATASET_STRATEGY = "dataset"
"""Strategy of the questions that the dataset asks itself, some of which have an empty answer."""


@dataclass(frozen=True)
class AbsenceQuestion:
    """Whether, and where, an image contains something.

    Attributes:
        image: where the image comes from, as in `Example`.
        image_size: (width, height) in pixels.
        source: where the example comes from whose image this is.
        name: what is asked for: the name of a category, or a phrase of the dataset.
        is_present: whether the image contains it.
        strategies: the strategies of which the question is one: `"random"`, `"popular"`, `"adversarial"`, `"names"` or
            `"dataset"`. Questions about what is present belong to several.
        task: the task that the dataset asks with; "" for a question that each task is asked.
    """

    image: ImageSource = field(repr=False)
    image_size: tuple[int, int]
    source: str
    name: str
    is_present: bool
    strategies: tuple[str, ...]
    task: str = ""

    def __post_init__(self) -> None:
        validate_fields(self)


@validate_arguments
def sample_absence_questions(
    examples: Iterable[Example],
    tasks: Sequence[str] = ABSENCE_TASKS,
    strategies: Sequence[AbsenceStrategy] = ABSENCE_STRATEGIES,
    num_questions: int = 6,
    names: Sequence[str] = (),
    seed: int = 0,
) -> list[AbsenceQuestion]:
    """Return questions about present and absent names.

    The names of an image are the labels of its `<OD>` answers, or those of its `<OPEN_VOCABULARY_DETECTION>` answers if the
    dataset has none of the former. All objects of these names should be labelled: a crowd region of a COCO file gives no label,
    for example. A name that is part of another label of the image is not asked for: "car" is not absent beside a "red car".

    Each strategy asks as often about present as about absent names. If an image has too few of either, questions about
    other images make up for it where possible.

    Args:
        examples: labelled examples, of any tasks.
        tasks: the tasks of which the dataset's own questions are taken, if some of them have an empty answer. They are then
            a strategy of their own, `"dataset"`.
        strategies: how absent names are chosen: `"random"` takes any name of the dataset, `"popular"` the most frequent ones,
            `"adversarial"` those that are most often in an image with the names that are present.
        num_questions: about an image for each strategy, at least 2: half of them about present names.
        names: further names, which need not occur in the dataset. They are a strategy of their own, `"names"`.
        seed: of the random choices. Equal arguments give equal questions.

    Returns:
        The questions, those about one image together.

    Raises:
        ArgumentError: for a name that is empty, and for a task that does not locate a phrase.
        DatasetError: if the examples give no question: no labels, or nothing is ever absent.
    """
    located = [check_locating_task(task).token for task in dict.fromkeys(tasks)]
    names = list(dict.fromkeys(_check_name(name) for name in names))
    examples = [validate_value("an example", example, Example) for example in examples]
    images = _label_images(examples)
    questions = _own_questions(examples, located)
    if strategies or names:
        questions += _Sampler(images, strategies, names, num_questions // 2, random.Random(seed)).sample()
    if not questions:
        raise DatasetError(_explain_no_question(images, located))
    by_image: dict[Hashable, list[AbsenceQuestion]] = defaultdict(list)
    for question in questions:
        by_image[image_key(question.image)].append(question)
    return [question for of_image in by_image.values() for question in of_image]


def check_locating_task(name: str) -> Task:
    """Return a task that locates a phrase.

    Raises:
        ArgumentError: for any other task.
    """
    task = get_task(name)
    if not locates_phrase(task):
        raise ArgumentError(
            f"{task.name} does not locate a phrase, so that nothing can be absent; tasks that do: {', '.join(ABSENCE_TASKS)}"
        )
    return task


def _check_name(name: str) -> str:
    if not name.strip():
        raise ArgumentError(f"names must not be empty, got {shorten(name)}")
    return name.strip()


@dataclass
class _LabelledImage:
    """An image with its labels.

    Attributes:
        example: one of the examples about it.
        names: the names of the categories that are present, in order.
        labels: all labels, those of phrases included.
    """

    example: Example
    names: dict[str, None] = field(default_factory=dict)
    labels: dict[str, None] = field(default_factory=dict)

    def mentions(self, name: str) -> bool:
        """Whether a name is a label, or whole words of one."""
        folded = name.casefold()
        return any(folded in label.casefold() and _word_pattern(name).search(label) for label in self.labels)

    def ask(self, name: str, is_present: bool, strategies: Sequence[str]) -> AbsenceQuestion:
        """Return a question about the image."""
        example = self.example
        return AbsenceQuestion(example.image, example.image_size, example.source, name, is_present, tuple(strategies))


@lru_cache(maxsize=100_000)
def _word_pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)


def _is_detection(task: Task) -> bool:
    """Whether answers list all objects with the names of their categories."""
    return (task.input, task.result) == ("none", "boxes") and task.coco_label in ("category", None)


def _is_open_vocabulary(task: Task) -> bool:
    return task.result == "boxes_or_polygons"


def _label_images(examples: Sequence[Example]) -> list[_LabelledImage]:
    """Return the images that have an answer with the names of their objects, which may be empty."""
    answered = [e for e in examples if e.prompt.task.result not in ("text", "quads")]
    is_source = _is_detection if any(_is_detection(e.prompt.task) for e in answered) else _is_open_vocabulary
    images: dict[Hashable, _LabelledImage] = {}
    for example in answered:
        if is_source(example.prompt.task):
            images.setdefault(example.image_key, _LabelledImage(example))
    for example in answered:
        truth, image = example.ground_truth, images.get(example.image_key)
        if image is None or not isinstance(truth, Instances):
            continue
        labels = dict.fromkeys(label for label in truth.class_names.tolist() if label.strip())
        image.labels |= labels
        if is_source(example.prompt.task):
            image.names |= labels
    return list(images.values())


def _own_questions(examples: Sequence[Example], tasks: Sequence[str]) -> list[AbsenceQuestion]:
    """Return the questions that the dataset asks with tasks of which it has an empty answer."""
    with_absence = {e.prompt.task.token for e in examples if not e.target} & set(tasks)
    return [
        AbsenceQuestion(
            example.image,
            example.image_size,
            example.source,
            example.prompt.text,
            bool(example.target),
            (DATASET_STRATEGY,),
            example.prompt.task.token,
        )
        for example in examples
        if example.prompt.task.token in with_absence
    ]


class _Statistics:
    """How often names occur, and occur together.

    Attributes:
        frequency: name -> number of images.
        together: name -> other name -> number of images with both.
    """

    def __init__(self, images: Sequence[_LabelledImage]) -> None:
        self.frequency: Counter[str] = Counter()
        self.together: dict[str, Counter[str]] = defaultdict(Counter)
        for image in images:
            self.frequency.update(image.names.keys())
            for name, other in permutations(image.names, 2):
                self.together[name][other] += 1

    def rank_popular(self, name: str, present: Iterable[str]) -> int:
        """Return how many images contain a name."""
        return self.frequency[name]

    def rank_adversarial(self, name: str, present: Iterable[str]) -> int:
        """Return how often a name is in an image with each of the names that are present, added up."""
        return sum(self.together[other][name] for other in present)

    def rank_random(self, name: str, present: Iterable[str]) -> int:
        """Return the same rank for each name."""
        return 0


_RANKS: Mapping[str, Callable[[_Statistics, str, Iterable[str]], int]] = {
    "random": _Statistics.rank_random,
    "popular": _Statistics.rank_popular,
    "adversarial": _Statistics.rank_adversarial,
    NAMES_STRATEGY: _Statistics.rank_random,
}
"""Strategy -> (statistics, absent name, present names) -> its rank. Names of the highest ranks are asked for."""


class _Sampler:
    """Chooses the names that are asked for."""

    def __init__(
        self,
        images: Sequence[_LabelledImage],
        strategies: Sequence[str],
        names: Sequence[str],
        limit: int,
        rng: random.Random,
    ) -> None:
        """Sample at most `limit` present and `limit` absent names of an image for each strategy."""
        self.images, self.names, self.limit, self.rng = images, names, limit, rng
        self.strategies = [*dict.fromkeys(strategies), *([NAMES_STRATEGY] if names else [])]
        self.statistics = _Statistics(images)

    def sample(self) -> list[AbsenceQuestion]:
        """Return the questions of all strategies. A question of several strategies is one."""
        asked: dict[tuple[int, str, bool], list[str]] = defaultdict(list)
        spare: dict[str, dict[bool, list[tuple[int, str, bool]]]] = {s: {True: [], False: []} for s in self.strategies}
        for index, image in enumerate(self.images):
            present = self.rng.sample(list(image.names), min(self.limit, len(image.names)))
            candidates = self._absent_names(image, self.statistics.frequency)
            given = self._absent_names(image, self.names)
            for strategy in self.strategies:
                absent = self._choose_absent(strategy, image, given if strategy == NAMES_STRATEGY else candidates)
                number = min(len(present), len(absent))
                for is_present, chosen in ((True, present), (False, absent)):
                    keys = [(index, name, is_present) for name in chosen]
                    for key in keys[:number]:
                        asked[key].append(strategy)
                    spare[strategy][is_present] += keys[number:]
        for strategy, remaining in spare.items():
            number = min(map(len, remaining.values()))
            for keys in remaining.values():
                for key in self.rng.sample(keys, number):
                    asked[key].append(strategy)
        return [
            self.images[i].ask(name, present, by) for (i, name, present), by in sorted(asked.items(), key=_image_index)
        ]

    def _absent_names(self, image: _LabelledImage, names: Iterable[str]) -> list[str]:
        absent = [name for name in names if not image.mentions(name)]
        self.rng.shuffle(absent)  # equal ranks are in random order
        return absent

    def _choose_absent(self, strategy: str, image: _LabelledImage, candidates: Sequence[str]) -> list[str]:
        rank = _RANKS[strategy]
        return sorted(candidates, key=lambda name: -rank(self.statistics, name, image.names))[: self.limit]


def _image_index(item: tuple[tuple[int, str, bool], list[str]]) -> int:
    return item[0][0]


def _explain_no_question(images: Sequence[_LabelledImage], tasks: Sequence[str]) -> str:
    names = list(dict.fromkeys(name for image in images for name in image.names))
    if not names:
        return (
            "the examples have no boxes with labels, so that it is unknown what is absent; add rows of <OD>, as in "
            f"coco:annotations.json?tasks=OD, or rows of {', '.join(tasks) or 'a task that locates a phrase'} with empty answers"
        )
    return (
        f"no image lacks any of the {len(names)} names {shorten(names)}, so that nothing is absent; give further names that "
        "do not occur"
    )
