"""Greedy decoding: attention for one new token, a decoder with a KV cache, and the decoding loops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    Florence2ForConditionalGeneration,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.bart.modeling_bart import BartAttention

from ..template.confidence import TokenProbabilities

LANGUAGE_ATTENTION = "florence_lab_language"
"""The name of `language_attention` in transformers' attention interface."""

_returns_weights: ContextVar[bool] = ContextVar("florence_lab_returns_attention_weights", default=False)

StepCallback = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Called after each decoding step with the indices of the unfinished sequences (n), the model's logits before any processing
(n x V), and the selected tokens (n)."""

DropCallback = Callable[[torch.Tensor], None]
"""Called with the indices of the sequences that are kept when the finished ones are dropped from the batch."""

KeyValue = tuple[torch.Tensor, torch.Tensor]
"""Keys and values, n x heads x k x d each."""


def language_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scaled dot-product attention, with a faster path for a single query on the CPU.

    For one query per sequence, two matrix products take a quarter of the time of PyTorch's fused kernel.

    Args:
        module: the attention layer.
        query: B x heads x q x d.
        key, value: B x heads x k x d.
        attention_mask: B x 1 x q x k bool, True where a key is attended to; None attends to all.
        scaling: factor of the products; d ** -0.5 by default.
        kwargs: passed on to transformers' SDPA attention.

    Returns:
        B x q x heads x d, and the attention weights (B x heads x q x k) within `attention_weights`, else None.
    """
    if _returns_weights.get():
        return _attend_with_weights(module, query, key, value, attention_mask, scaling)
    if query.shape[2] > 1 or query.device.type != "cpu" or query.requires_grad:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _attend(query * scaling, key, value, attention_mask).transpose(1, 2), None


@contextmanager
def attention_weights() -> Iterator[None]:
    """Let `language_attention` return the attention weights, which fused kernels do not, until the block ends.

    Only this thread is affected. (Selecting another attention function in the model would affect all of them.)
    """
    token = _returns_weights.set(True)
    try:
        yield
    finally:
        _returns_weights.reset(token)


def register_language_attention() -> None:
    """Register `language_attention` with transformers. Idempotent."""
    AttentionInterface.register(LANGUAGE_ATTENTION, language_attention)
    AttentionMaskInterface.register(LANGUAGE_ATTENTION, sdpa_mask)


class TokenScoreRecorder:
    """A `StepCallback` that records the probabilities of the generated tokens and of all location tokens.

    Attributes:
        location_ids: token ids of `<loc_0>` … `<loc_999>`.
        image_token_id: id of `<image>`.
    """

    def __init__(self, rows: Collection[int], location_ids: range, image_token_id: int) -> None:
        """
        Args:
            rows: indices of the sequences to record.
            location_ids: token ids of `<loc_0>` … `<loc_999>`.
            image_token_id: id of `<image>`, the placeholder of the image in a prompt; it has probability 0 in an answer.
        """
        self.location_ids, self.image_token_id = location_ids, image_token_id
        self._locations = slice(location_ids.start, location_ids.stop)
        self._stored: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._recorded: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {row: [] for row in rows}

    def __call__(self, rows: torch.Tensor, logits: torch.Tensor, tokens: torch.Tensor) -> None:
        """Record one decoding step, see `StepCallback`."""
        recorded = [i for i, row in enumerate(rows.tolist()) if row in self._recorded]
        if not recorded:
            return
        selected = logits[recorded]
        selected[:, self.image_token_id] = -torch.inf
        probabilities = selected.softmax(dim=-1)
        generated = probabilities.gather(1, tokens[recorded][:, None])[:, 0].cpu().numpy()
        locations = probabilities[:, self._locations].cpu().numpy()
        for i, row in enumerate(rows[recorded].tolist()):
            self._recorded[row].append((generated[i], locations[i]))

    def store(self, row: int, generated: torch.Tensor, locations: torch.Tensor) -> None:
        """Set all probabilities of a sequence, if it is one of those to record.

        Args:
            row: index of the sequence.
            generated: T, the probability of each token.
            locations: T x 1000, the probabilities of the location tokens.
        """
        if row in self._recorded:
            self._stored[row] = generated, locations

    def probabilities(self, row: int) -> TokenProbabilities | None:
        """Return the probabilities of the tokens generated so far; None if nothing was recorded for the sequence."""
        if row in self._stored:
            return TokenProbabilities(*(part.cpu().numpy() for part in self._stored[row]))
        steps = self._recorded.get(row)
        return TokenProbabilities(*(np.stack(part) for part in zip(*steps, strict=True))) if steps else None


