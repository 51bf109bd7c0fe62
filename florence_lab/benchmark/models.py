"""Models to measure: checkpoints that are on this machine, or random weights in the published sizes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor

from ..exceptions import unknown_name
from ..loading.checkpoint import load_checkpoint
from ..loading.hub import find_cached
from ..loading.processor import build_processor
from ..loading.published import POST_PROCESSOR_CONFIG

_IMAGE_SIZE = 768
_NUM_IMAGE_TOKENS = 577


def _text_config(d_model: int, num_layers: int, max_positions: int) -> dict[str, Any]:
    per_stack = {"layers": num_layers, "attention_heads": d_model // 64, "ffn_dim": 4 * d_model}
    stacks = {f"{stack}_{name}": value for stack in ("encoder", "decoder") for name, value in per_stack.items()}
    size = {"vocab_size": 51290, "d_model": d_model, "max_position_embeddings": max_positions}
    return {"model_type": "bart"} | size | stacks


_LARGE_VISION = {"embed_dim": [256, 512, 1024, 2048], "num_heads": [8, 16, 32, 64], "num_groups": [8, 16, 32, 64]}

SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "florence-2-base": ({"projection_dim": 768}, _text_config(768, 6, 1024)),
    "florence-2-large": ({"projection_dim": 1024} | _LARGE_VISION, _text_config(1024, 12, 4096)),
}
"""Vision and text configurations of the published sizes, from their config.json; other fields have transformers' defaults."""


def build_model(model_type: str) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """Return a model in fp32 on the CPU and its processor. Its answers do not end at `</s>`, only at `max_new_tokens`.

    Args:
        model_type: one of `available_models()`, a folder or a hub id. A checkpoint that is not on this machine is replaced by
            random weights of its size.

    Raises:
        ValueError: for a checkpoint that is not on this machine and not of a published size.
    """
    check_size(model_type)
    folder = find_cached(model_type)
    model, processor = load_checkpoint(folder) if folder else _build_random(model_type.removesuffix("-ft"))
    # generate warns of a sequence without `</s>` that stops at max_new_tokens, which is intended here
    model.generation_config.update(num_beams=1, early_stopping=False, eos_token_id=None, forced_eos_token_id=None)
    return model, processor


def check_size(model_type: str) -> None:
    """Verify that `build_model` has a checkpoint or a published size for a name.

    Raises:
        ValueError: if it has neither.
    """
    size = model_type.removesuffix("-ft")
    if not find_cached(model_type) and size not in SIZES:
        raise ValueError(unknown_name("size of a model that is not on this machine", size, SIZES))


def _build_random(size: str) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    shipped = find_cached("florence-2-nano")
    assert shipped is not None  # it is part of the package
    _, nano = load_checkpoint(shipped)  # its tokenizer does not affect timing
    images = build_processor(nano.tokenizer, _IMAGE_SIZE).image_processor
    images.image_seq_length = _NUM_IMAGE_TOKENS
    processor = Florence2Processor(
        images, nano.tokenizer, num_additional_image_tokens=0, post_processor_config=POST_PROCESSOR_CONFIG
    )
    vision, text = SIZES[size]
    torch.manual_seed(0)
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=processor.image_token_id)
    model = Florence2ForConditionalGeneration(config).eval()
    model.generation_config.update(decoder_start_token_id=2, forced_bos_token_id=0, pad_token_id=1)
    return model, processor
