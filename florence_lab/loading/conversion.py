"""Conversion of a checkpoint in the published layout to transformers' Florence-2, tensor by tensor."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch.nn.functional import pad
from transformers import BartConfig, Florence2Config, Florence2ForConditionalGeneration, GenerationConfig

from ..exceptions import CheckpointError
from .files import read_json
from .published import (
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

MISSING_KEYS = "lacks the weights"
UNEXPECTED_KEYS = "contains weights that Florence-2 does not have:"
MISMATCHED_SHAPES = "contains weights of another shape:"


class _WeightFile(NamedTuple):
    """An opened file of weights.

    Attributes:
        names: the names of its tensors.
        read: name -> tensor.
        max_bytes: how much to read before opening the file anew: the pages of a mapped file count as memory until it is closed.
    """

    names: list[str]
    read: Callable[[str], torch.Tensor]
    max_bytes: float


def is_published_layout(config: dict[str, Any]) -> bool:
    """Return whether a config is in the published layout, whose vision config has `dim_embed` in place of `embed_dim`."""
    return "dim_embed" in config["vision_config"]


def load_published(
    folder: Path, config: dict[str, Any], weights: list[Path], image_token_id: int, dtype: torch.dtype
) -> Florence2ForConditionalGeneration:
    """Load a checkpoint in the published layout into transformers' Florence-2.

    Args:
        folder: the checkpoint.
        config: its `config.json`.
        weights: its weight files.
        image_token_id: id of `<image>`, which the published vocabulary lacks.
        dtype: of the loaded weights.

    Raises:
        CheckpointError: for missing, unexpected or mismatched weights, and for a config that is not supported.
    """
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(_convert_config(folder, config, image_token_id))
    state = _convert_state(folder, weights, model, config["text_config"]["vocab_size"], dtype)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.generation_config = _convert_generation_config(folder, config, image_token_id)
    return model


def check_names(folder: Path, problem: str, names: Iterable[str]) -> None:
    """Raise a CheckpointError that lists names of weights, unless there are none.

    Args:
        folder: the checkpoint.
        problem: `MISSING_KEYS`, `UNEXPECTED_KEYS` or `MISMATCHED_SHAPES`.
        names: the names of the weights that have the problem.
    """
    names = sorted(names)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise CheckpointError(f"{folder} {problem} {', '.join(names[:3])}{more}")


def _convert_config(folder: Path, config: dict[str, Any], image_token_id: int) -> Florence2Config:
    for part, names in REQUIRED_FIELDS.items():
        missing = [name for name in names if name not in config[part]]
        if missing:
            raise CheckpointError(f"{folder}/config.json lacks {', '.join(f'{part}.{name}' for name in missing)}")
    for path, supported in SUPPORTED_VALUES.items():
        value: Any = config
        for key in path:
            value = value.get(key, supported) if isinstance(value, dict) else supported
        if value != supported:
            raise CheckpointError(
                f"{folder}/config.json has {'.'.join(path)} = {value!r}; only {supported!r} is supported"
            )
    vision, text = config["vision_config"], config["text_config"]
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
    unexpected = []
    for name, tensor in _iter_weights(weights):
        if name in EMBEDDINGS:
            if EMBEDDINGS[0] not in state or name == EMBEDDINGS[0]:
                state[EMBEDDINGS[0]] = pad(tensor.to(dtype), (0, 0, 0, missing_rows))  # always a copy
        elif name in wanted:
            state[name] = tensor.to(dtype, copy=True)
        elif name != LOGITS_BIAS or tensor.any():  # zeros in the published models; transformers has none
            unexpected.append(name)
    check_names(folder, UNEXPECTED_KEYS, unexpected)
    check_names(folder, MISSING_KEYS, [n for n in wanted if n not in state and n not in EMBEDDINGS[1:]])

    state["image_projection"] = state["image_projection"].T.contiguous()  # stored transposed to the weight of a Linear
    check_names(folder, MISMATCHED_SHAPES, [n for n, tensor in state.items() if tensor.shape != shapes[wanted[n]]])
    renamed = {wanted[name]: tensor for name, tensor in state.items()}
    return renamed | dict.fromkeys((*TIED_EMBEDDINGS, "lm_head.weight"), state[EMBEDDINGS[0]])


def _iter_weights(weights: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield names and tensors one by one. A tensor is valid until the next is requested."""
    for path in weights:
        names: list[str] | None = None
        while names is None or names:
            file = _open_weight_file(path)
            if names is None:
                # the embeddings are the largest tensor, so they are copied first, while little else is in memory
                names = sorted(file.names, key=lambda name: name not in EMBEDDINGS)
            num_bytes = 0
            while names and num_bytes <= file.max_bytes:
                name = names.pop(0)
                tensor = file.read(name)
                num_bytes += tensor.nbytes
                yield name, tensor


def _open_weight_file(path: Path) -> _WeightFile:
    max_bytes = path.stat().st_size / 16
    if path.suffix == ".safetensors":
        file = safe_open(path, "pt")
        return _WeightFile(list(file.keys()), file.get_tensor, max_bytes)
    is_mapped = zipfile.is_zipfile(path)  # the format of torch.save since 1.6
    tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    return _WeightFile(list(tensors), tensors.pop, max_bytes if is_mapped else math.inf)


def _convert_generation_config(folder: Path, config: dict[str, Any], image_token_id: int) -> GenerationConfig:
    path = folder / "generation_config.json"
    # older checkpoints store these settings in the config of the language model
    stored = read_json(path) if path.is_file() else config["text_config"]
    settings = {name: stored[name] for name in GENERATION_FIELDS if name in stored}
    return GenerationConfig(**settings, suppress_tokens=[image_token_id])
