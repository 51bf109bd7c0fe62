"""Writing answers: attention for one new token, and greedy decoding of many answers together."""

from __future__ import annotations

from collections.abc import Callable, Collection
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
from ..template.locations import NUM_BINS

LANGUAGE_ATTENTION = "florence_lab_language"
"""The name under which transformers knows `language_attention`."""


def language_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """PyTorch's own attention, but for a single query per row on a CPU, where two matrix products take a quarter of its time.

    Args:
        query: B x heads x q x d; key, value: B x heads x k x d.
        attention_mask: B x 1 x q x k booleans, True where a key may be seen; None is all.

    Returns:
        B x q x heads x d, and no weights.
    """
    if query.shape[2] > 1 or query.device.type != "cpu" or query.requires_grad:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _attend(query * scaling, key, value, attention_mask).transpose(1, 2), None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """B x heads x q x d, scaled already, and B x heads x k x d each -> B x heads x q x d."""
    weights = query @ key.transpose(-1, -2)
    if mask is not None:
        weights = weights.masked_fill(~mask, -torch.inf)
    return weights.softmax(dim=-1) @ value


def register_language_attention() -> None:
    """Make `language_attention` known to transformers under the name `LANGUAGE_ATTENTION`. Idempotent."""
    AttentionInterface.register(LANGUAGE_ATTENTION, language_attention)
    AttentionMaskInterface.register(LANGUAGE_ATTENTION, sdpa_mask)


StepCallback = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Is told after each step which rows are still being written (n), the model's logits (n x vocabulary), what it chose (n)."""


class TokenScoreRecorder:
    """A `StepCallback` that keeps what a model thought of its own words: how likely each was, and each location token."""

    def __init__(self, rows: Collection[int], first_location: int, never: int) -> None:
        """
        Args:
            rows: those to keep it of.
            first_location: the id of `<loc_0>`.
            never: the id of a token that is never an answer.
        """
        self.first_location, self.never = first_location, never
        self._kept: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {row: [] for row in rows}

    def __call__(self, rows: torch.Tensor, logits: torch.Tensor, chosen: torch.Tensor) -> None:
        watched = [i for i, row in enumerate(rows.tolist()) if row in self._kept]
        if not watched:
            return
        some = logits[watched]
        some[:, self.never] = -torch.inf
        probabilities = some.softmax(dim=-1)
        likely = probabilities.gather(1, chosen[watched][:, None])[:, 0].cpu().numpy()
        places = probabilities[:, self.first_location : self.first_location + NUM_BINS].cpu().numpy()
        for i, row in enumerate(rows[watched].tolist()):
            self._kept[row].append((likely[i], places[i]))

    def of(self, row: int) -> TokenProbabilities | None:
        """For the T tokens that followed the start token of a row; None if there were none to keep."""
        kept = self._kept.get(row)
        return TokenProbabilities(*(np.stack(part) for part in zip(*kept, strict=True))) if kept else None


