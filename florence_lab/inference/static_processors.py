"""transformers' logits processors as operations on buffers of fixed shape, which a CUDA graph can contain.

transformers' own depend on the length of the sequences so far, and some ask the device for values. Here the number of tokens is
a tensor on the device. The results are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.generation import logits_process as processors


@dataclass(frozen=True, eq=False)
class Sequences:
    """The sequences so far, in buffers.

    Attributes:
        tokens: R x (L + 1) int64, the start token and those after it. What comes after `position` has no meaning.
        position: 1 int64, the index of the last token.
        max_length: 1 int64, the maximum number of tokens, with the start token.
    """

    tokens: torch.Tensor
    position: torch.Tensor
    max_length: torch.Tensor


Process = Callable[[Sequences, torch.Tensor], torch.Tensor]
"""Sequences and scores (R x V) -> new scores."""


@dataclass(frozen=True)
class StaticProcessor:
    """One processor.

    Attributes:
        key: type and settings. Processors of equal keys give equal scores.
        process: computes the scores.
    """

    key: Hashable
    process: Process


def static_processors(logits_processors: Iterable[Any], device: torch.device | str) -> list[StaticProcessor] | None:
    """Return the same processors for static buffers; None if one of them has no such form.

    Args:
        logits_processors: of transformers' `generate`.
        device: of the sequences.
    """
    found = []
    for processor in logits_processors:
        convert = _CONVERSIONS.get(type(processor))
        if convert is None:
            return None
        found.append(convert(processor, torch.device(device)))
    return found


def _no_repeat_ngram(processor: Any, device: torch.device) -> StaticProcessor:
    size = int(processor.ngram_size)

    def process(sequences: Sequences, scores: torch.Tensor) -> torch.Tensor:
        tokens, position = sequences.tokens, sequences.position
        num_grams = tokens.shape[1] - size + 1
        if num_grams < 1:
            return scores
        ends = torch.arange(size - 1, tokens.shape[1], device=tokens.device)
        is_repeated = (ends <= position).expand(len(tokens), -1)
        for offset in range(size - 1):  # the last tokens, compared with those at the same place of each n-gram
            last = tokens.index_select(1, (position - (size - 2 - offset)).clamp(min=0))
            is_repeated = is_repeated & (tokens[:, offset : offset + num_grams] == last)
        return scores.masked_fill(_contains(tokens[:, size - 1 :], is_repeated, scores), -torch.inf)

    return StaticProcessor(("no_repeat_ngram", size), process)


def _repetition_penalty(processor: Any, device: torch.device) -> StaticProcessor:
    penalty, ignored = float(processor.penalty), int(processor.prompt_ignore_length or 0)

    def process(sequences: Sequences, scores: torch.Tensor) -> torch.Tensor:
        tokens = sequences.tokens[:, ignored:]
        indices = torch.arange(ignored, sequences.tokens.shape[1], device=tokens.device)
        counts = (indices <= sequences.position).expand(len(tokens), -1)
        penalized = torch.where(scores < 0, scores * penalty, scores / penalty)
        return torch.where(_contains(tokens, counts, scores), penalized, scores)

    return StaticProcessor(("repetition_penalty", penalty, ignored), process)


def _forced_bos(processor: Any, device: torch.device) -> StaticProcessor:
    return _forced("forced_bos", lambda sequences: sequences.position == 0, [int(processor.bos_token_id)], device)


def _forced_eos(processor: Any, device: torch.device) -> StaticProcessor:
    ids = _ids(processor.eos_token_id)
    return _forced("forced_eos", lambda sequences: sequences.position + 2 == sequences.max_length, ids, device)


def _forced(
    name: str, applies: Callable[[Sequences], torch.Tensor], token_ids: Sequence[int], device: torch.device
) -> StaticProcessor:
    """Permit some tokens only, with score 0, at a certain length."""
    ids = torch.tensor(token_ids, dtype=torch.long, device=device)

    def process(sequences: Sequences, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores[:1], -torch.inf).index_fill(1, ids, 0.0)
        return torch.where(applies(sequences), forced, scores)

    return StaticProcessor((name, tuple(token_ids)), process)


def _min_length(processor: Any, device: torch.device) -> StaticProcessor:
    return _excluded("min_length", 0, int(processor.min_length), _ids(processor.eos_token_id), device)


def _min_new_tokens(processor: Any, device: torch.device) -> StaticProcessor:
    length = int(processor.prompt_length_to_skip) + int(processor.min_new_tokens)
    return _excluded("min_new_tokens", 0, length, _ids(processor.eos_token_id), device)


def _suppressed(processor: Any, device: torch.device) -> StaticProcessor:
    return _excluded("suppressed", 0, _MAX_LENGTH, _ids(processor.suppress_tokens), device)


def _suppressed_at_begin(processor: Any, device: torch.device) -> StaticProcessor:
    begin = int(processor.begin_index)
    return _excluded("suppressed_at_begin", begin, begin + 1, _ids(processor.begin_suppress_tokens), device)


def _excluded(name: str, start: int, stop: int, token_ids: Sequence[int], device: torch.device) -> StaticProcessor:
    """Exclude tokens for sequences of a length in start <= length < stop."""
    ids = torch.tensor(token_ids, dtype=torch.long, device=device)

    def process(sequences: Sequences, scores: torch.Tensor) -> torch.Tensor:
        length = sequences.position + 1
        is_excluded = torch.zeros_like(scores[:1], dtype=torch.bool).index_fill(1, ids, True)
        return scores.masked_fill(is_excluded & (start <= length) & (length < stop), -torch.inf)

    return StaticProcessor((name, start, stop, tuple(token_ids)), process)


def _independent(*settings: str) -> Callable[[Any, torch.device], StaticProcessor]:
    """For processors that look at the scores alone: they are called as they are."""

    def convert(processor: Any, device: torch.device) -> StaticProcessor:
        key = (type(processor).__name__, *(float(getattr(processor, name)) for name in settings))
        return StaticProcessor(key, lambda _, scores: processor(None, scores))

    return convert


_MAX_LENGTH = 1 << 30

_CONVERSIONS: dict[type, Callable[[Any, torch.device], StaticProcessor]] = {
    processors.NoRepeatNGramLogitsProcessor: _no_repeat_ngram,
    processors.RepetitionPenaltyLogitsProcessor: _repetition_penalty,
    processors.ForcedBOSTokenLogitsProcessor: _forced_bos,
    processors.ForcedEOSTokenLogitsProcessor: _forced_eos,
    processors.MinLengthLogitsProcessor: _min_length,
    processors.MinNewTokensLengthLogitsProcessor: _min_new_tokens,
    processors.SuppressTokensLogitsProcessor: _suppressed,
    processors.SuppressTokensAtBeginLogitsProcessor: _suppressed_at_begin,
    processors.TemperatureLogitsWarper: _independent("temperature"),
    processors.TopKLogitsWarper: _independent("top_k", "filter_value"),
    processors.TopPLogitsWarper: _independent("top_p", "filter_value", "min_tokens_to_keep"),
    processors.MinPLogitsWarper: _independent("min_p", "filter_value", "min_tokens_to_keep"),
    processors.TypicalLogitsWarper: _independent("mass", "filter_value", "min_tokens_to_keep"),
    processors.EpsilonLogitsWarper: _independent("epsilon", "filter_value", "min_tokens_to_keep"),
    processors.InfNanRemoveLogitsProcessor: _independent(),
    processors.LogitNormalization: _independent(),
}
"""Processor of transformers -> its conversion. The exact type counts."""


def _contains(tokens: torch.Tensor, counts: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return whether each token of the vocabulary is among those that count, R x V bool.

    Args:
        tokens: R x n ids.
        counts: R x n bool.
        scores: R x V, of which the shape is used.
    """
    vocab_size = scores.shape[1]
    # one more column takes the tokens that do not count
    found = torch.zeros(len(scores), vocab_size + 1, dtype=torch.bool, device=scores.device)
    return found.scatter_(1, torch.where(counts, tokens, vocab_size), True)[:, :vocab_size]


def _ids(tensor: torch.Tensor) -> list[int]:
    return [int(token_id) for token_id in torch.as_tensor(tensor).reshape(-1).tolist()]
