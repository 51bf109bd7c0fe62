"""`Example`: a prompt about an image together with its target text, the unit of fine-tuning and evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..images import load_image
from ..results import Boxes, Result
from ..scenes import draw_scene
from ..template.prompts import Prompt
from ..template.template import FlorenceTemplate


@dataclass(frozen=True)
class SceneReference:
    """A cartoon scene by its seed. It is drawn each time it is loaded, which takes milliseconds, instead of being stored.

    Attributes:
        seed: the seed of `draw_scene`.
        size: width and height in pixels.
    """

    seed: int
    size: int


ImageSource = str | Path | bytes | Image.Image | np.ndarray | SceneReference
"""What `load_image` reads (a path, a URL, bytes, a PIL image, an array), or a `SceneReference`."""


@dataclass(frozen=True)
class Example:
    """A prompt about an image, with the target text if it is known.

    Attributes:
        image: where the image comes from. `load_image` decodes it; the example does not keep the decoded image.
        prompt: the task, its phrase or region, and the text that the model reads.
        target: the text that the model should generate, in Florence-2's answer grammar; "" if it is unknown, or if the
            answer is that there is nothing.
        source: where the example comes from, for messages: `"train.jsonl, row 12"`, `"scene 1000003"`.
        image_size: (width, height) of the image in pixels.
        references: further targets that are right, too: the other captions of an image, the other answers to a question.
        exact_boxes: N x 4, the boxes (x0, y0, x1, y1) of the instances of `target` as annotated, which its location tokens round;
            None if they are unknown.
    """

    image: ImageSource
    prompt: Prompt
    target: str
    source: str
    image_size: tuple[int, int]
    references: tuple[str, ...] = ()
    exact_boxes: np.ndarray | None = field(default=None, repr=False, compare=False)

    def load_image(self) -> Image.Image:
        """Return the image as upright RGB.

        Raises:
            ImageError: if the source cannot be read.
        """
        return load_image_source(self.image)

    @cached_property
    def image_key(self) -> Hashable:
        """A key that is equal for examples about the same image: see `image_key`."""
        return image_key(self.image)

    @cached_property
    def ground_truth(self) -> Result:
        """The target, parsed into a typed result in pixels. It has no scores."""
        result = self._parse(self.target)
        if self.exact_boxes is not None and isinstance(result, Boxes):
            result = replace(result, boxes=self.exact_boxes)
        return result

    @cached_property
    def ground_truths(self) -> tuple[Result, ...]:
        """`ground_truth`, and the results of the further `references`."""
        return self.ground_truth, *map(self._parse, self.references)

    def _parse(self, target: str) -> Result:
        return FlorenceTemplate().parse_text(target, self.prompt, self.image_size)


def load_image_source(source: ImageSource) -> Image.Image:
    """Return an image as upright RGB: draw a `SceneReference`, read anything else with `load_image`.

    Raises:
        ImageError: if the source cannot be read.
    """
    return draw_scene(source.seed, source.size).image if isinstance(source, SceneReference) else load_image(source)


def image_key(source: ImageSource) -> Hashable:
    """Return a key that identifies an image: its path, its URL, its scene, or a hash of its content.

    Images in memory with equal pixels have equal keys, whether or not they are the same object.
    """
    if isinstance(source, (str, Path, SceneReference)):
        return source
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    image = load_image(source)
    return image.size, hashlib.sha256(image.tobytes()).hexdigest()
