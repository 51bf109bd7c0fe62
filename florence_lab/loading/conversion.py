"""TODO"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.nn.functional import pad
from transformers import BartConfig, Florence2Config, Florence2ForConditionalGeneration, GenerationConfig

from ..exceptions import CheckpointError
from .files import _read_json
from .published import (
    EMBEDDINGS,
    GENERATION_FIELDS,
    LOGITS_BIAS,
    ONLY_KNOWN,
    REQUIRED,
    TEXT_FIELDS,
    TIED,
    VISION_FIELDS,
    published_name,
)

LACKS = "lacks the weights"

NO_PLACE = "holds weights that Florence-2 has no place for:"

OTHER_SHAPE = "holds weights of another shape:"


def is_published_layout(config: dict[str, Any]) -> bool:
    """Whether a config is in the published layout: its vision tower says `dim_embed`, transformers' `embed_dim`."""
    return "dim_embed" in config["vision_config"]


def _load_published(
    folder: Path, config: dict[str, Any], weights: list[Path], image_token_id: int, dtype: torch.dtype
) -> Florence2ForConditionalGeneration:
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(_published_config(folder, config, image_token_id))
    state = _published_state(folder, weights, model, config["text_config"]["vocab_size"], dtype)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.generation_config = _published_generation_config(folder, config, image_token_id)
    return model


def _published_config(folder: Path, config: dict[str, Any], image_token_id: int) -> Florence2Config:
    for part, names in REQUIRED.items():
        missing = [name for name in names if name not in config[part]]
        if missing:
            raise CheckpointError(f"{folder}/config.json lacks {', '.join(f'{part}.{name}' for name in missing)}")
    for path, known in ONLY_KNOWN.items():
        value: Any = config
        for key in path:
            value = value.get(key, known) if isinstance(value, dict) else known
        if value != known:
            raise CheckpointError(f"{folder}/config.json has {'.'.join(path)} = {value!r}; only {known!r} is known")
    vision, text = config["vision_config"], config["text_config"]
    return Florence2Config(
        vision_config={name: vision[name] for name in VISION_FIELDS if name in vision}
        | {
            "embed_dim": vision["dim_embed"],
            "max_temporal_embeddings": vision["visual_temporal_embedding"]["max_temporal_embeddings"],
            "max_position_embeddings": vision["image_pos_embed"]["max_pos_embeddings"],
        },
        text_config=BartConfig(
            **{name: text[name] for name in TEXT_FIELDS if name in text},
            # <image> marks the place of the image tokens in the prompt; the published vocabulary has no such row
            vocab_size=max(text["vocab_size"], image_token_id + 1),
        ).to_dict(),
        image_token_id=image_token_id,
        bos_token_id=config.get("bos_token_id", 0),
        eos_token_id=config.get("eos_token_id", 2),
        pad_token_id=config.get("pad_token_id", 1),
    )


def _published_state(
    folder: Path, weights: list[Path], model: Florence2ForConditionalGeneration, words: int, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The weights under transformers' names. `model` tells which there are and their shapes; it may be on the meta device.

    `words` is how many the stored vocabulary has.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    wanted = {published_name(name): name for name in shapes}
    rows = model.config.text_config.vocab_size - words
    state: dict[str, torch.Tensor] = {}
    strange = []
    for name, tensor in _read_weights(weights):
        if name in EMBEDDINGS:
            if EMBEDDINGS[0] not in state or name == EMBEDDINGS[0]:
                state[EMBEDDINGS[0]] = pad(tensor.to(dtype), (0, 0, 0, rows))  # always a copy
        elif name in wanted:
            state[name] = tensor.to(dtype, copy=True)
        elif name != LOGITS_BIAS or tensor.any():  # the published models' is all zeros, and transformers has none
            strange.append(name)
    _refuse_names(folder, NO_PLACE, strange)
    _refuse_names(folder, LACKS, [n for n in wanted if n not in state and n not in EMBEDDINGS[1:]])

    state["image_projection"] = state["image_projection"].T.contiguous()  # stored transposed to a Linear's weight
    _refuse_names(folder, OTHER_SHAPE, [n for n, tensor in state.items() if tensor.shape != shapes[wanted[n]]])
    renamed = {wanted[name]: tensor for name, tensor in state.items()}
    return renamed | dict.fromkeys((*TIED, "lm_head.weight"), state[EMBEDDINGS[0]])


def _read_weights(weights: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor, one by one; a tensor is good until the next is asked for."""
    for path in weights:
        names: list[str] | None = None
        while names is None or names:
            known, take, at_once = _open_weights(path)
            if names is None:
                # the words first: their table is the largest, and it is copied while little else is in memory
                names = sorted(known, key=lambda name: name not in EMBEDDINGS)
            read = 0
            while names and read <= at_once:
                name = names.pop(0)
                tensor = take(name)
                read += tensor.nbytes
                yield name, tensor


def _open_weights(path: Path) -> tuple[list[str], Callable[[str], torch.Tensor], float]:
    """The names in a file, how to get a tensor, and how many bytes to read before the file had better be opened anew.

    What was read of a mapped file counts as memory until the file is closed.
    """
    part = path.stat().st_size / 16
    if path.suffix == ".safetensors":
        file = safe_open(path, "pt")
        return list(file.keys()), file.get_tensor, part
    is_mapped = zipfile.is_zipfile(path)  # as torch.save has written them since 1.6
    tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    return list(tensors), tensors.pop, part if is_mapped else math.inf


def _published_generation_config(folder: Path, config: dict[str, Any], image_token_id: int) -> GenerationConfig:
    path = folder / "generation_config.json"
    # checkpoints saved before transformers had that file kept the settings in the config of the language model
    stored = _read_json(path) if path.is_file() else config["text_config"]
    settings = {name: stored[name] for name in GENERATION_FIELDS if name in stored}
    return GenerationConfig(**settings, suppress_tokens=[image_token_id])


def _refuse_names(folder: Path, complaint: str, names: list[str] | set[str]) -> None:
    names = sorted(names)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise CheckpointError(f"{folder} {complaint} {', '.join(names[:3])}{more}")
