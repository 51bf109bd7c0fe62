"""TODO"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from PIL import Image

from ..exceptions import ImageError
from ..images import load_image
from ..inference.generation import EncodedImage
from ..predictor import Predictor
from ..scenes import draw_scene, sample_path

PREVIEW_SIDE = 640  # pixels


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture to ask about.

    Attributes:
        image: upright RGB.
        name: what people call it; also the stem of downloads.
        code: the Python expression that gives it, for `Predictor.predict`.
        is_scene: whether it is of the cartoon world, the only one that the models that ship know.
        is_kept: whether `code` names a file that goes with the panel.
        encoded: what each predictor's vision tower has made of it so far.
    """

    image: Image.Image
    name: str
    code: str
    is_scene: bool = False
    is_kept: bool = False
    encoded: WeakKeyDictionary[Predictor, EncodedImage] = field(default_factory=WeakKeyDictionary, repr=False)

    @cached_property
    def preview(self) -> bytes:
        """A PNG of at most 640 pixels a side."""
        small = self.image.copy()
        small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        file = io.BytesIO()
        small.save(file, "PNG")
        return file.getvalue()


@cache  # as many as there are samples
def sample_picture(name: str) -> Picture:
    """One of the sample pictures; the same object each time, so that it is encoded once."""
    return Picture(load_image(sample_path(name)), name, f"florence_lab.scenes.sample_path({name!r})", True)


@lru_cache(maxsize=8)
def scene_picture(seed: int) -> Picture:
    """The scene of a seed."""
    return Picture(draw_scene(seed).image, f"scene-{seed}", f"florence_lab.scenes.draw_scene({seed}).image", True)


def opened_picture(source: str) -> Picture:
    """The picture at a path or URL.

    Raises:
        ImageError: if there is none.
    """
    source = source.strip().strip("\"'")  # file managers copy paths in quotes
    if not source:
        raise ImageError("no path or URL was given")
    image = load_image(source)
    is_sample = "://" not in source and Path(source).expanduser().resolve().parent == sample_path("sheep").parent
    return Picture(image, Path(source.split("?")[0]).stem or "picture", repr(source), is_sample)


def kept_picture(source: Any, name: str, folder: Path) -> Picture:
    """A picture that has no path of its own (an upload, an array …), written into a folder as a PNG for `code` to name.

    Raises:
        ImageError: if `source` is none; it is called by `name` then.
    """
    try:
        image = load_image(source)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    mark = hashlib.sha256(image.tobytes()).hexdigest()[:8]
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(name).stem)[:40] or "picture"
    path = folder / f"{stem}-{mark}.png"
    image.save(path)
    return Picture(image, stem, repr(str(path)), is_kept=True)
