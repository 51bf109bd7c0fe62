"""TODO"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..images import load_image
from ..inference.davit import image_token_grid
from ..inference.generation import (
    EncodedImage,
    attention_implementation,
    encode_prompts,
    generate,
    next_token_probabilities,
    resolve_generation_kwargs,
    run_decoder,
)
from ..results import Result
from ..template.locations import Region
from .spans import _SENTENCE_MARKS, AnswerSpan, _parts, token_texts

if TYPE_CHECKING:
    import pandas as pd

    from ..predictor import Predictor

_NEAR_BINS = 40  # location bins shown on either side of a coordinate's likely ones


class TokenCandidate(NamedTuple):
    """One token that could stand at a place, and its probability there, 0..1."""

    token: str
    probability: float


@dataclass(frozen=True, eq=False)
class Trace:
    """An answer of T tokens, with what happened inside while it was written.

    P below is the number of encoder positions: 1 token for the picture's mean, rows x columns tokens of the picture, then
    the tokens of the prompt.

    Attributes:
        result: the answer, as `predict` gives it.
        tokens: T strings, from the first generated token to `</s>`, as they are in the vocabulary but with plain spaces.
        probabilities: T float64 in 0..1, the model's own for the token that stands there.
        choices: per token the k most probable ones, the most probable first.
        locations: T x 1000 float32, the probability of each location token at that place.
        attention: layers x heads x T x P float32, the decoder's cross-attention; every row of P sums to 1.
        grid: (rows, columns) of the picture's tokens: (24, 24) in the published models.
        prompt_tokens: the P - 1 - rows * columns tokens of the prompt.
        parts: the answer's words and boxes, for people to point at.
    """

    result: Result
    tokens: tuple[str, ...]
    probabilities: np.ndarray = field(repr=False)
    choices: tuple[tuple[TokenCandidate, ...], ...] = field(repr=False)
    locations: np.ndarray = field(repr=False)
    attention: np.ndarray = field(repr=False)
    grid: tuple[int, int]
    prompt_tokens: tuple[str, ...]
    parts: tuple[AnswerSpan, ...] = field(repr=False)

    def find(self, of: str | int | AnswerSpan) -> AnswerSpan:
        """The part of the answer that is meant.

        Args:
            of: words of the answer (`"sheep"`, `"four sheep"`; the first place where they stand), a box (`"box 1"`), the
                position of one token, 0..T-1, or a `AnswerSpan`, which comes back as it is.

        Raises:
            ValueError: if the answer has no such words, with the ones it has; or no such position.
        """
        if isinstance(of, AnswerSpan):
            return of
        if isinstance(of, int):
            if not 0 <= of < len(self.tokens):
                raise ValueError(f"no token {of}: this answer has the tokens 0 … {len(self.tokens) - 1}")
            outlines = [part.outline for part in self.parts if of in part.positions]
            return AnswerSpan(self.tokens[of].strip(), (of,), outlines[0] if outlines else None)
        words = [(word, part) for part in self.parts for word in _words(part.name)]
        wanted = _words(of)
        for start in range(len(words) - len(wanted) + 1):
            run = words[start : start + len(wanted)]
            if wanted and [word for word, _ in run] == wanted:
                found = list({id(part): part for _, part in run}.values())
                positions = tuple(position for part in found for position in part.positions)
                return AnswerSpan(of, positions, found[0].outline if len(found) == 1 else None)
        names = ", ".join(repr(part.name) for part in self.parts)
        raise ValueError(f"no {of!r} in the answer, which has {names or 'no words'}")

    def heat(self, of: str | int | AnswerSpan, layer: int | None = None, head: int | None = None) -> np.ndarray:
        """Where the decoder looked while it wrote something: rows x columns float32, parts of its attention.

        The sum over the grid is the share of attention that went to the picture; the rest went to the picture's mean token
        and to the prompt.

        Args:
            of: as in `find`; of several tokens the mean is taken.
            layer, head: one of them, counted from 0; None is the mean over all.

        Raises:
            ValueError: as `find`; or if there is no such layer or head.
        """
        layers, heads = self.attention.shape[:2]
        chosen = self.attention[_one_or_all("layer", layer, layers)][:, _one_or_all("head", head, heads)]
        at = chosen[:, :, list(self.find(of).positions)].mean(axis=(0, 1, 2))
        return at[1 : 1 + self.grid[0] * self.grid[1]].reshape(self.grid)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per token: `token`, `probability`, and how its attention was shared out, in parts of 1.

        `on_mean`: on the token that is the picture's mean; `on_picture`: on its grid; `on_prompt`: on the prompt's tokens.
        """
        import pandas as pd

        per_token = self.attention.mean(axis=(0, 1))
        cells = self.grid[0] * self.grid[1]
        return pd.DataFrame(
            {
                "token": pd.Series(self.tokens, dtype=str),
                "probability": self.probabilities,
                "on_mean": per_token[:, 0],
                "on_picture": per_token[:, 1 : 1 + cells].sum(axis=1),
                "on_prompt": per_token[:, 1 + cells :].sum(axis=1),
            }
        )


