"""TODO"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..exceptions import unknown_name
from ..results import Result
from . import answers
from .layout import CATEGORIES, PLAN_SIDE, plan_scene
from .rendering import render
from .sprites import SPRITES
from .types import SceneData


@dataclass(frozen=True)
class Scene(SceneData):
    """A cartoon picture and everything true about it."""

    def answer(self, task: str, text: str | None = None, variant: int = 0) -> Result:
        """The right answer to a task about this scene, as a typed result whose `raw` is the target string."""
        return answers.answer(self, task, text, variant)

    def queries(self, task: str, rng: answers.HasRandom) -> list[str | None]:
        """Inputs that make sense for a task here; `[None]` for a task without one."""
        return answers.queries(self, task, rng)


def draw_scene(
    seed: int, size: int | tuple[int, int] = 512, max_objects: int = 6, categories: Sequence[str] | None = None
) -> Scene:
    """Draw the scene of a seed: the same one every time, everywhere, at any size of the same proportions.

    Args:
        seed: any whole number; see `TRAIN_SEEDS` and `HELD_OUT_SEEDS`.
        size: pixels; a number is a square, a pair is (width, height).
        max_objects: at most this many things, 1 to 6.
        categories: which kinds of things, of `CATEGORIES` or drawn by a `sprite` of your own; by default the former. With
            other kinds it is another scene.

    Raises:
        ValueError: for an unknown category.
    """
    for name in categories or ():
        if name not in SPRITES:
            raise ValueError(unknown_name("category", name, SPRITES))
    width, height = (size, size) if isinstance(size, int) else size
    unit = min(width, height)
    raster = round(PLAN_SIDE * width / unit), round(PLAN_SIDE * height / unit)
    plan = plan_scene(seed, raster, max_objects, tuple(categories or CATEGORIES))
    return Scene(**vars(render(plan, (width, height))))
