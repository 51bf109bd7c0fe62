"""Greedy decoding, sampling and beam search as steps on buffers of fixed shape.

The results are those of transformers' `generate`. Each step is made of tensor operations without a condition on their values, so
that it can be captured as a CUDA graph: the forward pass, the processing of the logits, the selection of tokens, and for beams
the reordering of the cache. See `static_decoder` for the letters in shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch.nn.functional import log_softmax

from .static_decoder import StaticDecoder, StaticSource
from .static_processors import Sequences, StaticProcessor

_EXCLUDED = -1e9
"""What transformers' beam search adds to the score of a candidate that is out."""


@dataclass(frozen=True)
class SearchSettings:
    """How tokens are selected.

    Attributes:
        eos_ids: the tokens that end a sequence.
        pad_id: what follows the end of a sequence.
        do_sample: draw tokens in place of the most probable ones.
        length_penalty: beams are ranked by their log-probability, divided by their length to this power.
        early_stopping: for beams, see transformers' `GenerationConfig`.
        location_ids: (first, last + 1) of the location tokens, if token probabilities are recorded. Not for beams.
        image_token_id: of the placeholder of the image, which has probability 0 in an answer.
    """

    eos_ids: tuple[int, ...]
    pad_id: int
    do_sample: bool = False
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] | None = False
    location_ids: tuple[int, int] | None = None
    image_token_id: int = 0


class _Buffer(NamedTuple):
    """A tensor with an entry for each row or prompt.

    Attributes:
        tensor: the buffer.
        row_dim: its dimension of rows, or of prompts.
        length_dim: its dimension of positions; None if it has none.
        is_of_prompts: whether there is an entry for each prompt and not for each row.
    """

    tensor: torch.Tensor
    row_dim: int
    length_dim: int | None
    is_of_prompts: bool = False


