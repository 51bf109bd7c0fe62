"""TODO"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import Florence2Processor

from ..data.examples import Example, open_picture
from .feature_cache import read_features

IGNORED = -100
"""The label of padding, which is no part of the loss."""


class Row(NamedTuple):
    """What is trained on at once: an example, and the file of its picture's tokens where there is one."""

    example: Example
    features: Path | None = None


class Florence2DataCollator:
    """Rows -> a batch, in the published convention: the decoder reads the labels shifted by one, padding doesn't count."""

    def __init__(self, processor: Florence2Processor):
        self.processor = processor

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """
        Returns:
            `input_ids` and `attention_mask`, B x (n + P): n `<image>`, then `<s> prompt </s>`; `labels`, B x T:
            `<s> answer </s>`, -100 behind; and `pixel_values`, B x 3 x H x W, or `image_tokens`, B x n x d_model.
        """
        tokenizer, examples = self.processor.tokenizer, [row.example for row in rows]
        prompts = tokenizer([example.prompt for example in examples], padding=True, return_tensors="pt")
        answers = tokenizer([example.response for example in examples], padding=True, return_tensors="pt")
        here = torch.ones(len(rows), self.processor.num_image_tokens, dtype=torch.long)
        batch = {
            "input_ids": torch.cat([here * self.processor.image_token_id, prompts["input_ids"]], dim=1),
            "attention_mask": torch.cat([here, prompts["attention_mask"]], dim=1),
            "labels": answers["input_ids"].masked_fill(answers["attention_mask"] == 0, IGNORED),
        }
        if all(row.features for row in rows):
            return batch | {"image_tokens": read_features([row.features for row in rows])}
        pictures = [open_picture(example.image) for example in examples]
        return batch | self.processor.image_processor(pictures, return_tensors="pt")
