"""Generation of one sequence, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import Florence2ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from ..results import Instances, Result, Text
from ..template.confidence import TokenProbabilities
from ..template.parsing import drop_incomplete
from ..template.prompts import Prompt
from ..template.template import FlorenceTemplate
from .constraints import ConstraintProcessor, generation_arguments
from .decoding import TokenScoreRecorder, stream_search
from .generation import EncodedImage, EncodedPrompts, generation_errors, is_truncated
from .graphs import GraphCache, decoder_modules
from .static_generation import static_stream


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
    constraint: ConstraintProcessor | None = None,
    graphs: GraphCache | None = None,
) -> Iterator[StreamStep]:
    """Generate one sequence and yield after each token.

    Args:
        model: the model.
        encoded: one encoded prompt.
        generate_kwargs: see `resolve_generation_kwargs`; `num_beams` must be 1.
        location_ids: token ids of the location tokens, if probabilities are wanted.
        constraint: restricts the answer.
        graphs: keeps graphs, which take the place of the decoder where they can.
    """
    recorder = None
    if location_ids is not None:
        recorder = TokenScoreRecorder([0], location_ids, model.config.image_token_id)
    with torch.inference_mode(), generation_errors(generate_kwargs):
        search: Any = partial(stream_search, on_step=recorder)
        if graphs is not None and graphs.is_usable(*decoder_modules(model)):
            search = partial(static_stream, graphs=graphs, on_step=recorder)
        tokens = model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded.hidden_states),
            attention_mask=encoded.attention_mask,
            custom_generate=search,
            **generation_arguments(generate_kwargs, constraint),
        )
    token_ids: list[int] = []
    for token, is_final in tokens:
        token_ids.append(token)
        yield StreamStep(token_ids, is_final, recorder)


def stream_results(
    model: Florence2ForConditionalGeneration,
    template: FlorenceTemplate,
    image: EncodedImage,
    encoded: EncodedPrompts,
    prompt: Prompt,
    generate_kwargs: Mapping[str, Any],
    constraint: ConstraintProcessor | None = None,
    graphs: GraphCache | None = None,
) -> Iterator[Result]:
    """Generate one answer and yield growing results: each word of a text, each instance after its last coordinate.

    Args:
        model: the model.
        template: parses the answer.
        image: the image.
        encoded: the encoded prompt.
        prompt: the prompt.
        generate_kwargs: see `resolve_generation_kwargs`; `num_beams` must be 1.
        constraint: restricts the answer.
        graphs: see `stream`.
    """
    is_text = prompt.task.result == "text"
    num_shown = 0
    location_ids = None if is_text else template.location_ids
    for step in stream(model, encoded, generate_kwargs, location_ids, constraint, graphs):
        if not is_text and not step.is_final and step.token_ids[-1] not in template.vocabulary.markup:
            continue  # only a location or a separator completes an instance
        truncated = step.is_final and is_truncated(
            model,
            torch.tensor(step.token_ids, device=model.device),
            encoded,
            generate_kwargs,
            constraint.restart(0) if constraint else None,
        )
        result = template.parse(step.token_ids, prompt, image.size, image=image.image, truncated=truncated)
        if not step.is_final:
            result = drop_incomplete(result)
            if _progress(result) <= num_shown:
                continue
        num_shown = _progress(result)
        if isinstance(result, Instances):
            scored = template.parse(step.token_ids, prompt, image.size, step.probabilities, image.image, truncated)
            assert isinstance(scored, Instances)
            result = scored[:num_shown]
        yield result


def _progress(result: Result) -> int:
    """The size of a growing result: characters, or instances."""
    if isinstance(result, Text):
        return len(result.text)
    return len(result) if isinstance(result, Instances) else 0
