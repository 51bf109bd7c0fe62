"""Feature maps of the image encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..argument_validation import validate_arguments
from ..images import load_image
from ..inference.generation import EncodedImage
from ..predictor import Predictor
from ..visualization.figures import NotebookFigure
from ..visualization.style import LIGHT, font_properties
from .plots import create_panels


@validate_arguments
@torch.inference_mode()
def extract_feature_maps(predictor: Predictor, image: Any) -> list[np.ndarray]:
    """Return the feature map after each stage of the image encoder: channels x rows x columns float32.

    For florence-2-large they are 256 x 192 x 192, 512 x 96 x 96, 1024 x 48 x 48 and 2048 x 24 x 24.

    Args:
        predictor: the model.
        image: as in `Predictor.encode_image`. An `EncodedImage` is encoded again, as it contains the last tokens only.

    Raises:
        ImageError: if the image cannot be read.
    """
    source = image.image if isinstance(image, EncodedImage) else load_image(image)
    maps: list[np.ndarray] = []
    hooks = [
        stage[-1].register_forward_hook(lambda module, args, output: maps.append(output[0].float().cpu().numpy()))
        for stage in predictor.model.model.vision_tower.blocks
    ]
    try:
        predictor.encode_image(source)
    finally:
        for hook in hooks:
            hook.remove()
    return maps


@validate_arguments
def show_feature_maps(predictor: Predictor, image: Any) -> NotebookFigure:
    """Return a figure with the resized image and its feature map after each stage, in false colors.

    The first three principal components of a map become red, green and blue, so that similar features have similar colors.
    Lines mark the windows of window attention. Channel attention spans the whole map.

    Args, Raises: as in `extract_feature_maps`.
    """
    source = image.image if isinstance(image, EncodedImage) else load_image(image)
    maps = extract_feature_maps(predictor, source)
    size = predictor.processor.image_processor.size
    resized = source.resize((size["width"], size["height"]))
    figure, ((first, *others),) = create_panels(1, 1 + len(maps), resized.size)
    first.imshow(resized)
    first.set_title(f"3 x {resized.height} x {resized.width}", **font_properties(8))
    first.set_axis_off()
    vision_config: Any = predictor.model.config.vision_config  # transformers types it as a union
    window = vision_config.window_size
    for ax, features in zip(others, maps, strict=True):
        channels, rows, columns = features.shape
        ax.imshow(_to_false_colors(features), interpolation="nearest")
        ax.set_title(f"{channels} x {rows} x {columns}", **font_properties(8))
        ax.vlines(np.arange(window, columns, window) - 0.5, -0.5, rows - 0.5, color=LIGHT, linewidth=0.7)
        ax.hlines(np.arange(window, rows, window) - 0.5, -0.5, columns - 0.5, color=LIGHT, linewidth=0.7)
        ax.set_axis_off()
    return figure


def _to_false_colors(features: np.ndarray) -> np.ndarray:
    """C x H x W -> H x W x 3 in 0..1: the first three principal components, from the 2nd to the 98th percentile."""
    values = features.reshape(len(features), -1).T.astype(np.float64)
    values -= values.mean(axis=0)
    _, directions = np.linalg.eigh(values.T @ values)  # in ascending order of variance
    components = directions[:, ::-1][:, :3]
    components = components * np.sign(components[np.abs(components).argmax(axis=0), range(components.shape[1])])
    projected = values @ components
    low, high = np.percentile(projected, (2, 98), axis=0)
    colors = np.clip((projected - low) / np.maximum(high - low, 1e-12), 0, 1)
    return colors.reshape(*features.shape[1:], -1)
