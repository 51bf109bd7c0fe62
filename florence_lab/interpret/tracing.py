"""`trace`: cross-attention and token probabilities of a prediction."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..argument_validation import validate_arguments, validate_fields
from ..exceptions import ArgumentError, shorten
from ..images import load_image
from ..inference.davit import image_token_grid
from ..inference.generation import (
    EncodedImage,
    encode_prompts,
    generate,
    next_token_probabilities,
    resolve_generation_kwargs,
    run_decoder,
)
from ..predictor import Predictor
from ..results import Result
from ..template.locations import Region
from .spans import AnswerSpan, decode_tokens, split_spans, split_words

if TYPE_CHECKING:
    import pandas as pd


class TokenCandidate(NamedTuple):
    """A token that may follow, and its probability, 0..1."""

    token: str
    probability: float


@dataclass(frozen=True, eq=False)
class Trace:
    """A prediction of T tokens with the decoder's cross-attention and probabilities.

    P is the number of positions that the decoder attends to: the mean of the image tokens, rows x columns image tokens, and
    the tokens of the prompt.

    Attributes:
        result: the result, as `Predictor.predict` returns it.
        tokens: T strings, from the first generated token to `</s>`, each with its leading space if it has one.
        probabilities: T float64 in 0..1, the model's probability of each generated token.
        top_tokens: for each token the k most probable candidates, in descending order.
        location_probabilities: T x 1000 float32 in 0..1, the probability of each location token at each position.
        cross_attention: layers x heads x T x P float32; the sum over P is 1.
        token_grid: (rows, columns) of the image tokens; (24, 24) for the published models.
        prompt_tokens: the P - 1 - rows * columns tokens of the prompt.
        spans: the words, boxes and polygons of the answer.
    """

    result: Result
    tokens: tuple[str, ...]
    probabilities: np.ndarray = field(repr=False)
    top_tokens: tuple[tuple[TokenCandidate, ...], ...] = field(repr=False)
    location_probabilities: np.ndarray = field(repr=False)
    cross_attention: np.ndarray = field(repr=False)
    token_grid: tuple[int, int]
    prompt_tokens: tuple[str, ...]
    spans: tuple[AnswerSpan, ...] = field(repr=False)

    def __post_init__(self) -> None:
        validate_fields(self)

    @validate_arguments
    def span(self, query: str | int | AnswerSpan) -> AnswerSpan:
        """Return a span of the answer.

        Args:
            query: consecutive words of the answer (`"sheep"`, `"four sheep"`; the first occurrence), a shape (`"box 1"`), the
                position of one token, 0..T-1, or an `AnswerSpan`, which is returned as it is.

        Raises:
            ValueError: if the answer does not contain the words, or has no such position.
        """
        if isinstance(query, AnswerSpan):
            return query
        if not isinstance(query, str):
            return self._token_span(operator.index(query))
        words = [(word, span) for span in self.spans for word in split_words(span.text)]
        wanted = split_words(query)
        for start in range(len(words) - len(wanted) + 1):
            run = words[start : start + len(wanted)]
            if wanted and [word for word, _ in run] == wanted:
                found = list({id(span): span for _, span in run}.values())
                if len(found) == 1:
                    return replace(found[0], text=query)
                return AnswerSpan("word", query, tuple(position for span in found for position in span.positions))
        known = ", ".join(repr(span.text) for span in self.spans)
        raise ArgumentError(f"no {shorten(query)} in the answer; it contains {known or 'no words'}")

    @validate_arguments
    def attention_map(
        self, span: str | int | AnswerSpan, layer: int | None = None, head: int | None = None
    ) -> np.ndarray:
        """Return the cross-attention of a span to the image tokens, averaged over its tokens: rows x columns float32.

        The sum over the grid is the share of attention on the image. The rest is on the mean of the image tokens and on the
        prompt.

        Args:
            span: see `span`.
            layer, head: index of one layer and head; None averages over all.

        Raises:
            ValueError: as `span`, and for a layer or head that does not exist.
        """
        layers, heads = self.cross_attention.shape[:2]
        selected = self.cross_attention[_as_slice("layer", layer, layers)][:, _as_slice("head", head, heads)]
        attention = selected[:, :, list(self.span(span).positions)].mean(axis=(0, 1, 2))
        rows, columns = self.token_grid
        image_attention: np.ndarray = attention[1 : 1 + rows * columns].reshape(rows, columns)
        return image_attention

    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame with a row for each token.

        Columns: `token`, `probability`, and the shares of attention, averaged over layers and heads, that sum to 1:
        `attention_to_mean_token`, `attention_to_image`, `attention_to_prompt`.
        """
        import pandas as pd

        per_token = self.cross_attention.mean(axis=(0, 1))
        end = 1 + self.token_grid[0] * self.token_grid[1]
        return pd.DataFrame(
            {
                "token": pd.Series(self.tokens, dtype=str),
                "probability": self.probabilities,
                "attention_to_mean_token": per_token[:, 0],
                "attention_to_image": per_token[:, 1:end].sum(axis=1),
                "attention_to_prompt": per_token[:, end:].sum(axis=1),
            }
        )

    def _token_span(self, position: int) -> AnswerSpan:
        if not 0 <= position < len(self.tokens):
            raise ArgumentError(f"no token {position}: the answer has the tokens 0 … {len(self.tokens) - 1}")
        points = [span.points for span in self.spans if position in span.positions]
        return AnswerSpan("token", self.tokens[position].strip(), (position,), points[0] if points else None)