class IncrementalDecoder:
    """BART's decoder for one new token per sequence, with a KV cache.

    It computes what transformers' `BartDecoder` computes. That one prepares masks and caches for every use, which takes a
    small model longer than its arithmetic; this one supports one new token per sequence only.
    """

    def __init__(
        self, model: Florence2ForConditionalGeneration, hidden_states: torch.Tensor, attention_mask: torch.Tensor
    ) -> None:
        """
        Args:
            model: the model.
            hidden_states: n x k x d_model, the output of the encoder.
            attention_mask: n x k, 1 where the decoder may attend.
        """
        self.decoder: Any = model.model.language_model.decoder
        self.length = 0
        self.mask = None if attention_mask.all() else attention_mask.bool()[:, None, None]
        cross_attentions = [layer.encoder_attn for layer in self.decoder.layers]
        self.cross_cache: list[KeyValue] = [
            (
                _split_heads(attention, attention.k_proj(hidden_states)).contiguous(),
                _split_heads(attention, attention.v_proj(hidden_states)).contiguous(),
            )
            for attention in cross_attentions
        ]
        self.self_cache: list[KeyValue] = [(key[:, :, :0], key[:, :, :0]) for key, _ in self.cross_cache]

    def __call__(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return the hidden states (n x d_model) after one more token per sequence (n ids)."""
        decoder = self.decoder
        if self.length == self.self_cache[0][0].shape[2]:
            self._grow_cache()
        positions = decoder.embed_positions
        hidden = decoder.embed_tokens(token_ids[:, None]) + positions.weight[positions.offset + self.length]
        hidden = decoder.layernorm_embedding(hidden)
        self.length += 1
        for layer, self_cache, cross_cache in zip(decoder.layers, self.self_cache, self.cross_cache, strict=True):
            cached = self._append(layer.self_attn, hidden, self_cache)
            hidden = layer.self_attn_layer_norm(hidden + self._attention(layer.self_attn, hidden, cached))
            attended = self._attention(layer.encoder_attn, hidden, cross_cache, self.mask)
            hidden = layer.encoder_attn_layer_norm(hidden + attended)
            feed_forward = layer.fc2(layer.activation_fn(layer.fc1(hidden)))
            hidden = layer.final_layer_norm(hidden + feed_forward)
        return hidden[:, 0]

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all sequences but these."""
        self.mask = None if self.mask is None else self.mask[rows]
        self.cross_cache = [(key[rows], value[rows]) for key, value in self.cross_cache]
        self.self_cache = [(key[rows], value[rows]) for key, value in self.self_cache]

    def _grow_cache(self) -> None:
        """Double the capacity of the cache, so that the total cost of copying stays linear."""
        padding = (0, 0, 0, max(64, self.length))
        pad = torch.nn.functional.pad
        self.self_cache = [(pad(key, padding), pad(value, padding)) for key, value in self.self_cache]

    def _append(self, attention: BartAttention, hidden: torch.Tensor, cache: KeyValue) -> KeyValue:
        """Write the new token's keys and values into the cache and return those of all tokens so far."""
        for part, project in zip(cache, (attention.k_proj, attention.v_proj), strict=True):
            part[:, :, self.length - 1 : self.length] = _split_heads(attention, project(hidden))
        return cache[0][:, :, : self.length], cache[1][:, :, : self.length]

    def _attention(
        self, attention: BartAttention, hidden: torch.Tensor, cache: KeyValue, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        query = _split_heads(attention, attention.q_proj(hidden) * attention.scaling)
        output: torch.Tensor = attention.out_proj(_attend(query, *cache, mask).transpose(1, 2).reshape(hidden.shape))
        return output


def greedy_search(
    model: Florence2ForConditionalGeneration,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    on_step: StepCallback | None = None,
    on_drop: DropCallback | None = None,
    **inputs: Any,
) -> torch.Tensor:
    """Greedy decoding for transformers' `generate(custom_generate=…)`, with the same output as transformers' own.

    Finished sequences are dropped from the batch.

    Args:
        model: the model.
        input_ids: B x 1 start tokens.
        logits_processor, stopping_criteria, generation_config: as `generate` prepares them.
        on_step: called after each step.
        on_drop: called when sequences are finished, for a logits processor that has a state for each sequence.
        inputs: of which `encoder_outputs.last_hidden_state` (B x S x d_model) and `attention_mask` (B x S) are used.

    Returns:
        B x T token ids, padded after the end of each sequence.
    """
    ids: Any = input_ids  # transformers' processors are typed for LongTensor
    decoder = IncrementalDecoder(model, inputs["encoder_outputs"].last_hidden_state, inputs["attention_mask"])
    rows = torch.arange(len(ids), device=ids.device)
    sequences: list[torch.Tensor] = [ids[0]] * len(ids)
    while len(rows):
        logits = model.lm_head(decoder(ids[:, -1])).float()
        # processors may modify their input
        tokens = logits_processor(ids, logits.clone() if on_step else logits).argmax(dim=-1)
        if on_step:
            on_step(rows, logits, tokens)
        ids = torch.cat([ids, tokens[:, None]], dim=1)
        finished = stopping_criteria(ids, None)
        if finished.any():
            for row, sequence in zip(rows[finished].tolist(), ids[finished], strict=True):
                sequences[row] = sequence
            unfinished = (~finished).nonzero()[:, 0]
            rows, ids = rows[unfinished], ids[unfinished]
            decoder.keep(unfinished)
            if on_drop:
                on_drop(unfinished)
    padding = float(generation_config.pad_token_id or 0)
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=padding)


def stream_search(
    model: Florence2ForConditionalGeneration,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    on_step: StepCallback | None = None,
    **inputs: Any,
) -> Iterator[tuple[int, bool]]:
    """Greedy decoding or sampling of one sequence for `generate(custom_generate=…)`, which returns this generator.

    Yields each generated token with a flag for the last one. The random numbers of sampling are drawn as transformers draws
    them. See `greedy_search` for the arguments.
    """
    ids: Any = input_ids  # transformers' processors are typed for LongTensor
    row = torch.zeros(1, dtype=torch.long, device=ids.device)
    with torch.inference_mode():
        decoder = IncrementalDecoder(model, inputs["encoder_outputs"].last_hidden_state, inputs["attention_mask"])
    is_finished = False
    while not is_finished:
        with torch.inference_mode():  # the mode of `generate` has ended when its caller advances the generator
            logits = model.lm_head(decoder(ids[:, -1])).float()
            scores = logits_processor(ids, logits.clone() if on_step else logits)
            if generation_config.do_sample:
                tokens = torch.multinomial(scores.softmax(dim=-1), num_samples=1)[:, 0]
            else:
                tokens = scores.argmax(dim=-1)
            if on_step:
                on_step(row, logits, tokens)
            ids = torch.cat([ids, tokens[:, None]], dim=1)
            is_finished = bool(stopping_criteria(ids, None).all())
        yield int(tokens[0]), is_finished


def end_token_ids(
    model: Florence2ForConditionalGeneration, generate_kwargs: Mapping[str, Any] | None = None
) -> list[int]:
    """Return the ids of the tokens that end a sequence."""
    candidates = [(generate_kwargs or {}).get("eos_token_id"), model.generation_config.eos_token_id]
    text_config: Any = model.config.text_config
    ids = next((ids for ids in candidates if ids is not None), text_config.eos_token_id)
    return list(ids) if isinstance(ids, Sequence) else [ids]


def _attend_with_weights(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention as the product of its weights (B x heads x q x k) with the values, and the weights."""
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is None and getattr(module, "is_causal", False):
        # as SDPA, which is given no mask then
        attention_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention of scaled queries (B x heads x q x d) to keys and values (B x heads x k x d)."""
    weights = query @ key.transpose(-1, -2)
    if mask is not None:
        weights = weights.masked_fill(~mask, -torch.inf)
    return weights.softmax(dim=-1) @ value


def _split_heads(attention: BartAttention, states: torch.Tensor) -> torch.Tensor:
    """n x k x d_model -> n x heads x k x d."""
    return states.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
