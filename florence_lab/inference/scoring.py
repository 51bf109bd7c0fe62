"""Log-likelihoods of given answers: teacher forcing of many answers to few prompts, in one batched pass of the decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import Florence2ForConditionalGeneration, PreTrainedTokenizerBase

from ..exceptions import ArgumentError
from .generation import EncodedPrompts, start_token_id, text_config

_POSITIONS_PER_PASS = 4096  # of the decoder: 50 MB for its widest activations in the base model
_POSITIONS_PER_CHUNK = 128  # 26 MB of float32 logits for a vocabulary of 51,290 tokens


def encode_answers(
    model: Florence2ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]
) -> list[list[int]]:
    """Return the token ids of answers as the model generates them: `<s>`, or the forced first token, the text, and `</s>`.

    Raises:
        ArgumentError: for an answer that is longer than the model's positions.
    """
    forced = model.generation_config.forced_bos_token_id
    limit = text_config(model).max_position_embeddings
    encoded: list[list[int]] = []
    for answer, token_ids in zip(answers, tokenizer(list(answers), verbose=False).input_ids, strict=True):
        if len(token_ids) > limit:
            raise ArgumentError(
                f"an answer of {len(token_ids)} tokens is longer than the {limit} of the model: {answer[:40]!r}…"
            )
        encoded.append(list(token_ids) if forced is None else [forced, *token_ids[1:]])
    return encoded


@torch.inference_mode()
def answer_log_likelihoods(
    model: Florence2ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    states: EncodedPrompts,
    rows: Sequence[int],
    answers: Sequence[str] | Sequence[Sequence[int]],
    end_ids: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Return the log-probability of each token of given answers.

    They are the model's own probabilities, before any processing of the logits, as in `generation.score`, with one exception:
    a first token that generation forces (`forced_bos_token_id`) has log-probability 0. The answers to one prompt share its
    keys and values of the cross-attention, which are most of the work.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        states: the encoded prompts.
        rows: N indices of the prompt that each answer is for.
        answers: N answers, as text or as token ids from the first generated token on, `</s>` included.
        end_ids: if given, the last token of an answer stands for any of these tokens, and its probability is their sum.

    Returns:
        N arrays of float64, one value for each token.

    Raises:
        ArgumentError: for an answer that is longer than the model's positions.
    """
    texts = [answer for answer in answers if isinstance(answer, str)]
    from_text = iter(encode_answers(model, tokenizer, texts) if texts else ())
    token_ids = [next(from_text) if isinstance(answer, str) else list(answer) for answer in answers]
    results: list[np.ndarray] = [np.zeros(0)] * len(token_ids)
    for chunk in _chunks(rows, [len(ids) for ids in token_ids]):
        ids, prompts = [token_ids[i] for i in chunk], [rows[i] for i in chunk]
        hidden = _run_decoder(model, states, prompts, ids)
        values = _token_log_probabilities(model, hidden, prompts, ids, end_ids).double().cpu().numpy()
        ends = np.cumsum([len(item) for item in ids])
        for i, part in zip(chunk, np.split(values, ends[:-1]), strict=True):
            results[i] = part
    return [_force_first(model, ids, values) for ids, values in zip(token_ids, results, strict=True)]


