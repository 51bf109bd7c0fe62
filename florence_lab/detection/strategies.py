"""Strategies of detection: which questions are asked about an image, and how their answers are assigned to classes.

A strategy is an entry of `STRATEGIES`. A detection may use several, whose boxes are put together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from ..exceptions import ArgumentError, PromptError, unknown_name
from ..results import Boxes, Result
from ..template.prompts import Prompt
from .asker import Asker
from .ontology import Ontology, with_article

CLASSES_PER_CAPTION = 8
"""Largest number of phrases in a caption that is grounded. The answers to longer ones leave phrases out."""

AUTOMATIC, AUTOMATIC_VERIFIED = ("open_vocabulary", "od"), ("open_vocabulary", "regions")
"""The strategies of `strategy="auto"`: open-vocabulary detection finds what has no name in object detection, but leaves out some of
several objects of a class, which the other strategy adds."""

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """A question about an image.

    Attributes:
        strategy: the strategy that asks it.
        prompt: what the model reads.
        class_ids: the ids of the classes that it asks for.
    """

    strategy: Strategy
    prompt: Prompt
    class_ids: tuple[int, ...]


class Strategy(Protocol):
    """A way to ask for classes.

    Attributes:
        needs_verification: whether only verification tells which of the assigned classes is right.
    """

    needs_verification: bool

    def questions(self, ontology: Ontology, asker: Asker) -> list[Question]:
        """Return the questions about an image, whose answers are decoded together.

        Raises:
            PromptError: for words that are too long for the model.
        """
        ...

    def assign(self, ontology: Ontology, question: Question, label: str) -> Sequence[int]:
        """Return the ids of the classes that a label in the answer to a question stands for; more than one if it is unclear."""
        ...


class OpenVocabulary:
    """One question of open-vocabulary detection for each phrase."""

    needs_verification = False

    def questions(self, ontology: Ontology, asker: Asker) -> list[Question]:
        """Return as many questions as there are phrases."""
        prompts = [(_build(asker, "<OPEN_VOCABULARY_DETECTION>", phrase), i) for i, phrase in ontology.queries]
        return [Question(self, prompt, (i,)) for prompt, i in prompts]

    def assign(self, ontology: Ontology, question: Question, label: str) -> Sequence[int]:
        """Return the class that was asked for, unless the label is the name of others."""
        named = ontology.named_by(label)
        return named if named and question.class_ids[0] not in named else question.class_ids


class Grounding:
    """Captions of up to `CLASSES_PER_CAPTION` phrases: "a sheep, a dog and a car". Grounding gives boxes for each phrase."""

    needs_verification = False

    def questions(self, ontology: Ontology, asker: Asker) -> list[Question]:
        """Return one question for each caption. A caption that is too long for the model is halved."""
        questions = []
        for queries in _chunks(ontology.queries, CLASSES_PER_CAPTION):
            questions += self._ask(queries, asker)
        return questions

    def assign(self, ontology: Ontology, question: Question, label: str) -> Sequence[int]:
        """Return the classes whose phrases have the most words in common with the label."""
        return ontology.mentioned_by(label, question.class_ids)

    def _ask(self, queries: Sequence[tuple[int, str]], asker: Asker) -> list[Question]:
        caption = _join([with_article(phrase) for _, phrase in queries])
        try:
            prompt = _build(asker, "<CAPTION_TO_PHRASE_GROUNDING>", caption)
        except PromptError:
            if len(queries) == 1:
                raise
            middle = len(queries) // 2
            return self._ask(queries[:middle], asker) + self._ask(queries[middle:], asker)
        return [Question(self, prompt, tuple(dict.fromkeys(i for i, _ in queries)))]


class ObjectDetection:
    """Object detection with the names that the model knows, which are assigned to classes of the same name or phrase."""

    needs_verification = False

    def questions(self, ontology: Ontology, asker: Asker) -> list[Question]:
        """Return one question."""
        return [Question(self, _build(asker, "<OD>"), tuple(range(len(ontology))))]

    def assign(self, ontology: Ontology, question: Question, label: str) -> Sequence[int]:
        """Return the classes that the label names."""
        return ontology.named_by(label)


class Regions:
    """Regions that may be objects: region proposals, and the boxes of object detection. Each is a candidate for all classes."""

    needs_verification = True

    def questions(self, ontology: Ontology, asker: Asker) -> list[Question]:
        """Return two questions, however many classes there are."""
        prompts = [_build(asker, task) for task in ("<REGION_PROPOSAL>", "<OD>")]
        return [Question(self, prompt, tuple(range(len(ontology)))) for prompt in prompts]

    def assign(self, ontology: Ontology, question: Question, label: str) -> Sequence[int]:
        """Return all classes."""
        return question.class_ids


STRATEGIES: dict[str, Strategy] = {
    "open_vocabulary": OpenVocabulary(),
    "grounding": Grounding(),
    "od": ObjectDetection(),
    "regions": Regions(),
}
"""Name of a strategy -> the strategy."""


def resolve_strategies(names: str | Sequence[str], verify: bool = True) -> list[Strategy]:
    """Return the strategies of one name or several.

    Args:
        names: the names, or `"auto"`.
        verify: whether what they find is verified.

    Raises:
        ArgumentError: for an unknown name, no name, and a strategy that needs verification without it.
    """
    automatic = AUTOMATIC_VERIFIED if verify else AUTOMATIC
    listed = automatic if isinstance(names, str) and names == "auto" else [names] if isinstance(names, str) else names
    if not len(listed):
        raise ArgumentError("strategy must name at least one strategy, got none")
    for name in listed:
        if name not in STRATEGIES:
            raise ArgumentError(unknown_name("strategy", name, ["auto", *STRATEGIES]))
        if STRATEGIES[name].needs_verification and not verify:
            raise ArgumentError(f"strategy {name!r} needs verify=True, which tells the class of each region")
    return [STRATEGIES[name] for name in dict.fromkeys(listed)]


def collect_candidates(ontology: Ontology, questions: Sequence[Question], answers: Sequence[Result]) -> Boxes:
    """Return the boxes of all answers about one image, labelled with the names of the classes.

    A box whose label stands for no class is left out. One whose label may stand for several classes is returned for each.

    Args:
        ontology: the classes.
        questions: the questions that were asked, at least one.
        answers: the answer to each.
    """
    parts: list[Boxes] = []
    ids: list[int] = []
    found_by: list[str] = []
    names = {id(strategy): name for name, strategy in STRATEGIES.items()}
    for question, answer in zip(questions, answers, strict=True):
        if not isinstance(answer, Boxes):
            continue
        assigned = [question.strategy.assign(ontology, question, label) for label in answer.labels.tolist()]
        rows = [row for row, classes in enumerate(assigned) for _ in classes]
        parts.append(answer[rows])
        ids += [i for classes in assigned for i in classes]
        found_by += [names.get(id(question.strategy), "")] * len(rows)
    contours = tuple(polygons for part in parts for polygons in part.contours)
    return Boxes(
        raw="\n".join(answer.raw for answer in answers),
        image_size=answers[0].image_size,
        task="<OD>",  # the task whose answers have this form
        prompt="\n".join(question.prompt.prompt for question in questions),
        image=answers[0].image,
        truncated=any(answer.truncated for answer in answers),
        labels=np.array([ontology.names[i] for i in ids], str),
        scores=np.concatenate([np.zeros(0), *(part.scores for part in parts if part.scores is not None)]),
        boxes=np.concatenate([np.zeros((0, 4)), *(part.boxes for part in parts)]),
        polygons=contours if any(contours) else (),
        class_ids=np.array(ids, int),
        classes=ontology.names,
        found_by=np.array(found_by, str),
    )


def _build(asker: Asker, task: str, text: str | None = None) -> Prompt:
    return asker.build_prompt((1, 1), task, text)  # the size matters for regions only


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in as few parts as possible, which differ in size by at most 1."""
    count = -(-len(items) // size)
    for i in range(count):
        yield items[i * len(items) // count : (i + 1) * len(items) // count]


def _join(phrases: Sequence[str]) -> str:
    """Return the phrases as the text of a caption: "a sheep, a dog and a car"."""
    return " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))