class IncrementalDecoder:
    """The language model's decoder, one token per row at a time, with a memory of what it read and wrote.

    What it computes is what transformers' `BartDecoder` does. That one gets ready for every use there is, whose masks
    and caches cost a small model more than its arithmetic; this one knows that each row has one new token.
    """

    def __init__(self, model: Florence2ForConditionalGeneration, states: torch.Tensor, mask: torch.Tensor) -> None:
        """
        Args:
            states: n x k x d_model, what the encoder made of each row's picture and prompt.
            mask: n x k, 1 where it may be seen.
        """
        self.decoder = model.model.language_model.decoder
        self.length = 0  # tokens read so far
        self.mask = None if mask.all() else mask.bool()[:, None, None]
        attentions = [layer.encoder_attn for layer in self.decoder.layers]
        self.seen = [tuple(_heads(a, p(states)).contiguous() for p in (a.k_proj, a.v_proj)) for a in attentions]
        self.written = [tuple(key[:, :, :0] for _ in range(2)) for key, _ in self.seen]

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """n token ids, the next of each row -> n x d_model."""
        decoder = self.decoder
        if self.length == self.written[0][0].shape[2]:
            self._make_room()
        positions = decoder.embed_positions
        hidden = decoder.embed_tokens(ids[:, None]) + positions.weight[positions.offset + self.length]
        hidden = decoder.layernorm_embedding(hidden)
        self.length += 1
        for layer, written, seen in zip(decoder.layers, self.written, self.seen, strict=True):
            said = self._attended(layer.self_attn, hidden, self._with(layer.self_attn, hidden, written))
            hidden = layer.self_attn_layer_norm(hidden + said)
            said = self._attended(layer.encoder_attn, hidden, seen, self.mask)
            hidden = layer.encoder_attn_layer_norm(hidden + said)
            said = layer.fc2(layer.activation_fn(layer.fc1(hidden)))
            hidden = layer.final_layer_norm(hidden + said)
        return hidden[:, 0]

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone."""
        self.mask = None if self.mask is None else self.mask[rows]
        self.seen = [tuple(part[rows] for part in parts) for parts in self.seen]
        self.written = [tuple(part[rows] for part in parts) for parts in self.written]

    def _make_room(self) -> None:
        """Twice as much as there was, so that little is copied in the end."""
        room = (0, 0, 0, max(64, self.length))
        self.written = [tuple(torch.nn.functional.pad(part, room) for part in parts) for parts in self.written]

    def _with(self, attention: BartAttention, hidden: torch.Tensor, written: Pair) -> Pair:
        """Keys and values of all that was written, the new token's among them."""
        for part, project in zip(written, (attention.k_proj, attention.v_proj), strict=True):
            part[:, :, self.length - 1 : self.length] = _heads(attention, project(hidden))
        return tuple(part[:, :, : self.length] for part in written)

    def _attended(
        self, attention: BartAttention, hidden: torch.Tensor, to: Pair, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        query = _heads(attention, attention.q_proj(hidden) * attention.scaling)
        return attention.out_proj(_attend(query, *to, mask).transpose(1, 2).reshape(hidden.shape))


Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values, n x heads x k x d each."""


def _heads(attention: BartAttention, states: torch.Tensor) -> torch.Tensor:
    """n x k x d_model -> n x heads x k x d."""
    return states.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


def greedy_search(
    model: Florence2ForConditionalGeneration,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    watch: StepCallback | None = None,
    **inputs: Any,
) -> torch.Tensor:
    """Greedy decoding for transformers' `generate(custom_generate=…)`, with the same sequences as its own.

    A row leaves when it is finished, so that the others don't carry it on, and `watch` sees the model's own logits, before
    `logits_processor` changes them.

    Args:
        input_ids: B x 1, start tokens.
        watch: see `StepCallback`.
        inputs: of which `encoder_outputs.last_hidden_state`, B x n x d_model, and `attention_mask`, B x n, 1 where it may
            be seen, are used.

    Returns:
        B x T ids, padded behind the end of each row.
    """
    ids = input_ids
    decoder = IncrementalDecoder(model, inputs["encoder_outputs"].last_hidden_state, inputs["attention_mask"])
    rows = torch.arange(len(ids), device=ids.device)
    written: list[torch.Tensor] = [ids[0]] * len(ids)
    while len(rows):
        logits = model.lm_head(decoder(ids[:, -1])).float()
        # the processors may write into what they are given
        chosen = logits_processor(ids, logits.clone() if watch else logits).argmax(dim=-1)
        if watch:
            watch(rows, logits, chosen)
        ids = torch.cat([ids, chosen[:, None]], dim=1)
        finished = stopping_criteria(ids, None)
        if finished.any():
            for row, sequence in zip(rows[finished].tolist(), ids[finished], strict=True):
                written[row] = sequence
            going = (~finished).nonzero()[:, 0]
            rows, ids = rows[going], ids[going]
            decoder.keep(going)
    padding = generation_config.pad_token_id
    return torch.nn.utils.rnn.pad_sequence(written, batch_first=True, padding_value=padding)
