"""TODO"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..images import load_image
from ..inference.generation import EncodedImage
from ..visualization.figures import NotebookFigure
from ..visualization.style import LIGHT, font_properties
from .plots import _panels

if TYPE_CHECKING:
    from ..predictor import Predictor


@torch.inference_mode()
def extract_feature_maps(predictor: Predictor, image: Any) -> list[np.ndarray]:
    """What the vision tower makes of a picture: its feature map after each stage, channels x rows x columns float32.

    In florence-2-large 256 x 192 x 192, 512 x 96 x 96, 1024 x 48 x 48 and 2048 x 24 x 24.

    Args:
        image: as `Predictor.encode_image` takes it; an `EncodedImage` is run again, for it keeps only the tokens.

    Raises:
        ImageError: if the image can't be read.
    """
    picture = image.image if isinstance(image, EncodedImage) else load_image(image)
    maps: list[np.ndarray] = []
    tower = predictor.model.model.vision_tower
    hooks = [
        stage[-1].register_forward_hook(lambda module, given, out: maps.append(out[0].float().cpu().numpy()))
        for stage in tower.blocks
    ]
    try:
        predictor.encode_image(picture)
    finally:
        for hook in hooks:
            hook.remove()
    return maps


def show_feature_maps(predictor: Predictor, image: Any) -> NotebookFigure:
    """The picture as the model gets it, and its feature map after each stage of the vision tower, in false colours.

    The three directions in which a map's features differ most (principal components) become red, green and blue: what
    has one colour is alike to the model. Thin lines part the windows of window attention; channel attention sees all.

    Args, raises: as in `extract_feature_maps`.
    """
    picture = image.image if isinstance(image, EncodedImage) else load_image(image)
    maps = extract_feature_maps(predictor, picture)
    size = predictor.processor.image_processor.size
    seen = picture.resize((size["width"], size["height"]))
    sheet, ((first, *others),) = _panels(1, 1 + len(maps), seen.size)
    first.imshow(seen)
    first.set_title(f"3 x {seen.height} x {seen.width}", **font_properties(8))
    first.set_axis_off()
    window = predictor.model.config.vision_config.window_size
    for ax, features in zip(others, maps, strict=True):
        ax.imshow(_false_colours(features), interpolation="nearest")
        channels, rows, columns = features.shape
        ax.set_title(f"{channels} x {rows} x {columns}", **font_properties(8))
        ax.vlines(np.arange(window, columns, window) - 0.5, -0.5, rows - 0.5, color=LIGHT, linewidth=0.7)
        ax.hlines(np.arange(window, rows, window) - 0.5, -0.5, columns - 0.5, color=LIGHT, linewidth=0.7)
        ax.set_axis_off()
    return sheet


def _false_colours(features: np.ndarray) -> np.ndarray:
    """C x H x W -> H x W x 3 in 0..1: the first three principal components, each from its 2nd to its 98th percentile."""
    values = features.reshape(len(features), -1).T.astype(np.float64)
    values -= values.mean(axis=0)
    _, directions = np.linalg.eigh(values.T @ values)  # by rising variance
    best = directions[:, ::-1][:, :3]
    best = best * np.sign(best[np.abs(best).argmax(axis=0), range(best.shape[1])])  # else the sign is any
    shown = values @ best
    low, high = np.percentile(shown, (2, 98), axis=0)
    shown = np.clip((shown - low) / np.maximum(high - low, 1e-12), 0, 1)
    return shown.reshape(*features.shape[1:], -1)
