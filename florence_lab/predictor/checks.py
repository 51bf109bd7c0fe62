"""Checks of what a predictor is given, and of what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..exceptions import ArgumentError, PromptError, warn
from ..inference.generation import EncodedImage, max_prompt_tokens, text_config
from ..results import Result
from ..template.prompts import Prompt


def check_prompt_length(
    prompt: Prompt, model: Florence2ForConditionalGeneration, processor: Florence2Processor
) -> Prompt:
    """Return a prompt that fits beside the image tokens.

    Raises:
        PromptError: for one that is too long for the model.
    """
    length = len(processor.tokenizer(prompt.prompt, verbose=False).input_ids)
    limit = max_prompt_tokens(model, processor.num_image_tokens)
    if length > limit:
        raise PromptError(f"the prompt has {length} tokens; the model accepts at most {limit} besides the image")
    return prompt


def check_image_tokens(
    image: EncodedImage, model: Florence2ForConditionalGeneration, processor: Florence2Processor, name: str
) -> EncodedImage:
    """Return an image whose tokens are of the given model.

    Raises:
        ArgumentError: for image tokens of another model, and for values that are not finite.
    """
    shape = (1, processor.num_image_tokens, text_config(model).d_model)
    for attribute, expected, actual in (
        ("shape", shape, tuple(image.tokens.shape)),
        ("dtype", model.dtype, image.tokens.dtype),
        ("device", model.device, image.tokens.device),
    ):
        if actual != expected:
            raise ArgumentError(
                f"{name} expects image tokens of {attribute} {expected}, got {actual}; the image was encoded by another model"
            )
    if not bool(image.tokens.isfinite().all()):
        raise ArgumentError("the image tokens contain values that are not finite")
    return image


def warn_if_truncated(results: Sequence[Result], kwargs: dict[str, Any]) -> bool:
    """Warn of answers that the limit of length or time ended, and return whether there are any."""
    count = sum(result.truncated for result in results)
    if count:
        answers = "the answer is" if len(results) == 1 else f"{count} of {len(results)} answers are"
        limit = "" if kwargs.get("max_time") is None else f" or max_time={kwargs['max_time']:g}"
        warn(f"{answers} truncated at max_new_tokens={kwargs['max_new_tokens']}{limit}; see `result.truncated`")
    return count > 0
