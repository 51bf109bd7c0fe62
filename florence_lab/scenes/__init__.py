"""The cartoon world: an endless supply of drawn scenes, with the right answer to every task about them.

scene = draw_scene(849)
scene.image                    # a PIL image
scene.answer("<OD>")           # the typed result; its `raw` is Florence-2's target string
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
