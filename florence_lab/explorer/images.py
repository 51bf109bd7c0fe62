"""The images of the explorer: samples, scenes, files, URLs and uploads, each with the code that loads it."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from PIL import Image

from ..exceptions import ImageError
from ..images import GENERATOR_TAG, load_image
from ..scenes import SAMPLES, draw_scene, sample_path
from ..viewer.picture import Picture, make_picture
from .access import check_source

if TYPE_CHECKING:
    from ..inference.generation import EncodedImage
    from ..predictor import Predictor

_THUMBNAIL_SIDE = 72  # pixels; the history shows it at half the size, for displays of high resolution
_MAX_STEM_LENGTH = 40
_COMPRESSION = 1  # of PNG files: 12 megapixels are written in a third of the time, for a file that is a little larger


@dataclass(frozen=True, eq=False)
class SourceImage:
    """An image with its origin.

    Attributes:
        image: upright RGB.
        name: a short name, for labels and the names of downloaded files.
        code: the Python expression that is passed to `Predictor.predict` for this image.
        is_temporary: whether `code` names a file that is deleted with the panel.
        encoded: predictor -> the image as that predictor encoded it.
    """

    image: Image.Image
    name: str
    code: str
    is_temporary: bool = False
    encoded: WeakKeyDictionary[Predictor, EncodedImage] = field(default_factory=WeakKeyDictionary, repr=False)

    @property
    def is_scene(self) -> bool:
        """Whether florence_lab drew the image: a cartoon scene, on which florence-2-nano was trained."""
        return str(self.image.info.get("Source")).startswith(GENERATOR_TAG) or self.digest in _sample_digests()

    @cached_property
    def digest(self) -> str:
        """Equal for images of equal pixels."""
        return hashlib.sha256(repr(self.image.size).encode() + self.image.tobytes()).hexdigest()

    @cached_property
    def picture(self) -> Picture:
        """The image as the viewer shows it."""
        return make_picture(self.image, self.name)

    @cached_property
    def thumbnail(self) -> str:
        """A small JPEG as a `data:` URI."""
        small = self.image.copy()
        small.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=80)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


@cache  # the samples are few
def load_sample(name: str) -> SourceImage:
    """Return a sample image; the same object at every call, so that it is encoded once.

    Raises:
        ValueError: for an unknown name.
    """
    code = f"florence_lab.scenes.sample_path({name!r})"
    return SourceImage(load_image(sample_path(name)), name, code)


@cache
def _sample_digests() -> frozenset[str]:
    return frozenset(load_sample(name).digest for name in SAMPLES)


@lru_cache(maxsize=8)
def load_scene(seed: int) -> SourceImage:
    """Return the scene of a seed; the same object for the seeds used last."""
    code = f"florence_lab.scenes.draw_scene({seed}).image"
    return SourceImage(draw_scene(seed).image, f"scene-{seed}", code)


def open_source(source: str) -> SourceImage:
    """Return the image at a path or URL.

    Args:
        source: a path or URL; blanks and quotes around it are ignored, as file managers copy paths in quotes.

    Raises:
        ImageError: if the path or URL is empty or cannot be read as an image, or must not be, see `check_source`.
    """
    source = source.strip().strip("\"'")
    if not source:
        raise ImageError("no path or URL was given")
    check_source(source)
    name = "" if source.startswith("data:") else Path(source.split("?")[0]).stem
    return SourceImage(load_image(source), name or "image", repr(source))


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
    letters = (c if c.isalnum() or c in "-_" else "-" for c in Path(name).stem)
    stem = "".join(letters)[:_MAX_STEM_LENGTH] or "image"
    path = folder / f"{stem}-{hashlib.sha256(image.tobytes()).hexdigest()[:8]}.png"
    image.save(path, compress_level=_COMPRESSION)
    return SourceImage(image, stem, repr(str(path)), is_temporary=True)
