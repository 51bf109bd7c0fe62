"""TODO"""

from __future__ import annotations

import math

from transformers import Florence2Config

IMAGE_MEAN, IMAGE_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


IMAGE_SIZE = 256
"""Pixels a side. The tower shrinks them 16 times: 16 x 16 image tokens, and one more for the mean of all."""

MAX_TOKENS = 512
"""The longest prompt (image tokens included) and the longest answer."""

PAD, END = 1, 2
"""BART's `<pad>` and `</s>`."""


def build_config(vocabulary: int, image_token_id: int, image_size: int = IMAGE_SIZE) -> Florence2Config:
    """The small config: a DaViT of three stages (window as wide as the last one, so no window is padded), BART 4 + 3."""
    width, vision = 192, [48, 96, 192]
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    return Florence2Config(
        vision_config={
            "model_type": "florence_vision",
            "embed_dim": vision,
            "depths": [1, 1, 2],
            "num_heads": [2, 4, 6],
            "num_groups": [2, 4, 6],
            "patch_size": [7, 3, 3],
            "patch_stride": [4, 2, 2],
            "patch_padding": [3, 1, 1],
            "patch_prenorm": [False, True, True],
            "window_size": math.ceil(image_size / 16),
            "projection_dim": width,
            "drop_path_rate": 0.0,
            "initializer_range": 0.06,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": vocabulary,
            "d_model": width,
            "encoder_layers": 4,
            "decoder_layers": 3,
            "encoder_ffn_dim": 4 * width,
            "decoder_ffn_dim": 4 * width,
            "encoder_attention_heads": 6,
            "decoder_attention_heads": 6,
            "max_position_embeddings": MAX_TOKENS,
            "dropout": 0.0,
            "init_std": 0.06,
            "forced_eos_token_id": None,
            **special,
        },
        image_token_id=image_token_id,
        initializer_range=0.06,
        **special,
    )
