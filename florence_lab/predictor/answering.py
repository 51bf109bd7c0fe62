"""From encoded images and prompts to results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..inference import generation
from ..inference.generation import EncodedImage, EncodedPrompts
from ..results import Result
from ..template.prompts import Prompt
from .core import PredictorCore


def answer_prompts(
    predictor: PredictorCore, images: Sequence[EncodedImage], prompts: Sequence[Prompt], kwargs: dict[str, Any]
) -> list[Result]:
    """Answer pairs of an encoded image and a prompt together.

    Args:
        predictor: the model.
        images: B images.
        prompts: B prompts.
        kwargs: see `generation.resolve_generation_kwargs`.
    """
    states = encode_prompts(predictor, images, prompts)
    score_rows = {row for row, prompt in enumerate(prompts) if prompt.task.result != "text"}
    constraint = predictor.constraints.processor(prompts, kwargs)
    generations = generation.generate(
        predictor.model,
        states,
        kwargs,
        location_ids=predictor.template.location_ids,
        score_rows=score_rows,
        constraint=constraint,
    )
    return [
        predictor.template.parse(
            g.token_ids.tolist(), prompt, image.size, g.probabilities, image.image, truncated=g.is_truncated
        )
        for g, prompt, image in zip(generations, prompts, images, strict=True)
    ]


def encode_prompts(
    predictor: PredictorCore, images: Sequence[EncodedImage], prompts: Sequence[Prompt]
) -> EncodedPrompts:
    """Run the text encoder on pairs of an encoded image and a prompt."""
    image_tokens = torch.cat([image.tokens for image in images])
    return generation.encode_prompts(
        predictor.model, predictor.processor.tokenizer, image_tokens, [prompt.prompt for prompt in prompts]
    )
