"""Constrained decoding: answers in the grammar of their task, with labels and characters of the caller's choice."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers import (
    Florence2ForConditionalGeneration,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
)

from ..argument_validation import validate_value
from ..exceptions import ArgumentError, shorten
from ..generation_settings import CONSTRAINT_SETTINGS
from ..tasks import Task
from ..template.grammar import check_tokens, requires_label
from ..template.locations import NUM_BINS, parse_location_tokens
from ..template.prompts import Prompt
from ..template.vocabulary import NOT_GROUNDABLE, Vocabulary, split_text
from .answer_states import State, first_state
from .answer_texts import (
    ANY_TEXT,
    NONEMPTY_TEXT,
    CharacterTree,
    TextState,
    TokenTable,
    caption_tree,
    label_tree,
)
from .decoding import end_token_ids

_NUM_CACHED = 64
"""Label sets, captions and kinds of answers whose states are kept."""


@dataclass(frozen=True)
class Constraint:
    """What answers are restricted to, besides the grammar of their task.

    Attributes:
        labels: the permitted labels of instances, or answers of text; None permits all.
        characters: the permitted characters of words that are read and of answers of text; None permits all.
    """

    labels: tuple[str, ...] | None = None
    characters: str | None = None

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Constraint | None:
        """Return the constraint of `CONSTRAINT_SETTINGS`; None if answers are not constrained.

        Raises:
            ArgumentError: for settings that contradict each other or that no answer can meet.
        """
        labels: Any = settings.get("allowed_labels")
        characters: Any = settings.get("allowed_characters")
        if labels is None and characters is None:
            return cls() if settings.get("constrain") else None
        if settings.get("constrain") is False:
            raise ArgumentError("allowed_labels and allowed_characters constrain answers; leave constrain=False out")
        if labels is not None and characters is not None:
            raise ArgumentError(
                "allowed_labels and allowed_characters both say what answers consist of; give one of them"
            )
        if characters is not None:
            if not characters.strip():
                raise ArgumentError(f"allowed_characters must contain a visible character, got {shorten(characters)}")
            return cls(characters="".join(dict.fromkeys(characters)))
        labels = validate_value("allowed_labels", list(labels), list[str])
        if not labels:
            raise ArgumentError("allowed_labels must name one label or more, got an empty list")
        return cls(labels=tuple(dict.fromkeys(map(_check_label, labels))))

    def check_task(self, task: Task) -> None:
        """Verify that the answers to a task can be restricted in this way.

        Raises:
            ArgumentError: for labels if the task has none, and for characters if nothing is read.
        """
        if self.labels is not None and not _has_labels(task):
            raise ArgumentError(
                f"allowed_labels cannot restrict {task.name}, whose answers have no labels; leave them out, or use a task "
                "with labels or text, such as <OD>"
            )
        if self.characters is not None and task.result not in ("text", "quads"):
            raise ArgumentError(
                f"allowed_characters cannot restrict {task.name}, which answers with {_DESCRIPTIONS[task.result]}; they are for "
                "text that is read or written, such as the answers to <OCR> and <OCR_WITH_REGION>"
            )
        if task.result == "grounding":
            for label in self.labels or ():
                if label.lower() in NOT_GROUNDABLE:
                    raise ArgumentError(f"allowed_labels: {shorten(label)} has no box in an answer to {task.name}")


def check_constraint(settings: Mapping[str, Any], prompts: Iterable[Prompt]) -> None:
    """Verify that the answers to prompts can be restricted as the settings say.

    Args:
        settings: see `resolve_generation_kwargs`.
        prompts: the prompts.

    Raises:
        ArgumentError: as `Constraint`; the message names setting and task.
    """
    if constraint := Constraint.from_settings(settings):
        for prompt in prompts:
            constraint.check_task(prompt.task)


class ConstraintProcessor(LogitsProcessor):
    """Excludes the tokens that cannot continue an answer, for any decoding method of transformers.

    The state of each sequence follows from its tokens, and advances with them. It is found again when beams are reordered.

    A sequence that cannot be continued is ended: by `</s>`, and if only repetitions are left, by one of those that complete it.
    """

    def __init__(self, starts: Sequence[State], table: TokenTable, end_ids: Sequence[int], ngram_size: int) -> None:
        """
        Args:
            starts: the first states, one for each prompt.
            table: the tokens.
            end_ids: the tokens that end an answer.
            ngram_size: n-grams of this size are not repeated, except within labels of the caller's choice; 0 for no limit.
                transformers' own processor would not tell what the grammar excludes from what is only a repetition.
        """
        self._prompts = self._starts = list(starts)  # of all prompts, and of those that are not finished
        self._table, self._end_ids, self._ngram_size = table, list(end_ids), ngram_size
        self._no_repetition = NoRepeatNGramLogitsProcessor(ngram_size) if ngram_size else None
        self._states: list[State] = []
        self._ids: torch.Tensor | None = None
        self._bins = torch.arange(NUM_BINS, device=table.device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return the scores (n x V) with -inf for the excluded tokens.

        Args:
            input_ids: n x T, the sequences with their start token. The n / B beams of a prompt are consecutive.
            scores: n x V.
        """
        self._follow(input_ids)
        scores = self._exclude(input_ids, scores)
        if self._no_repetition:
            varied = self._no_repetition(input_ids, scores)
            is_free = [state.text is not None and state.text.is_choice for state in self._states]
            keeps = torch.tensor(is_free, device=scores.device) | _are_stuck(varied.amax(dim=1))
            scores = torch.where(keeps[:, None], scores, varied)
        best = scores.amax(dim=1)
        if _are_stuck(best.min()):
            rows = _are_stuck(best).nonzero()
            scores[rows, torch.tensor(self._end_ids, device=scores.device)] = 0
        return scores

    def restart(self, row: int) -> ConstraintProcessor:
        """Return a processor for the prompt of one sequence alone, from its beginning."""
        return ConstraintProcessor([self._prompts[row]], self._table, self._end_ids, self._ngram_size)

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all sequences but these, of one sequence for each prompt."""
        kept = rows.tolist()
        self._starts = [self._starts[row] for row in kept]
        self._states = [self._states[row] for row in kept]
        self._ids = None if self._ids is None else self._ids[rows]

    def _exclude(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forbidden = [state.forbidden(self._table) for state in self._states]
        scores = scores.masked_fill(torch.stack(forbidden) if len(forbidden) > 1 else forbidden[0], -torch.inf)
        is_far = [state.is_far_corner for state in self._states]
        if any(is_far):
            first = self._table.location_ids.start
            near = [token - first if far else 0 for token, far in zip(input_ids[:, -2].tolist(), is_far, strict=True)]
            locations = scores[:, first : first + NUM_BINS]
            locations.masked_fill_(self._bins < torch.tensor(near, device=scores.device)[:, None], -torch.inf)
        return scores

    def _follow(self, input_ids: torch.Tensor) -> None:
        """Advance the states to given sequences."""
        parents = self._find_parents(input_ids)
        if parents is not None:
            tokens = input_ids[:, -1].tolist()
            self._states = [
                self._states[parent].advance(token, self._table) for parent, token in zip(parents, tokens, strict=True)
            ]
        else:
            sequences = input_ids[:, 1:].tolist()
            beams = len(sequences) // len(self._starts)
            self._states = [self._starts[row // beams] for row in range(len(sequences))]
            for row, sequence in enumerate(sequences):
                for token in sequence:
                    self._states[row] = self._states[row].advance(token, self._table)
        self._ids = input_ids

    def _find_parents(self, input_ids: torch.Tensor) -> Sequence[int] | None:
        """The index, for each sequence, of the one before the last step that it continues; None if there is none."""
        before, now = self._ids, input_ids[:, :-1]
        if before is None or before.shape != now.shape:
            return None
        if torch.equal(before, now):
            return range(len(now))
        before, now = (ids.unflatten(0, (len(self._starts), -1)) for ids in (before, now))
        is_parent = (now[:, :, None] == before[:, None]).all(dim=-1)
        if not is_parent.any(dim=-1).all():
            return None
        beams = is_parent.shape[1]
        parents = is_parent.int().argmax(dim=-1) + torch.arange(len(is_parent), device=now.device)[:, None] * beams
        return list(parents.flatten().tolist())


class ConstraintFactory:
    """Makes the processors for the prompts of a model. Vocabulary and states are prepared once and shared."""

    def __init__(self, model: Florence2ForConditionalGeneration, vocabulary: Vocabulary) -> None:
        """
        Args:
            model: the model.
            vocabulary: of its tokenizer.
        """
        self._model, self._vocabulary = model, vocabulary
        self._table = lru_cache(2)(self._make_table)
        self._text = lru_cache(_NUM_CACHED)(self._make_text)
        self._start = lru_cache(_NUM_CACHED)(self._make_start)

    def __deepcopy__(self, memo: dict[int, Any]) -> ConstraintFactory:
        return ConstraintFactory(copy.deepcopy(self._model, memo), self._vocabulary)

    def processor(self, prompts: Sequence[Prompt], settings: Mapping[str, Any]) -> ConstraintProcessor | None:
        """Return the processor for prompts that are answered together; None if their answers are not constrained.

        Args:
            prompts: the prompts.
            settings: see `resolve_generation_kwargs`.

        Raises:
            ArgumentError: as `check_constraint`.
        """
        check_constraint(settings, prompts)
        constraint = Constraint.from_settings(settings)
        if constraint is None:
            return None
        config = self._model.generation_config
        end_ids = tuple(end_token_ids(self._model, settings))
        table = self._table(end_ids, self._model.device)
        begin_ids = {self._vocabulary.tokenizer.bos_token_id, _setting("forced_bos_token_id", settings, config)}
        starts = [
            self._start(
                table, constraint, prompt.task, _relevant_text(prompt, constraint), frozenset(begin_ids - {None})
            )
            for prompt in prompts
        ]
        return ConstraintProcessor(starts, table, end_ids, _setting("no_repeat_ngram_size", settings, config) or 0)

    def _make_table(self, end_ids: tuple[int, ...], device: torch.device) -> TokenTable:
        return TokenTable(self._vocabulary, self._model.lm_head.out_features, end_ids, device)

    def _make_text(
        self, table: TokenTable, labels: tuple[str, ...] | None, characters: str | None, caption: str
    ) -> Any:
        if labels is not None:
            return label_tree(table, labels)
        if characters is not None:
            return CharacterTree(table, characters).state()
        return caption_tree(table, caption)

    def _make_start(
        self, table: TokenTable, constraint: Constraint, task: Task, text: str, begin_ids: frozenset[int]
    ) -> State:
        label: TextState = ANY_TEXT if task.result == "text" and task.input != "region" else NONEMPTY_TEXT
        if constraint != Constraint():
            label = self._text(table, constraint.labels, constraint.characters, "")
        elif task.result == "grounding":
            label = self._text(table, None, None, text)
        region_ids: list[int] = []
        if task.result == "text" and task.input == "region":
            region_ids = [table.location_ids[bin_] for bin_ in parse_location_tokens(text)]
        is_required = requires_label(task) or constraint.labels is not None
        state = first_state(task.result, label, is_required, table.separator_ids, region_ids)
        return state.behind(begin_ids, table)


def generation_arguments(settings: Mapping[str, Any], constraint: ConstraintProcessor | None) -> dict[str, Any]:
    """Return the arguments of transformers' `generate`.

    Args:
        settings: see `resolve_generation_kwargs`.
        constraint: restricts the answers.
    """
    arguments = {name: value for name, value in settings.items() if name not in CONSTRAINT_SETTINGS}
    if constraint:
        arguments |= {"logits_processor": LogitsProcessorList([constraint]), "no_repeat_ngram_size": 0}
    return arguments


def _are_stuck(best: torch.Tensor) -> torch.Tensor:
    """Whether no token is left, by the best scores. `remove_invalid_values` replaces -inf by the least number."""
    return best <= torch.finfo(best.dtype).min


def _setting(name: str, settings: Mapping[str, Any], config: Any) -> Any:
    return settings[name] if name in settings else getattr(config, name, None)


def _relevant_text(prompt: Prompt, constraint: Constraint) -> str:
    """The input of a prompt if the grammar of its answer depends on it."""
    is_caption = prompt.task.result == "grounding" and constraint == Constraint()
    is_region = prompt.task.result == "text" and prompt.task.input == "region"
    return prompt.text if is_caption or is_region else ""


def _has_labels(task: Task) -> bool:
    if task.result == "boxes":
        return task.coco_label != "none"
    return task.result != "polygons" or task.coco_label in ("category", "caption")


def _check_label(label: str) -> str:
    """Return a label without blanks around it."""
    stripped = label.strip()
    if not stripped:
        raise ArgumentError(f"allowed_labels must be texts, got {shorten(label)}; the empty answer is always allowed")
    try:
        check_tokens(stripped)
    except ArgumentError as error:
        raise ArgumentError(f"allowed_labels: {error}") from None
    markup = [span.text for span in split_text(stripped)[1] if not span.is_text]
    if markup:
        raise ArgumentError(f"allowed_labels: {shorten(label)} contains {markup[0]}, which is a token of its own")
    return stripped


_DESCRIPTIONS = {
    "boxes": "boxes",
    "grounding": "boxes for the phrases of a caption",
    "boxes_or_polygons": "boxes or polygons",
    "polygons": "polygons",
}
"""Kind of result -> what an answer consists of."""
