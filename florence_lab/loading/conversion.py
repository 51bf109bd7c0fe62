"""Conversion of a checkpoint in the published layout to transformers' Florence-2, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import BartConfig, Florence2Config, Florence2ForConditionalGeneration, GenerationConfig

from ..exceptions import CheckpointError, shorten, warn
from .checks import check_generation_settings
from .published import (
    DEFAULT_TOKEN_IDS,
    EMBEDDINGS,
    GENERATION_FIELDS,
    LOGITS_BIAS,
    REQUIRED_FIELDS,
    SUPPORTED_VALUES,
    TEXT_FIELDS,
    TIED_EMBEDDINGS,
    VISION_FIELDS,
    published_name,
)
from .weights import (
    INVALID_VALUES,
    MISMATCHED_SHAPES,
    MISSING_KEYS,
    UNEXPECTED_KEYS,
    check_names,
    is_finite,
    iter_weights,
)

# Without these no answer can be generated.
_COMPLETE_FIELDS = {"decoder_start_token_id", "eos_token_id", "pad_token_id"}


def is_published_layout(config: Mapping[str, Any]) -> bool:
    """Return whether a config is in the published layout, whose vision config has `dim_embed` in place of `embed_dim`."""
    return "dim_embed" in config["vision_config"]


def load_published(
    folder: Path, config: Florence2Config, weights: list[Path], vocab_size: int, dtype: torch.dtype
) -> Florence2ForConditionalGeneration:
    """Load the weights of a checkpoint in the published layout into transformers' Florence-2.

    Args:
        folder: the checkpoint.
        config: its config in transformers' layout, see `convert_config`.
        weights: its weight files.
        vocab_size: rows of the stored embeddings.
        dtype: of the loaded weights.

    Raises:
        CheckpointError: for missing, unexpected or mismatched weights.
    """
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(config)
    state = _convert_state(folder, weights, model, vocab_size, dtype)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    return model


def convert_config(folder: Path, config: Mapping[str, Any], image_token_id: int) -> Florence2Config:
    """Return a config of the published layout in transformers' layout.

    Args:
        folder: the checkpoint, for messages.
        config: its `config.json`, checked.
        image_token_id: id of `<image>`, which the published vocabulary lacks.

    Raises:
        CheckpointError: if it lacks a field, or has a value that transformers' Florence-2 does not support.
    """
    vision, text = config["vision_config"], config["text_config"]
    parts = {"vision_config": vision, "text_config": text}
    for part, names in REQUIRED_FIELDS.items():
        parent, _, key = part.partition(".")
        values = parts[parent].get(key, {}) if key else parts[parent]
        missing = [name for name in names if name not in values]
        if missing:
            raise CheckpointError(f"{folder}/config.json lacks {', '.join(f'{part}.{name}' for name in missing)}")
    for path, supported in SUPPORTED_VALUES.items():
        value: Any = config
        for key in path:
            value = value.get(key, supported) if isinstance(value, dict) else supported
        if value != supported:
            raise CheckpointError(
                f"{folder}/config.json has {'.'.join(path)} = {shorten(value)}; only {supported!r} is supported"
            )
    special_ids: dict[str, Any] = {
        "bos_token_id": config.get("bos_token_id", 0),
        "eos_token_id": config.get("eos_token_id", 2),
        "pad_token_id": config.get("pad_token_id", 1),
    }
    return Florence2Config(
        vision_config={name: vision[name] for name in VISION_FIELDS if name in vision}
        | {
            "embed_dim": vision["dim_embed"],
            "max_temporal_embeddings": vision["visual_temporal_embedding"]["max_temporal_embeddings"],
            "max_position_embeddings": vision["image_pos_embed"]["max_pos_embeddings"],
        },
        text_config=BartConfig(
            **{name: text[name] for name in TEXT_FIELDS if name in text},
            # <image> is the placeholder of the image tokens in a prompt; the published vocabulary has no row for it
            vocab_size=max(text["vocab_size"], image_token_id + 1),
        ).to_dict(),
        image_token_id=image_token_id,
        **special_ids,
    )


def _convert_state(
    folder: Path,
    weights: list[Path],
    model: Florence2ForConditionalGeneration,
    vocab_size: int,
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    """The weights under transformers' names.

    Args:
        folder: the checkpoint, for messages.
        weights: its weight files.
        model: gives the names and shapes; it may be on the meta device.
        vocab_size: rows of the stored embeddings.
        dtype: of the result.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    wanted = {published_name(name): name for name in shapes}
    missing_rows = shapes[TIED_EMBEDDINGS[0]][0] - vocab_size
    state: dict[str, torch.Tensor] = {}
    unexpected, invalid = [], []
    for name, tensor in iter_weights(weights):
        if name in EMBEDDINGS:
            if EMBEDDINGS[0] in state and name != EMBEDDINGS[0]:
                continue
            key, copied = EMBEDDINGS[0], pad(tensor.to(dtype), (0, 0, 0, missing_rows))  # always a copy
        elif name in wanted:
            key, copied = name, tensor.to(dtype, copy=True)
        else:
            if name != LOGITS_BIAS or tensor.any():  # zeros in the published models; transformers has none
                unexpected.append(name)
            continue
        state[key] = copied
        if not is_finite(copied):  # checked now, while it is in the processor's cache
            invalid.append(name)
    check_names(folder, INVALID_VALUES, invalid)
    check_names(folder, UNEXPECTED_KEYS, unexpected)
    check_names(folder, MISSING_KEYS, [n for n in wanted if n not in state and n not in EMBEDDINGS[1:]])

    state["image_projection"] = state["image_projection"].T.contiguous()  # stored transposed to the weight of a Linear
    check_names(folder, MISMATCHED_SHAPES, [n for n, tensor in state.items() if tensor.shape != shapes[wanted[n]]])
    renamed = {wanted[name]: tensor for name, tensor in state.items()}
    return renamed | dict.fromkeys((*TIED_EMBEDDINGS, "lm_head.weight"), state[EMBEDDINGS[0]])


