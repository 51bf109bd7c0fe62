"""Generation of one sequence, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import Florence2ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from ..template.confidence import TokenProbabilities
from .decoding import TokenScoreRecorder, stream_search
from .generation import EncodedPrompts, generation_errors


@dataclass(frozen=True)
class StreamStep:
    """The state of a growing sequence.

    Attributes:
        token_ids: all tokens so far, without the start token. The list grows with the next step.
        is_final: whether the sequence is complete.
    """

    token_ids: list[int]
    is_final: bool
    _recorder: TokenScoreRecorder | None

    @property
    def probabilities(self) -> TokenProbabilities | None:
        """The probabilities of the tokens; None if they were not requested."""
        return self._recorder.probabilities(0) if self._recorder else None


def stream(
    model: Florence2ForConditionalGeneration,
    encoded: EncodedPrompts,
    generate_kwargs: Mapping[str, Any],
    location_ids: range | None = None,
) -> Iterator[StreamStep]:
    """Generate one sequence and yield after each token.

    Args:
        model: the model.
        encoded: one encoded prompt.
        generate_kwargs: see `resolve_generation_kwargs`; `num_beams` must be 1.
        location_ids: token ids of the location tokens, if probabilities are wanted.
    """
    recorder = None
    if location_ids is not None:
        recorder = TokenScoreRecorder([0], location_ids, model.config.image_token_id)
    with torch.inference_mode(), generation_errors(generate_kwargs):
        tokens = model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded.hidden_states),
            attention_mask=encoded.attention_mask,
            custom_generate=partial(stream_search, on_step=recorder),
            **generate_kwargs,
        )
    token_ids: list[int] = []
    for token, is_final in tokens:
        token_ids.append(token)
        yield StreamStep(token_ids, is_final, recorder)