def _chunks(rows: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the indices of answers that are decoded together.

    Answers to one prompt are consecutive and of similar length, so that little of a chunk is padding.
    """
    chunk: list[int] = []
    counts: Counter[int] = Counter()
    for i in sorted(range(len(rows)), key=lambda i: (rows[i], lengths[i])):
        counts[rows[i]] += 1
        longest = max(lengths[j] for j in [*chunk, i])
        if chunk and len(counts) * max(counts.values()) * longest > _POSITIONS_PER_PASS:
            yield chunk
            chunk, counts = [], Counter([rows[i]])
        chunk.append(i)
    if chunk:
        yield chunk


def _run_decoder(
    model: Florence2ForConditionalGeneration,
    states: EncodedPrompts,
    rows: Sequence[int],
    answers: Sequence[Sequence[int]],
) -> torch.Tensor:
    """Return the hidden states from which the tokens of all answers are predicted, one answer behind the other: K x d.

    The answers to one prompt lie beside each other in one row of B x A x T tokens. Self-attention takes each answer for
    itself, cross-attention all A x T queries of a row together.
    """
    decoder: Any = model.model.language_model.decoder
    device = states.hidden_states.device
    prompts = sorted(set(rows))
    lanes = [[i for i, row in enumerate(rows) if row == prompt] for prompt in prompts]
    shape = len(prompts), max(map(len, lanes)), max(map(len, answers))
    inputs, places = np.full(shape, text_config(model).pad_token_id), [(0, 0)] * len(answers)
    for b, lane in enumerate(lanes):
        for a, i in enumerate(lane):
            inputs[b, a, : len(answers[i])] = [start_token_id(model), *answers[i][:-1]]
            places[i] = b, a
    input_ids = torch.from_numpy(inputs).to(device).flatten(0, 1)
    hidden_states, mask = states.hidden_states[prompts], states.attention_mask[prompts].bool()
    cross_mask = None if bool(mask.all()) else mask[:, None, None].expand(-1, 1, shape[1] * shape[2], -1)
    positions = decoder.embed_positions
    hidden = decoder.embed_tokens(input_ids) + positions.weight[positions.offset :][: shape[2]]
    hidden = decoder.layernorm_embedding(hidden)
    for layer in decoder.layers:
        attended, _ = layer.self_attn(hidden)  # causal without a mask
        hidden = layer.self_attn_layer_norm(hidden + attended)
        queries = hidden.unflatten(0, shape[:2]).flatten(1, 2)
        attended, _ = layer.encoder_attn(queries, key_value_states=hidden_states, attention_mask=cross_mask)
        hidden = layer.encoder_attn_layer_norm(hidden + attended.reshape(hidden.shape))
        feed_forward = layer.fc2(layer.activation_fn(layer.fc1(hidden)))
        hidden = layer.final_layer_norm(hidden + feed_forward)
    hidden = hidden.unflatten(0, shape[:2])
    return torch.cat([hidden[b, a, : len(ids)] for (b, a), ids in zip(places, answers, strict=True)])


def _token_log_probabilities(
    model: Florence2ForConditionalGeneration,
    hidden: torch.Tensor,
    rows: Sequence[int],
    answers: Sequence[Sequence[int]],
    end_ids: Sequence[int] | None,
) -> torch.Tensor:
    """The log-probabilities of the tokens of answers, K float32, from the K x d hidden states that predict them.

    Answers to one prompt that begin alike share hidden states, which meet the matrix of the vocabulary once.
    """
    prefixes: dict[tuple[int, ...], int] = {}
    distinct, is_last = [], []
    for row, ids in zip(rows, answers, strict=True):
        distinct += [prefixes.setdefault((row, *ids[:t]), len(prefixes)) for t in range(len(ids))]
        is_last += [t == len(ids) - 1 for t in range(len(ids))]
    _, first = np.unique(distinct, return_index=True)
    tokens = torch.tensor([token for ids in answers for token in ids], device=hidden.device)
    values = torch.empty(len(tokens), device=hidden.device)
    for start in range(0, len(first), _POSITIONS_PER_CHUNK):
        chosen = first[start : start + _POSITIONS_PER_CHUNK]
        logits = model.lm_head(hidden[torch.from_numpy(chosen).to(hidden.device)]).float()
        logits[:, model.config.image_token_id] = -torch.inf  # the placeholder of the image is no answer
        log_probabilities = logits.log_softmax(dim=-1)
        places = [i for i, d in enumerate(distinct) if start <= d < start + len(chosen)]
        states = torch.tensor([distinct[i] - start for i in places], device=hidden.device)
        values[places] = log_probabilities[states, tokens[places]]
        if end_ids is not None:
            ends = log_probabilities[:, list(end_ids)].logsumexp(dim=-1)
            is_end = torch.tensor([is_last[i] for i in places], device=hidden.device)
            values[places] = torch.where(is_end, ends[states], values[places])
    return values


def _force_first(model: Florence2ForConditionalGeneration, ids: Sequence[int], values: np.ndarray) -> np.ndarray:
    forced = model.generation_config.forced_bos_token_id
    if forced is not None and len(ids):
        values[0] = 0.0 if ids[0] == forced else -np.inf
    return values
