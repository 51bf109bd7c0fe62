"""The published layout of a Florence-2 checkpoint as tables: the names of its weights and the fields of its config.

Facts taken from the published checkpoints (`microsoft/Florence-2-*`) and from transformers' Florence-2.
"""

from __future__ import annotations

import re
from typing import Any

from ..template.vocabulary import NOT_GROUNDABLE

# transformers' name -> the published name, applied in this order
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^model\.multi_modal_projector\.image_projection\.weight$", "image_projection"),
        (r"^model\.multi_modal_projector\.image_position_embed\.", "image_pos_embed."),
        (r"^model\.multi_modal_projector\.", ""),
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.vision_tower\.", "vision_tower."),
        (r"(convs\.\d+)\.conv\.", r"\1.proj."),
        (r"_block\.conv(\d)\.", r"_block.conv\1.fn.dw."),
        (r"(window|channel)_attn\.", r"\1_attn.fn."),
        (r"spatial_block\.norm1\.", "spatial_block.window_attn.norm."),
        (r"channel_block\.norm1\.", "channel_block.channel_attn.norm."),
        (r"_block\.norm2\.", "_block.ffn.norm."),
        (r"\.ffn\.fc(\d)\.", r".ffn.fn.net.fc\1."),
    )
)

# The token embeddings, which are stored once or up to four times.
EMBEDDINGS = (
    "language_model.model.shared.weight",
    "language_model.model.encoder.embed_tokens.weight",
    "language_model.model.decoder.embed_tokens.weight",
    "language_model.lm_head.weight",
)

TIED_EMBEDDINGS = (
    "model.language_model.encoder.embed_tokens.weight",
    "model.language_model.decoder.embed_tokens.weight",
)

VOCABULARY_MODULES = {name.removesuffix(".weight") for name in TIED_EMBEDDINGS} | {
    "lm_head",
    "model.language_model.shared",
}
"""transformers' names of the modules that share the token embeddings."""

LOGITS_BIAS = "language_model.final_logits_bias"

# Fields for which the published code supports other values, but transformers' Florence-2 does not.
SUPPORTED_VALUES = {
    ("vision_config", "image_feature_source"): ["spatial_avg_pool", "temporal_avg_pool"],
    ("vision_config", "visual_temporal_embedding", "type"): "COSINE",
    ("vision_config", "image_pos_embed", "type"): "learned_abs_2d",
}

VISION_FIELDS = (
    *("depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm", "num_heads", "num_groups"),
    *("window_size", "drop_path_rate", "projection_dim"),
)

TEXT_FIELDS = (
    *("d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"),
    *("encoder_ffn_dim", "decoder_ffn_dim", "encoder_layerdrop", "decoder_layerdrop", "activation_function", "dropout"),
    *("attention_dropout", "activation_dropout", "init_std", "scale_embedding", "max_position_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id"),
)

# Fields that determine the shape of the model. The other defaults of the published code are those of BART.
REQUIRED_FIELDS = {
    "vision_config": tuple(
        "depths patch_size patch_stride patch_padding patch_prenorm num_heads num_groups window_size projection_dim "
        "visual_temporal_embedding image_pos_embed".split()
    ),
    "vision_config.visual_temporal_embedding": ("max_temporal_embeddings",),
    "vision_config.image_pos_embed": ("max_pos_embeddings",),
    "text_config": ("vocab_size", "d_model"),
}

GENERATION_FIELDS = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id"),
    *("forced_eos_token_id", "no_repeat_ngram_size", "num_beams", "early_stopping"),
)

# Token ids of all Florence-2 models, for checkpoints whose files do not state them.
DEFAULT_TOKEN_IDS = {
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
}

# Required by transformers' `Florence2Processor.post_process_generation`.
POST_PROCESSOR_CONFIG: dict[str, dict[str, Any]] = {
    "pure_text": {},
    "description_with_bboxes": {},
    "bboxes": {},
    "polygons": {},
    "description_with_bboxes_or_polygons": {},
    "ocr": {"AREA_THRESHOLD": 0.0},
    "phrase_grounding": {"banned_grounding_tokens": sorted(NOT_GROUNDABLE)},
}


def published_name(name: str) -> str:
    """Return the name of a weight in the published layout, given its name in transformers."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name
