"""How many prompts are decoded together, and how many threads read their images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from transformers import Florence2ForConditionalGeneration

from .generation import text_config

MAX_BATCH_BYTES = 2**30
"""Memory of the images of a batch whose size is chosen here."""

_MAX_READERS = 16
_CPU_READERS = 2  # each core computes; more readers wait for each other

# Rows are prompts times beams. A step of the decoder reads all weights, so more rows are faster until the device is busy.
_CPU_ROWS = 16
_GPU_ROWS = 128


def auto_batch_size(
    model: Florence2ForConditionalGeneration, generate_kwargs: Mapping[str, Any], num_image_tokens: int
) -> int:
    """Return the number of prompts that are decoded together if the caller leaves it open.

    Args:
        model: on its device.
        generate_kwargs: see `generation.resolve_generation_kwargs`.
        num_image_tokens: of an image.
    """
    num_beams = generate_kwargs.get("num_beams") or model.generation_config.num_beams or 1
    num_rows = _CPU_ROWS
    if model.device.type == "cuda":
        free = _free_bytes(model.device) // 2  # the other half is for what is not counted, and for others
        num_rows = min(_GPU_ROWS, free // row_bytes(model, num_image_tokens, generate_kwargs["max_new_tokens"]))
    return max(1, num_rows // num_beams)


def row_bytes(model: Florence2ForConditionalGeneration, num_image_tokens: int, max_new_tokens: int) -> int:
    """Return the memory that a row takes in the decoder: its keys and values, the encoder's output, and its logits.

    Prompts are counted as 64 tokens. Buffers may be twice as long as needed.
    """
    config = text_config(model)
    source, itemsize = num_image_tokens + 64, model.dtype.itemsize
    cached = config.decoder_layers * 2 * (source + 2 * max_new_tokens) * config.d_model * itemsize
    encoded = source * (4 * config.d_model + config.encoder_ffn_dim) * itemsize
    return int(cached + encoded + 4 * config.vocab_size * 4)


def num_reader_threads(device: torch.device) -> int:
    """Return the number of threads that read images for a model on a device."""
    if device.type == "cpu":
        return _CPU_READERS
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _MAX_READERS))


def _free_bytes(device: torch.device) -> int:
    """Memory of the device that is free, or that torch holds without use."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + unused)