def _words(text: str) -> list[str]:
    return [word for word in (w.strip(_SENTENCE_MARKS) for w in text.casefold().split()) if word]


def _one_or_all(what: str, index: int | None, count: int) -> slice:
    if index is None:
        return slice(None)
    if not 0 <= index < count:
        raise ValueError(f"no {what} {index}: this decoder has the {what}s 0 … {count - 1}")
    return slice(index, index + 1)


@torch.inference_mode()
def trace(
    predictor: Predictor, image: Any, task: str, text: str | Region | None = None, top: int = 5, **generation: Any
) -> Trace:
    """Answers a question as `predictor.predict` does, and keeps what happened inside.

    The answer is generated first. One parallel pass of the decoder over the whole of it then gives the attention and the
    probabilities of every step: the decoder sees only what stands before a token, so they are those of generation. For
    that pass the decoder computes its attention step by step (transformers' `eager`), because faster ways never hold the
    weights in memory; afterwards it is as it was. The weights take layers * heads * T * P * 4 bytes: some 70 MB for
    100 tokens of a large model.

    Args:
        predictor, image, task, text: as in `Predictor.predict`.
        top: how many alternatives to keep for every token, at least 1.
        generation: as in `Predictor.predict`. With beams or sampling the token that stands there may not be the most
            probable one.

    Raises:
        ValueError, ImageError: as in `Predictor.predict`; ValueError also for `top` below 1.
    """
    if top < 1:
        raise ValueError(f"top={top}: keep at least 1 choice for every token")
    model, tokenizer = predictor.model, predictor.processor.tokenizer
    kwargs = resolve_generation_kwargs(model, generation)
    source = image if isinstance(image, EncodedImage) else load_image(image)
    prompt = predictor.build_prompt(source.size, task, text)
    encoded = predictor.encode_image(source)
    states = encode_prompts(model, tokenizer, encoded.tokens, [prompt.prompt])

    location_ids = predictor.template.location_ids
    scored = [0] if prompt.task.result != "text" else []
    (generated,) = generate(model, states, kwargs, location_ids=location_ids, score_rows=scored)
    ids = generated.token_ids
    with attention_implementation(model.model.language_model, "eager"):
        hidden_states, attention = run_decoder(model, ids, states, output_attentions=True)
    assert attention is not None
    result = predictor.template.parse(ids.tolist(), prompt, encoded.size, generated.probabilities, encoded.image)
    probabilities, locations, choices = _probabilities(predictor, hidden_states, ids, top)
    prompt_ids = tokenizer(prompt.prompt).input_ids
    return Trace(
        result=result,
        tokens=tuple(token_texts(predictor, ids)),
        probabilities=probabilities,
        choices=choices,
        locations=locations,
        attention=attention.cpu().numpy(),
        grid=image_token_grid(model, predictor.processor),
        prompt_tokens=tuple(token_texts(predictor, prompt_ids)),
        parts=tuple(_parts(predictor, ids.tolist(), result)),
    )


def _probabilities(
    predictor: Predictor, hidden: torch.Tensor, ids: torch.Tensor, top: int
) -> tuple[np.ndarray, np.ndarray, tuple[tuple[TokenCandidate, ...], ...]]:
    """The probabilities of the T tokens that stand there, of all location tokens, and of the `top` best ones."""
    location_ids = predictor.template.location_ids
    chosen, locations, choices = [], [], []
    for some in next_token_probabilities(predictor.model, hidden):
        here = ids[len(choices) : len(choices) + len(some)]
        chosen.append(some.gather(1, here[:, None])[:, 0].cpu().double().numpy())
        locations.append(some[:, location_ids.start : location_ids.stop].cpu().numpy())
        for best, best_ids in zip(*some.topk(top), strict=True):
            names = token_texts(predictor, best_ids)
            choices.append(tuple(map(TokenCandidate, names, best.tolist())))
    return np.concatenate(chosen), np.concatenate(locations), tuple(choices)
