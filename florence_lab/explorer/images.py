"""The images of the explorer: samples, scenes, files, URLs and uploads, each with the code that loads it."""

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

PREVIEW_SIDE = 640
"""Maximum width and height of a preview in pixels."""

_MAX_STEM_LENGTH = 40


@dataclass(frozen=True, eq=False)
class SourceImage:
    """An image with its origin.

    Attributes:
        image: upright RGB.
        name: a short name, for labels and the names of downloaded files.
        code: the Python expression that is passed to `Predictor.predict` for this image.
        is_scene: whether the image is a cartoon scene, on which florence-2-nano was trained.
        is_temporary: whether `code` names a file that is deleted with the panel.
        encoded: predictor -> the image as that predictor encoded it.
    """

    image: Image.Image
    name: str
    code: str
    is_scene: bool = False
    is_temporary: bool = False
    encoded: WeakKeyDictionary[Predictor, EncodedImage] = field(default_factory=WeakKeyDictionary, repr=False)

    @cached_property
    def preview(self) -> bytes:
        """The image as a PNG of at most `PREVIEW_SIDE` pixels a side."""
        thumbnail = self.image.copy()
        thumbnail.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        file = io.BytesIO()
        thumbnail.save(file, "PNG")
        return file.getvalue()


@cache  # the samples are few
def load_sample(name: str) -> SourceImage:
    """Return a sample image; the same object at every call, so that it is encoded once.

    Raises:
        ValueError: for an unknown name.
    """
    code = f"florence_lab.scenes.sample_path({name!r})"
    return SourceImage(load_image(sample_path(name)), name, code, is_scene=True)


@lru_cache(maxsize=8)
def load_scene(seed: int) -> SourceImage:
    """Return the scene of a seed; the same object for the seeds used last."""
    code = f"florence_lab.scenes.draw_scene({seed}).image"
    return SourceImage(draw_scene(seed).image, f"scene-{seed}", code, is_scene=True)


def open_source(source: str) -> SourceImage:
    """Return the image at a path or URL.

    Args:
        source: a path or URL; blanks and quotes around it are ignored, as file managers copy paths in quotes.

    Raises:
        ImageError: if the path or URL is empty or cannot be read as an image.
    """
    source = source.strip().strip("\"'")
    if not source:
        raise ImageError("no path or URL was given")
    image = load_image(source)
    is_sample = "://" not in source and Path(source).expanduser().resolve().parent == sample_path("sheep").parent
    return SourceImage(image, Path(source.split("?")[0]).stem or "image", repr(source), is_scene=is_sample)


def save_upload(source: Any, name: str, folder: Path) -> SourceImage:
    """Write an image that has no path into a folder as a PNG, so that `code` can name it.

    Args:
        source: the content of a file, a PIL image, an array …, see `load_image`.
        name: the name of the uploaded file, for messages and for the name of the PNG.
        folder: an existing folder.

    Raises:
        ImageError: if `source` is not an image; the message begins with `name`.
    """
    try:
        image = load_image(source)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    digest = hashlib.sha256(image.tobytes()).hexdigest()[:8]
    letters = (c if c.isalnum() or c in "-_" else "-" for c in Path(name).stem)
    stem = "".join(letters)[:_MAX_STEM_LENGTH] or "image"
    path = folder / f"{stem}-{digest}.png"
    image.save(path)
    return SourceImage(image, stem, repr(str(path)), is_temporary=True)
