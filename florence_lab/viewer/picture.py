"""Images as files for the browser: small enough to send quickly, with enough pixels to zoom into."""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..images import load_image

MAX_SIDE = 1600
"""Longest side of a picture in pixels."""

_JPEG_QUALITY = 85
_FEW_COLORS = 256
_SMALL_PIXELS = 640 * 640
"""Up to this size a PNG is tried as well, and taken if it is smaller than the JPEG."""


@dataclass(frozen=True)
class Picture:
    """An image for the browser.

    Attributes:
        name: the name of the image.
        width: pixels of the full image.
        height: pixels of the full image.
        pixels: a JPEG or PNG file of at most `MAX_SIDE` pixels a side.
        id: differs between all pictures.
    """

    name: str
    width: int
    height: int
    pixels: bytes = field(repr=False)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


def make_picture(image: Any, name: str = "") -> Picture:
    """Encode an image for the browser. Any thread may call it; keep the picture, to encode each image once.

    Args:
        image: any source of `florence_lab.images.load_image`.
        name: the name that the header of an answer shows.

    Raises:
        ImageError: for an image that cannot be read.
    """
    loaded = read_once(image)
    return Picture(name, loaded.width, loaded.height, _encode(_reduce(loaded)))


def read_once(image: Any) -> Image.Image:
    """Return an upright RGB image; one that is so already is not copied, as `load_image` does."""
    is_ready = isinstance(image, Image.Image) and image.mode == "RGB" and not image.getexif()
    return image if is_ready and 0 not in image.size else load_image(image)


def _reduce(image: Image.Image) -> Image.Image:
    scale = MAX_SIDE / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # averaging whole pixels first is many times faster, and as sharp
    return image.resize(size, Image.Resampling.HAMMING, reducing_gap=1.01)


def _encode(image: Image.Image) -> bytes:
    if image.getcolors(_FEW_COLORS) is not None:
        return _save(image, "PNG")  # diagrams and screenshots stay exact
    jpeg = _save(image, "JPEG", quality=_JPEG_QUALITY)
    if image.width * image.height > _SMALL_PIXELS:
        return jpeg
    return min(_save(image, "PNG"), jpeg, key=len)


def _save(image: Image.Image, file_format: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **settings)
    return file.getvalue()
