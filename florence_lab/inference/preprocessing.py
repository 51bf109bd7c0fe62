"""From images to the pixel values of the image encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from ..images import load_image


@dataclass(frozen=True, eq=False)
class PreprocessedImage:
    """An image with its pixel values.

    Attributes:
        image: upright RGB, at its original size.
        pixel_values: 1 x 3 x H x W float32, on the CPU.
    """

    image: Image.Image
    pixel_values: torch.Tensor = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image in pixels."""
        return self.image.size


def preprocess(image_processor: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    """Return the pixel values of images: B x 3 x H x W float32 on the CPU."""
    pixel_values: torch.Tensor = image_processor(list(images), return_tensors="pt")["pixel_values"]
    return pixel_values


def preprocess_source(image_processor: Any, source: Any) -> PreprocessedImage:
    """Read an image and compute its pixel values.

    Args:
        image_processor: transformers' image processor.
        source: a path, URL, PIL image, array …, see `load_image`.

    Raises:
        ImageError: if the image cannot be read.
    """
    image = load_image(source)
    return PreprocessedImage(image, preprocess(image_processor, [image]))