def check_heads(folder: Path, config: Florence2Config) -> None:
    """Check that attention heads and groups divide the sizes of a model, and that images become vectors of the language model.

    Raises:
        CheckpointError: names the fields and their values.
    """
    text: Any = config.text_config
    vision: Any = config.vision_config
    pairs = [("d_model", text.d_model, f"{part}_attention_heads") for part in ("encoder", "decoder")]
    divisions = [
        (f"text_config.{size}", value, f"text_config.{heads}", getattr(text, heads)) for size, value, heads in pairs
    ]
    divisions += [
        (f"embed_dim[{stage}]", dim, f"vision_config.{field}", getattr(vision, field)[stage])
        for stage, dim in enumerate(vision.embed_dim)
        for field in ("num_heads", "num_groups")
    ]
    for name, size, divisor_name, divisor in divisions:
        if size % divisor:
            raise CheckpointError(
                f"{folder}/config.json is invalid: {name} {size} must be divisible by {divisor_name} {divisor}"
            )
    if vision.projection_dim != text.d_model:
        raise CheckpointError(
            f"{folder}/config.json is invalid: vision_config.projection_dim {vision.projection_dim} must equal "
            f"text_config.d_model {text.d_model}"
        )


def build_generation_config(
    folder: Path, stored: Mapping[str, Any], config: Florence2Config, settings: Mapping[str, Any] | None
) -> GenerationConfig:
    """Return the generation settings of a checkpoint. What its file lacks is read from the config of the language model.

    Args:
        folder: the checkpoint.
        stored: its `config.json`.
        config: the same in transformers' layout.
        settings: its `generation_config.json`, or None if it has none, as older checkpoints.

    Raises:
        CheckpointError: for a setting of a wrong type or out of its range.
    """
    text: Any = config.text_config
    vocab_size = text.vocab_size
    given = settings or {}
    fallback = {name: stored["text_config"][name] for name in GENERATION_FIELDS if name in stored["text_config"]}
    check_generation_settings(folder / "generation_config.json", given, vocab_size)
    check_generation_settings(folder / "config.json", fallback, vocab_size, "text_config.")
    is_complete = given.keys() >= _COMPLETE_FIELDS
    if is_published_layout(stored):
        given = {name: given[name] for name in GENERATION_FIELDS if name in given}
    merged = ({} if is_complete else DEFAULT_TOKEN_IDS) | fallback | dict(given)
    if is_published_layout(stored) or not is_complete:
        merged["suppress_tokens"] = [config.image_token_id]
    if settings is None and "num_beams" not in merged:
        warn(f"{folder} has no generation_config.json; answers are decoded greedily")
    for name in _COMPLETE_FIELDS:
        if merged.get(name) is None:
            raise CheckpointError(f"{folder}/generation_config.json is invalid: {name} must be a token id, got null")
    return GenerationConfig(**merged)
