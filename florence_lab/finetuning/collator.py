"""Collate examples into batches for the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Florence2Processor

from ..data.examples import Example
from .feature_cache import load_image_features
from .linear_cross_entropy import IGNORE_INDEX


@dataclass(frozen=True)
class TrainingRow:
    """An example, and the file of its cached image features if there is one."""

    example: Example
    features_path: Path | None = None


class Florence2DataCollator:
    """Collates rows into a batch. As in the published training, the loss covers the target, `<s>` and `</s>` included."""

    def __init__(self, processor: Florence2Processor) -> None:
        self.processor = processor

    def __call__(self, rows: Sequence[TrainingRow]) -> dict[str, torch.Tensor]:
        """Return the batch of B rows.

        Returns:
            `input_ids` and `attention_mask`, B x (n + P): n `<image>` tokens, then `<s> prompt </s>`, padded; `labels`, B x T:
            `<s> target </s>`, padded with -100; and either `pixel_values`, B x 3 x H x W, or `image_features`,
            B x n x d_model, if all rows have a features file. The model shifts the labels to obtain the decoder's inputs.
        """
        tokenizer, examples = self.processor.tokenizer, [row.example for row in rows]
        prompts = tokenizer([example.prompt.prompt for example in examples], padding=True, return_tensors="pt")
        targets = tokenizer([example.target for example in examples], padding=True, return_tensors="pt")
        image_mask = torch.ones(len(rows), self.processor.num_image_tokens, dtype=torch.long)
        batch = {
            "input_ids": torch.cat([image_mask * self.processor.image_token_id, prompts["input_ids"]], dim=1),
            "attention_mask": torch.cat([image_mask, prompts["attention_mask"]], dim=1),
            "labels": targets["input_ids"].masked_fill(targets["attention_mask"] == 0, IGNORE_INDEX),
        }
        paths = [row.features_path for row in rows if row.features_path is not None]
        if len(paths) == len(rows):
            return batch | {"image_features": load_image_features(paths)}
        images = [example.load_image() for example in examples]
        return batch | dict(self.processor.image_processor(images, return_tensors="pt"))
