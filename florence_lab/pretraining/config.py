"""The configuration of florence-2-nano."""

from __future__ import annotations

import math
from typing import Any

from transformers import Florence2Config

IMAGE_SIZE = 256
"""Side of the images in pixels. The vision tower reduces it 16 times, to 16 x 16 image tokens and one for their mean."""

MAX_TOKENS = 512
"""Largest number of tokens of a prompt (image tokens included) and of an answer."""

PATCH_SIZE = 16
"""Side of the image area that one image token stands for, in pixels: the product of the strides of the vision tower."""

BOS_ID, PAD_ID, EOS_ID = 0, 1, 2
"""Ids of BART's `<s>`, `<pad>` and `</s>`. The decoder starts with `</s>`."""

SPECIAL_TOKEN_IDS = {
    "bos_token_id": BOS_ID,
    "pad_token_id": PAD_ID,
    "eos_token_id": EOS_ID,
    "decoder_start_token_id": EOS_ID,
}


def build_config(vocabulary_size: int, image_token_id: int, image_size: int = IMAGE_SIZE) -> Florence2Config:
    """Return the configuration: a DaViT of three stages, and a BART of 4 encoder and 3 decoder layers.

    The attention window is as wide as the map of the last stage, so that no window needs padding.

    Args:
        vocabulary_size: number of tokens.
        image_token_id: id of `<image>`.
        image_size: side of the images in pixels, a multiple of `PATCH_SIZE`.
    """
    d_model = 192
    settings: dict[str, Any] = SPECIAL_TOKEN_IDS | {
        "image_token_id": image_token_id,
        "initializer_range": 0.06,
        "vision_config": {
            "model_type": "florence_vision",
            "embed_dim": [48, 96, 192],
            "depths": [1, 1, 2],
            "num_heads": [2, 4, 6],
            "num_groups": [2, 4, 6],
            "patch_size": [7, 3, 3],
            "patch_stride": [4, 2, 2],
            "patch_padding": [3, 1, 1],
            "patch_prenorm": [False, True, True],
            "window_size": math.ceil(image_size / PATCH_SIZE),
            "projection_dim": d_model,
            "drop_path_rate": 0.0,
            "initializer_range": 0.06,
        },
        "text_config": {
            "model_type": "bart",
            "vocab_size": vocabulary_size,
            "d_model": d_model,
            "encoder_layers": 4,
            "decoder_layers": 3,
            "encoder_ffn_dim": 4 * d_model,
            "decoder_ffn_dim": 4 * d_model,
            "encoder_attention_heads": 6,
            "decoder_attention_heads": 6,
            "max_position_embeddings": MAX_TOKENS,
            "dropout": 0.0,
            "init_std": 0.06,
            "forced_eos_token_id": None,
            **SPECIAL_TOKEN_IDS,
        },
    }
    return Florence2Config(**settings)
