"""Collate examples into batches for the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Florence2Processor

from ..data.examples import Example
from ..inference.preprocessing import preprocess, preprocess_source
from .feature_cache import load_image_features
from .linear_cross_entropy import IGNORE_INDEX


@dataclass(frozen=True)
class TrainingRow:
    """An example, and the file of its cached image features if there is one."""

    example: Example
    features_path: Path | None = None


class Florence2DataCollator:
    """Collates rows into a batch. As in the published training, the loss covers the target, `<s>` and `</s>` included."""

    def __init__(self, processor: Florence2Processor, keeps_levels: bool = False) -> None:
        """
        Args:
            processor: its tokenizer and image processor are used.
            keeps_levels: leave images as 8-bit levels, a quarter of the size, for a GPU to turn into pixel values.
        """
        self.processor, self.keeps_levels = processor, keeps_levels

    def __call__(self, rows: Sequence[TrainingRow]) -> dict[str, torch.Tensor]:
        """Return the batch of B rows.

        Returns:
            `input_ids` and `attention_mask`, B x (n + P): n `<image>` tokens, then `<s> prompt </s>`, padded; `labels`, B x T:
            `<s> target </s>`, padded with -100; and either `pixel_values`, B x 3 x H x W, or `image_features`,
            B x n x d_model, if all rows have a features file. The model shifts the labels to obtain the decoder's inputs.
            In place of `pixel_values` stand `levels`, B x H x W x 3 uint8, and `level_table`, 3 x 256, if levels are kept.
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
        image_processor = self.processor.image_processor
        if self.keeps_levels:
            resized = [preprocess_source(image_processor, image) for image in images]
            if (table := resized[0].table) is not None:
                return batch | {"levels": torch.stack([image.pixels for image in resized]), "level_table": table}
        return batch | {"pixel_values": preprocess(image_processor, images)}
