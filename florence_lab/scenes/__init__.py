"""Cartoon scenes: an unlimited supply of synthetic images with the ground truth of every task.

scene = draw_scene(849)
scene.image             # PIL image
scene.answer("<OD>")    # typed result; its `raw` is Florence-2's target string
"""

from .export import write_dataset
from .layout import BACKGROUNDS, CATEGORIES
from .phrases import caption_counts, object_counts
from .samples import SAMPLES, sample_path, sample_scene
from .scene import Scene, draw_scene
from .sprites import sprite
from .types import HELD_OUT_SEEDS, TRAIN_SEEDS, SceneObject

__all__ = [
    "BACKGROUNDS",
    "CATEGORIES",
    "HELD_OUT_SEEDS",
    "SAMPLES",
    "TRAIN_SEEDS",
    "Scene",
    "SceneObject",
    "caption_counts",
    "draw_scene",
    "object_counts",
    "sample_path",
    "sample_scene",
    "sprite",
    "write_dataset",
]
