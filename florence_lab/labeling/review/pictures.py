"""Pictures of a review: the surroundings of an object as a thumbnail, and the whole image to draw on."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ...images import load_image

THUMBNAIL_ASPECT = 4 / 3
"""Width over height."""

_THUMBNAIL_SIZE = (480, 360)
_CONTEXT = 1.8  # side of what is shown, in sides of the box
_MIN_CONTEXT = 0.12  # in sides of the image: a few pixels tell nothing
_JPEG_QUALITY = 82
_CACHED_IMAGES = 6


class Thumbnail(NamedTuple):
    """A part of an image.

    Attributes:
        region: (x0, y0, x1, y1) of the part in pixels of the image, in the aspect of a thumbnail; it may leave the image.
        pixels: a JPEG file of the part within the image.
        shown: (x0, y0, x1, y1) of that part.
    """

    region: tuple[float, float, float, float]
    pixels: bytes
    shown: tuple[int, int, int, int]


class ImageCache:
    """Reads images, and keeps the last few. Objects of one image are often beside each other."""

    def __init__(self) -> None:
        self._images: OrderedDict[Path, Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path) -> Image.Image:
        """Return an upright RGB image.

        Raises:
            ImageError: if it cannot be read.
        """
        with self._lock:
            if path not in self._images:
                self._images[path] = load_image(path)
                while len(self._images) > _CACHED_IMAGES:
                    self._images.popitem(last=False)
            self._images.move_to_end(path)
            return self._images[path]


def choose_region(box: Sequence[float] | None, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the part of an image around a box, in the aspect of a thumbnail.

    It stays within the image unless the image is narrower.

    Args:
        box: (x0, y0, x1, y1) in pixels; None for the whole image.
        size: (width, height) of the image.
    """
    x0, y0, x1, y1 = box or (0, 0, *size)
    context = _CONTEXT if box else 1.0
    width = max((x1 - x0) * context, size[0] * _MIN_CONTEXT, 8)
    height = max((y1 - y0) * context, size[1] * _MIN_CONTEXT, 8)
    width, height = max(width, height * THUMBNAIL_ASPECT), max(height, width / THUMBNAIL_ASPECT)
    left = _place((x0 + x1) / 2, width, size[0])
    top = _place((y0 + y1) / 2, height, size[1])
    return left, top, left + width, top + height


def draw_thumbnail(image: Image.Image, box: Sequence[float] | None) -> Thumbnail:
    """Return the surroundings of a box, or the whole image for None, as a picture of at most 480 x 360 pixels."""
    region = choose_region(box, image.size)
    shown = (
        max(0, int(region[0])),
        max(0, int(region[1])),
        min(image.width, max(1, round(region[2]))),
        min(image.height, max(1, round(region[3]))),
    )
    scale = min(1.0, _THUMBNAIL_SIZE[0] / (region[2] - region[0]))
    size = tuple(max(1, round((high - low) * scale)) for low, high in zip(shown[:2], shown[2:], strict=True))
    part = image.resize(size, Image.Resampling.BILINEAR, shown, reducing_gap=2.0)  # type: ignore[arg-type]
    file = io.BytesIO()
    part.save(file, "JPEG", quality=_JPEG_QUALITY)
    return Thumbnail(region, file.getvalue(), shown)


def _place(center: float, length: float, side: int) -> float:
    """Where a part begins: around a center and within 0..side, or around the middle if it is longer."""
    if length >= side:
        return (side - length) / 2
    return min(max(center - length / 2, 0.0), side - length)
