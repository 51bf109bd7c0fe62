"""TODO"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration

from .davit import DAVIT_ATTENTION, register_davit_attention
from .decoding import LANGUAGE_ATTENTION, register_language_attention

DEFAULT_MAX_NEW_TOKENS = 1024

UNSUPPORTED_GENERATE_KWARGS = ("num_return_sequences", "return_dict_in_generate")
"""What makes transformers' `generate` return something else than one sequence per question."""

_SCORED_AT_ONCE = 128  # positions: 51,290 logits each, so 26 MB in float32


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A picture after the vision tower; ask as many questions of it as you like.

    Attributes:
        image: upright RGB, at its own size.
        tokens: 1 x 577 x d_model (577 for the published models), on the model's device.
    """

    image: Image.Image
    tokens: torch.Tensor = field(repr=False)


def prepare_model(model: Florence2ForConditionalGeneration) -> Florence2ForConditionalGeneration:
    """Select florence_lab's attention functions in a model and return it. Idempotent."""
    register_davit_attention()
    register_language_attention()
    model.set_attn_implementation({"vision_config": DAVIT_ATTENTION, "text_config": LANGUAGE_ATTENTION})
    return model


def size_of(picture: Image.Image | EncodedImage) -> tuple[int, int]:
    return picture.image.size if isinstance(picture, EncodedImage) else picture.size
