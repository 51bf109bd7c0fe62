"""`draw_scene` and `Scene`: an image with the ground truth of every task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from PIL import Image

from ..argument_validation import Range, validate_arguments
from ..exceptions import ArgumentError, unknown_name
from ..results import Result
from . import answers
from .layout import CATEGORIES, PLAN_SIDE, plan_scene
from .rendering import render
from .sprites import SPRITES
from .types import SceneData

AnyInteger = Annotated[int, Range()]
"""The type of a seed."""

MIN_SIZE = 16
"""Shortest side of a scene in pixels. In smaller images objects may have no visible pixel."""


class Scene(SceneData):
    """A drawn scene that knows the ground truth of every published task. For the attributes see `SceneData`."""

    @validate_arguments
    def answer(self, task: str, text: str | Sequence[float] | None = None, phrasing: int = 0) -> Result:
        """Return the ground truth of a task as a typed result, whose `raw` is the target string.

        Args:
            task: a task token, `"<OD>"`.
            text: the phrase, caption or expression, or the region as four location tokens or (x0, y0, x1, y1) in pixels.
            phrasing: index of the wording of a caption; 0 is the plainest.

        Raises:
            ValueError: for a task without ground truth, a missing or superfluous input, and a region without an object.
        """
        return answers.answer(self, task, text, phrasing)

    @validate_arguments
    def sample_inputs(self, task: str, rng: answers.SupportsRandom) -> list[str | None]:
        """Return inputs with which a task can be given for this scene, in random order.

        Args:
            task: a task token.
            rng: `random.Random` or a NumPy `Generator`.

        Returns:
            Captions, phrases, expressions, or regions as location tokens. `[None]` for a task without an input. `[]` if the
            task does not apply: a region with text in a scene without any, or a task without ground truth.
        """
        return answers.sample_inputs(self, task, rng)


def check_size(size: int | tuple[int, int]) -> None:
    """Verify that a scene of a size can be drawn.

    Args:
        size: side of a square image in pixels, or (width, height).

    Raises:
        ArgumentError: for a side below `MIN_SIZE`, or more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, which could not be opened.
    """
    width, height = (size, size) if isinstance(size, int) else size
    limit = Image.MAX_IMAGE_PIXELS
    if min(width, height) < MIN_SIZE:
        raise ArgumentError(f"size {size} is too small: scenes have at least {MIN_SIZE} x {MIN_SIZE} pixels")
    if limit and width * height > limit:
        raise ArgumentError(
            f"size {size} is too large: an image of {width} x {height} pixels has more than PIL.Image.MAX_IMAGE_PIXELS = {limit}"
        )


@validate_arguments
def draw_scene(
    seed: AnyInteger, size: int | tuple[int, int] = 512, max_objects: int = 6, categories: Sequence[str] | None = None
) -> Scene:
    """Draw the scene of a seed.

    A seed gives the same scene on every machine, and the same objects at every size of the same aspect ratio.

    Args:
        seed: any integer, see `TRAIN_SEEDS` and `HELD_OUT_SEEDS`.
        size: side of a square image in pixels, or (width, height).
        max_objects: largest number of objects, at least 1. No scene has more than 6.
        categories: categories to choose from, of `CATEGORIES` or registered with `sprite`; `CATEGORIES` by default. The same
            seed gives another scene for other categories.

    Raises:
        ValueError: for an unknown category, a `max_objects` below 1, and a size that `check_size` refuses.
    """
    for name in categories or ():
        if name not in SPRITES:
            raise ArgumentError(unknown_name("category", name, SPRITES))
    if max_objects < 1:
        raise ArgumentError(f"max_objects must be at least 1, not {max_objects}")
    check_size(size)
    width, height = (size, size) if isinstance(size, int) else size
    unit = min(width, height)
    raster = round(PLAN_SIDE * width / unit), round(PLAN_SIDE * height / unit)
    plan = plan_scene(seed, raster, max_objects, tuple(categories or CATEGORIES))
    return Scene(**vars(render(plan, (width, height))))