class SearchState:
    """The state of a search for B prompts, in buffers for at most L steps.

    Attributes:
        decoder: with the cache of keys and values.
        tokens: R x (L + 1) int64, the start token and the generated ones.
        position: 1 int64, the number of steps so far.
        limit: 1 int64, the length with start token at which all sequences end.
        max_length: 1 int64, the same as settings give it.
        finished: B bool, whether the answer to a prompt is final.
        lengths: R int64, the number of generated tokens of each row, or of each finished beam.
        invalid: 1 bool, whether probabilities of sampling were not finite.
        logits: R x V float32, of the last step, before any processing.
        scores: R x V float32, what `Search.select_scored` reads; without entries until `keep_scores`.
    """

    def __init__(self, source: StaticSource, num_beams: int, length: int) -> None:
        """
        Args:
            source: what the prompts' rows attend to.
            num_beams: b.
            length: L.
        """
        self.decoder = StaticDecoder(source, num_beams, length)
        self.num_prompts, self.num_beams, self.length = source.num_prompts, num_beams, length
        num_rows = self.num_prompts * num_beams
        vocab_size = source.weights.lm_head.weight.shape[0]
        device = self.decoder.cache.device
        integers: Any = {"dtype": torch.long, "device": device}
        self.tokens = torch.zeros(num_rows, length + 1, **integers)
        self.position, self.limit, self.max_length = (torch.zeros(1, **integers) for _ in range(3))
        self.finished = torch.ones(self.num_prompts, dtype=torch.bool, device=device)
        self.lengths = torch.zeros(num_rows, **integers)
        self.invalid = torch.zeros(1, dtype=torch.bool, device=device)
        self.logits = torch.zeros(num_rows, vocab_size, device=device)
        self.scores = self.logits[:0]
        self.sequences = Sequences(self.tokens, self.position, self.max_length)
        self._buffers = {
            "cache": _Buffer(self.decoder.cache, 1, 4),
            "tokens": _Buffer(self.tokens, 0, 1),
            "lengths": _Buffer(self.lengths, 0, None),
            "finished": _Buffer(self.finished, 0, None, is_of_prompts=True),
        }
        if num_beams > 1:
            self._add_beams(num_beams)

    def _add_beams(self, num_beams: int) -> None:
        device, shape = self.tokens.device, (self.num_prompts, num_beams)
        self.running_scores = torch.zeros(shape, device=device)
        self.done_scores = torch.zeros(shape, device=device)
        self.done_tokens = torch.zeros(*shape, self.length + 1, dtype=torch.long, device=device)
        self.is_done = torch.zeros(shape, dtype=torch.bool, device=device)
        self.is_improvable = torch.zeros(self.num_prompts, 1, dtype=torch.bool, device=device)
        self.batch_offsets = torch.arange(self.num_prompts, device=device)[:, None] * num_beams
        for name in ("running_scores", "done_scores", "is_done", "is_improvable"):
            self._buffers[name] = _Buffer(getattr(self, name), 0, None, is_of_prompts=True)
        self._buffers["done_tokens"] = _Buffer(self.done_tokens, 0, 2, is_of_prompts=True)

    def keep_scores(self) -> None:
        """Add the buffer for scores, if there is none."""
        if not len(self.scores):
            self.scores = torch.zeros_like(self.logits)

    def record_locations(self, num_locations: int) -> None:
        """Add buffers for the probabilities of generated tokens (R x L) and of location tokens (R x L x n), if there are none."""
        if "generated" not in self._buffers:
            shape, device = (len(self.tokens), self.length), self.tokens.device
            self._buffers["generated"] = _Buffer(torch.zeros(shape, device=device), 0, 1)
            self._buffers["locations"] = _Buffer(torch.zeros(*shape, num_locations, device=device), 0, 1)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a buffer that depends on settings: `generated`, `locations`."""
        return self._buffers[name].tensor

    def nbytes(self) -> int:
        """Return the size of the buffers in bytes."""
        buffers = sum(buffer.tensor.nbytes for buffer in self._buffers.values())
        return buffers + self.logits.nbytes + self.scores.nbytes

    def start(self, num_prompts: int, start_id: int, pad_id: int, max_length: int) -> None:
        """Begin a search for the first n prompts, which is less than B if the batch is padded.

        Args:
            num_prompts: n.
            start_id: the token before the first generated one.
            pad_id: what the buffers are filled with.
            max_length: the length, with the start token, at which all sequences end.
        """
        self.decoder.cache.zero_()  # nan, as of an earlier search that overflowed, passes through a mask
        self.tokens.fill_(pad_id)
        self.tokens[:, 0] = start_id
        for counter, value in ((self.position, 0), (self.limit, max_length), (self.max_length, max_length)):
            counter.fill_(value)
        self.invalid.fill_(False)
        self.lengths.zero_()
        self.finished[:num_prompts] = False
        self.finished[num_prompts:] = True
        if self.num_beams > 1:
            self.running_scores.fill_(_EXCLUDED)
            self.running_scores[:, 0] = 0  # the beams are equal at first; only one of them counts
            self.done_scores.fill_(_EXCLUDED)
            self.done_tokens.copy_(self.tokens.view_as(self.done_tokens))
            self.is_done.fill_(False)
            self.is_improvable[:num_prompts] = True
            self.is_improvable[num_prompts:] = False

    def load(self, other: SearchState, prompts: torch.Tensor, pad_id: int) -> None:
        """Take over prompts of another search, given their n indices there, and go on where it is.

        The buffers of the other one may be of another length.
        """
        n, beams = len(prompts), self.num_beams
        rows = (prompts[:, None] * beams + torch.arange(beams, device=prompts.device)).flatten()
        for name, buffer in self._buffers.items():
            if name not in other._buffers:
                continue
            indices = prompts if buffer.is_of_prompts else rows
            mine, theirs = buffer.tensor, other._buffers[name].tensor
            if buffer.length_dim is not None:
                shared = min(mine.shape[buffer.length_dim], theirs.shape[buffer.length_dim])
                if name in ("tokens", "done_tokens", "cache"):
                    mine.fill_(0 if name == "cache" else pad_id)
                mine = mine.narrow(buffer.length_dim, 0, shared)
                theirs = theirs.narrow(buffer.length_dim, 0, shared)
            mine.narrow(buffer.row_dim, 0, len(indices)).copy_(theirs.index_select(buffer.row_dim, indices))
        for name in ("position", "limit", "max_length", "invalid"):
            getattr(self, name).copy_(getattr(other, name))
        self.finished[n:] = True
        if beams > 1:
            self.is_improvable[n:] = False


class Search:
    """The steps of one kind of search on a state."""

    def __init__(
        self, state: SearchState, settings: SearchSettings, processors: Sequence[StaticProcessor] | None
    ) -> None:
        """
        Args:
            state: the buffers.
            settings: how tokens are selected.
            processors: of the logits; None if they are processed between `forward` and `select_scored`.
        """
        self.state, self.settings, self.processors = state, settings, processors
        device = state.tokens.device
        self._eos = torch.tensor(settings.eos_ids, dtype=torch.long, device=device)
        if processors is None:
            state.keep_scores()
        if settings.location_ids:
            state.record_locations(settings.location_ids[1] - settings.location_ids[0])
        if state.num_beams > 1:
            # lengths to the power of the penalty, as Python computes them
            powers = [1.0] + [_power(length, settings.length_penalty) for length in range(1, _MAX_POSITIONS)]
            self._penalties = torch.tensor(powers, dtype=torch.float32, device=device)
            num_kept = max(2, 1 + len(settings.eos_ids)) * state.num_beams
            self._is_best = torch.arange(num_kept, device=device) < state.num_beams

    def step(self) -> None:
        """Generate one more token per row."""
        self.forward()
        scores = self.unprocessed_scores()
        for processor in self.processors or ():
            scores = processor.process(self.state.sequences, scores)
        self._select(scores)

    def forward(self) -> None:
        """Compute the logits of the next tokens."""
        state = self.state
        last = state.tokens.index_select(1, state.position)[:, 0]
        state.logits.copy_(state.decoder.logits(last, state.position))

    def unprocessed_scores(self) -> torch.Tensor:
        """Return what processors work on, R x V: logits, or log-probabilities for beams."""
        return self.state.logits if self.state.num_beams == 1 else log_softmax(self.state.logits, dim=-1)

    def select_scored(self) -> None:
        """Select the next tokens by the scores in the state."""
        self._select(self.state.scores)

    def _select(self, scores: torch.Tensor) -> None:
        state = self.state
        if state.num_beams > 1:
            self._select_beams(scores)
        else:
            tokens = self._sample(scores) if self.settings.do_sample else scores.argmax(dim=-1)
            if self.settings.location_ids:
                self._record(tokens)
            state.lengths.add_(~state.finished)
            tokens = torch.where(state.finished, self.settings.pad_id, tokens)
            state.tokens.index_copy_(1, state.position + 1, tokens[:, None])
            state.finished.logical_or_(self._is_end(tokens))
        state.position.add_(1)

    def _is_end(self, tokens: torch.Tensor) -> torch.Tensor:
        """Whether tokens end their sequences, because of what they are or because of the limit."""
        is_last = self.state.position + 2 >= self.state.limit
        return (tokens[..., None] == self._eos).any(dim=-1) | is_last

    def _sample(self, scores: torch.Tensor) -> torch.Tensor:
        """Draw one token per row as `torch.multinomial` does, which asks the device whether probabilities are finite."""
        probabilities = scores.softmax(dim=-1)
        is_valid = (probabilities.amax() < torch.inf) & (probabilities.amin() >= 0)
        self.state.invalid.logical_or_(~is_valid)
        return (probabilities / torch.empty_like(probabilities).exponential_(1.0)).argmax(dim=-1)

    def _record(self, tokens: torch.Tensor) -> None:
        assert self.settings.location_ids is not None
        state, first_and_end = self.state, self.settings.location_ids
        logits = state.logits
        logits.narrow(1, self.settings.image_token_id, 1).fill_(-torch.inf)
        total = logits.logsumexp(dim=-1, keepdim=True)
        generated = (logits.gather(1, tokens[:, None]) - total).exp()
        locations = (logits[:, slice(*first_and_end)] - total).exp()
        state["generated"].index_copy_(1, state.position, generated)
        state["locations"].index_copy_(1, state.position, locations[:, None])

    def _select_beams(self, scores: torch.Tensor) -> None:
        state = self.state
        shape, vocab_size = (state.num_prompts, state.num_beams), scores.shape[1]
        totals = scores.view(*shape, vocab_size) + state.running_scores[:, :, None]
        best, indices = totals.view(len(totals), -1).topk(len(self._is_best))
        parents, tokens = indices // vocab_size, indices % vocab_size
        candidates = _gather(state.tokens.view(*shape, -1), parents)
        candidates.index_copy_(2, state.position + 1, tokens[:, :, None])
        is_end = self._is_end(tokens)
        # the best ones that have not ended go on
        running = best + is_end.float() * _EXCLUDED
        order = running.topk(state.num_beams)[1]
        state.tokens.copy_(_gather(candidates, order).flatten(0, 1))
        state.running_scores.copy_(running.gather(1, order))
        state.decoder.reorder((parents.gather(1, order) + state.batch_offsets).flatten())
        self._collect_beams(best, candidates, is_end & self._is_best)
        self._check_improvable()

    def _collect_beams(self, best: torch.Tensor, candidates: torch.Tensor, has_ended: torch.Tensor) -> None:
        """Keep the best beams that have ended, of those before and of new candidates (B x k)."""
        state = self.state
        scores = best / self._penalties.index_select(0, state.position + 1)
        if self.settings.early_stopping is True:
            scores = scores + state.is_done.all(dim=1, keepdim=True).float() * _EXCLUDED
        scores = scores + (~state.is_improvable).float() * _EXCLUDED
        scores = scores + (~has_ended).float() * _EXCLUDED
        lengths = (state.position + 1).expand_as(has_ended)
        merged_scores = torch.cat([state.done_scores, scores], dim=1)
        order = merged_scores.topk(state.num_beams)[1]
        merged_lengths = torch.cat([state.lengths.view_as(state.done_scores), lengths], dim=1)
        state.done_tokens.copy_(_gather(torch.cat([state.done_tokens, candidates], dim=1), order))
        state.done_scores.copy_(merged_scores.gather(1, order))
        state.lengths.copy_(merged_lengths.gather(1, order).flatten())
        state.is_done.copy_(torch.cat([state.is_done, has_ended], dim=1).gather(1, order))

    def _check_improvable(self) -> None:
        """Find out whether running beams may still become better than those that have ended."""
        state, settings = self.state, self.settings
        is_longest = settings.early_stopping == "never" and settings.length_penalty > 0
        length = state.max_length - 1 if is_longest else state.position + 1
        possible = state.running_scores[:, :1] / self._penalties.index_select(0, length)
        worst = torch.where(state.is_done, state.done_scores.amin(dim=1, keepdim=True), _EXCLUDED)
        state.is_improvable.logical_and_((possible > worst).any(dim=-1, keepdim=True))
        is_final = ~state.is_improvable[:, 0]
        if settings.early_stopping is True:
            is_final = is_final | state.is_done.all(dim=1)
        state.finished.copy_(is_final | (state.position + 2 >= state.limit))


_MAX_POSITIONS = 1 << 12
"""More than any model of the family has."""


def _power(length: int, exponent: float) -> float:
    try:
        return float(length**exponent)
    except OverflowError:
        return float("inf")


def _gather(sequences: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Return sequences (B x n x T) by their indices (B x k), B x k x T."""
    return sequences.gather(1, indices[:, :, None].expand(-1, -1, sequences.shape[2]))