@validate_arguments
@torch.inference_mode()
def trace(
    predictor: Predictor,
    image: Any,
    task: str,
    text: str | Region | None = None,
    top_k: int = 5,
    **generate_kwargs: Any,
) -> Trace:
    """Answer a prompt as `predictor.predict` does, and record cross-attention and probabilities.

    The answer is generated first. One pass of the decoder over the whole answer then gives the attention and probabilities
    of each step, which equal those of generation, as the decoder is causal. Fused attention kernels do not return weights,
    so that pass computes them as a product of matrices; other threads that use the model are not affected. The weights take layers * heads * T * P * 4 bytes: about 70 MB for 100 tokens of a large model.

    Args:
        predictor: the model.
        image, task, text: as in `Predictor.predict`.
        top_k: number of candidates to record for each token, at least 1. This is not the sampling argument of `generate`.
        generate_kwargs: as in `Predictor.predict`. With beams or sampling a generated token may not be the most probable one.

    Raises:
        PromptError, ImageError, ValueError: as `Predictor.predict`, and a ValueError for a `top_k` out of range.
    """
    vocab_size = predictor.model.lm_head.out_features
    if not 1 <= top_k <= vocab_size:
        raise ArgumentError(f"top_k must be 1 to {vocab_size}, got {top_k}")
    model, tokenizer, template = predictor.model, predictor.processor.tokenizer, predictor.template
    kwargs = resolve_generation_kwargs(model, generate_kwargs)
    source = image if isinstance(image, EncodedImage) else load_image(image)
    prompt = predictor.build_prompt(source.size, task, text)
    constraint = predictor.constraints.processor([prompt], kwargs)
    encoded = predictor.encode_image(source)
    states = encode_prompts(model, tokenizer, encoded.tokens, [prompt.prompt])

    score_rows = [0] if prompt.task.result != "text" else []
    (generation,) = generate(
        model,
        states,
        kwargs,
        location_ids=template.location_ids,
        score_rows=score_rows,
        constraint=constraint,
    )
    hidden_states, attention = run_decoder(model, generation.token_ids, states, output_attentions=True)
    assert attention is not None

    ids = generation.token_ids.tolist()
    probabilities, locations, top_tokens = _token_probabilities(predictor, hidden_states, generation.token_ids, top_k)
    return Trace(
        result=template.parse(ids, prompt, encoded.size, generation.probabilities, encoded.image),
        tokens=tuple(decode_tokens(tokenizer, ids)),
        probabilities=probabilities,
        top_tokens=top_tokens,
        location_probabilities=locations,
        cross_attention=attention.cpu().numpy(),
        token_grid=image_token_grid(model, predictor.processor),
        prompt_tokens=tuple(decode_tokens(tokenizer, tokenizer(prompt.prompt).input_ids)),
        spans=tuple(split_spans(tokenizer, ids, template.split_tokens(ids), prompt, encoded.size)),
    )


def _token_probabilities(
    predictor: Predictor, hidden_states: torch.Tensor, token_ids: torch.Tensor, top_k: int
) -> tuple[np.ndarray, np.ndarray, tuple[tuple[TokenCandidate, ...], ...]]:
    """The probabilities of the T generated tokens, of all location tokens, and of the top candidates."""
    location_ids = predictor.template.location_ids
    generated, locations = [], []
    candidates: list[tuple[TokenCandidate, ...]] = []
    for probabilities in next_token_probabilities(predictor.model, hidden_states):
        ids = token_ids[len(candidates) : len(candidates) + len(probabilities)]
        generated.append(probabilities.gather(1, ids[:, None])[:, 0].cpu().double().numpy())
        locations.append(probabilities[:, location_ids.start : location_ids.stop].cpu().numpy())
        for values, best in zip(*probabilities.topk(top_k), strict=True):
            texts = decode_tokens(predictor.processor.tokenizer, best)
            candidates.append(tuple(map(TokenCandidate, texts, values.tolist())))
    return np.concatenate(generated), np.concatenate(locations), tuple(candidates)


def _as_slice(name: str, index: int | None, count: int) -> slice:
    if index is None:
        return slice(None)
    if not 0 <= index < count:
        raise ArgumentError(f"no {name} {index}: the decoder has the {name}s 0 … {count - 1}")
    return slice(index, index + 1)
