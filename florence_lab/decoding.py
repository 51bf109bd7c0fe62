"""Writing answers: attention for one new token, and greedy decoding of many answers together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    EncoderDecoderCache,
    Florence2ForConditionalGeneration,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.bart.modeling_bart import BartDecoder

from .template import BINS, TokenProbabilities

LANGUAGE_ATTENTION = "florence_lab_language"
"""The name under which transformers knows `language_attention`."""

# transformers called it past_key_values until 5.23
_CACHE = "cache" if "cache" in inspect.signature(BartDecoder.forward).parameters else "past_key_values"


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
    weights = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-1, -2)
    if attention_mask is not None:
        weights = weights.masked_fill(~attention_mask, -torch.inf)
    return (weights.softmax(dim=-1) @ value).transpose(1, 2), None


AttentionInterface.register(LANGUAGE_ATTENTION, language_attention)
AttentionMaskInterface.register(LANGUAGE_ATTENTION, sdpa_mask)

Watch = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Is told after each step which rows are still being written (n), the model's logits (n x vocabulary), what it chose (n)."""


class Thoughts:
    """A `Watch` that keeps what a model thought of its own words: how likely each was, and each location token."""

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
        places = probabilities[:, self.first_location : self.first_location + BINS].cpu().numpy()
        for i, row in enumerate(rows[watched].tolist()):
            self._kept[row].append((likely[i], places[i]))

    def of(self, row: int) -> TokenProbabilities | None:
        """For the T tokens that followed the start token of a row; None if there were none to keep."""
        kept = self._kept.get(row)
        return TokenProbabilities(*(np.stack(part) for part in zip(*kept, strict=True))) if kept else None


def greedy(
    model: Florence2ForConditionalGeneration,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    watch: Watch | None = None,
    **inputs: Any,
) -> torch.Tensor:
    """Greedy decoding for transformers' `generate(custom_generate=…)`, with the same sequences as its own.

    A row leaves when it is finished, so that the others don't carry it on, and `watch` sees the model's own logits, before
    `logits_processor` changes them.

    Args:
        input_ids: B x 1, start tokens.
        watch: see `Watch`.
        inputs: of which `encoder_outputs.last_hidden_state`, B x n x d_model, and `attention_mask`, B x n, 1 where it may
            be seen, are used.

    Returns:
        B x T ids, padded behind the end of each row.
    """
    ids, states, mask = input_ids, inputs["encoder_outputs"].last_hidden_state, inputs["attention_mask"]
    mask = None if mask.all() else mask
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    decoder = model.model.language_model.decoder
    rows = torch.arange(len(ids), device=ids.device)
    written: list[torch.Tensor] = [ids[0]] * len(ids)
    while len(rows):
        hidden = decoder(
            input_ids=ids[:, -1:],
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            use_cache=True,
            **{_CACHE: cache},
        ).last_hidden_state
        logits = model.lm_head(hidden[:, -1]).float()
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
            rows, ids, states = rows[going], ids[going], states[going]
            mask = None if mask is None else mask[going]
            cache.batch_select_indices(going)
    padding = generation_config.pad_token_id
    return torch.nn.utils.rnn.pad_sequence(written, batch_first=True, padding_value=padding)
