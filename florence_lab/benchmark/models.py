"""TODO"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor

from ..exceptions import unknown_name
from ..inference.davit import DAVIT_ATTENTION
from ..inference.decoding import LANGUAGE_ATTENTION
from ..loading.checkpoint import load_checkpoint
from ..loading.hub import find_cached
from ..loading.published import POST_PROCESSOR_CONFIG


def _text_config(width: int, layers: int, positions: int) -> dict[str, Any]:
    sides = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in _parts(width, layers).items()}
    return {"model_type": "bart", "vocab_size": 51290, "d_model": width, "max_position_embeddings": positions} | sides


def _parts(width: int, layers: int) -> dict[str, int]:
    return {"layers": layers, "attention_heads": width // 64, "ffn_dim": 4 * width}


_LARGE = {"embed_dim": [256, 512, 1024, 2048], "num_heads": [8, 16, 32, 64], "num_groups": [8, 16, 32, 64]}

SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "florence-2-base": ({"projection_dim": 768}, _text_config(768, 6, 1024)),
    "florence-2-large": ({"projection_dim": 1024} | _LARGE, _text_config(1024, 12, 4096)),
}
"""Vision and text config of the published sizes, as their config.json has them; what is left out is transformers' default."""


def build(model_type: str) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """A model in fp32 and its processor: the checkpoint, if it is at hand, else random weights of its size.

    Raises:
        ValueError: for a model that is neither at hand nor of a known size.
    """
    folder = find_cached(model_type)
    model, processor = load_checkpoint(folder) if folder else _random(model_type.removesuffix("-ft"))
    # generate's own warnings about an end that never comes are about nothing here
    model.generation_config.update(num_beams=1, early_stopping=False, eos_token_id=None, forced_eos_token_id=None)
    return model, processor


def _random(size: str) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    from ..loading.checkpoint import build_processor

    if size not in SIZES:
        raise ValueError(unknown_name("size of a model that is not at hand", size, SIZES))
    _, nano = load_checkpoint(find_cached("florence-2-nano"))  # its words: which ones they are makes no difference
    images = build_processor(nano.tokenizer, 768).image_processor
    images.image_seq_length = 577
    processor = Florence2Processor(
        images, nano.tokenizer, num_additional_image_tokens=0, post_processor_config=POST_PROCESSOR_CONFIG
    )
    vision, text = SIZES[size]
    torch.manual_seed(0)
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=processor.image_token_id)
    model = Florence2ForConditionalGeneration(config).eval()
    model.set_attn_implementation({"vision_config": DAVIT_ATTENTION, "text_config": LANGUAGE_ATTENTION})
    model.generation_config.update(decoder_start_token_id=2, forced_bos_token_id=0, pad_token_id=1)
    return model, processor
