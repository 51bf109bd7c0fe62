"""From any source to an upright, 8-bit RGB image."""

from __future__ import annotations

import base64
import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .argument_validation import validate_arguments
from .exceptions import ImageError, shorten, summarize_error
from .network import run_with_timeout

CHANNELS = (1, 3, 4)

GENERATOR_TAG = "florence_lab scene"
"""How `info["Source"]` starts for images that florence_lab drew, in memory and in PNG files."""

# The white level of grayscale images of more than 8 bits: the first that no pixel exceeds, as the modes "I" and "F" do not
# define one. Pillow's own conversion to 8 bits clips.
WHITE_LEVELS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("I;16", "I;16L", "I;16B", "I;16N"), (65535,)),
    "I": (255, 65535),
    "F": (1, 255, 65535),
}


HEIF_EXTENSIONS = (".heic", ".heif")
"""Extensions of the format of iPhones, which Pillow reads with the plugin `pillow-heif`."""

VIDEO_EXTENSIONS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".ts")
"""Extensions of videos, whose frames `sources.expand_sources` reads."""

_SCHEME_RE = re.compile(r"([A-Za-z][\w+.-]+)://")
_DATA_URL_RE = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)

_LOCKS = [Lock() for _ in range(61)]
"""Each image of the caller has one of these. It may be given several times, and read by several threads."""


@validate_arguments
def load_image(source: Any, timeout: float = 10.0, max_bytes: int = 64 * 2**20) -> Image.Image:
    """Read an image as upright, 8-bit RGB. The source is not modified.

    Transparent pixels are composited over white, the orientation of the camera (EXIF) is applied, grayscale of more than 8
    bits is scaled to 8, and the first frame of an animation is used.

    Args:
        source: a path (`~` is expanded), an http, https or base64 data URL, `bytes`, a binary file object, a PIL image, a
            NumPy array (H x W, or H x W x C with 1, 3 or 4 channels; `uint8`, or floats in 0..1), or a torch tensor of the
            same kind, which may also be C x H x W (the order that is chosen if both fit).
        timeout: seconds that reading a URL may take in total.
        max_bytes: maximum size of what a URL returns.

    Raises:
        ImageError: for anything else, for a source that cannot be read, and for a file of more than
            `PIL.Image.MAX_IMAGE_PIXELS` pixels. An `ImageError` given as the source is raised.
        ArgumentError: for a time limit or a size that is not positive.
    """
    if isinstance(source, ImageError):
        raise source
    if isinstance(source, Image.Image):
        with _image_errors(f"the given PIL image ({source.mode}, {source.width} x {source.height})"):
            with _LOCKS[id(source) % len(_LOCKS)]:  # an opened file is read here, and by one thread at a time
                source.load()
            return _upright_rgb(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), "the byte string")
    if isinstance(source, str) and (scheme := _SCHEME_RE.match(source)):
        return _load_url(source, scheme[1].lower(), timeout, max_bytes)
    if isinstance(source, str) and (header := _DATA_URL_RE.match(source)):
        with _image_errors("the data URL"):
            return _decode(base64.b64decode(source[header.end() :], validate=True), "the data URL")
    if isinstance(source, (str, os.PathLike)):
        return _load_path(source)
    if hasattr(source, "read"):
        return _load_file(source)
    if hasattr(source, "detach"):
        with _image_errors("the given tensor"):
            return _from_array(_tensor_to_array(source), "the given tensor")
    if isinstance(source, np.ndarray):
        with _image_errors("the given array"):
            return _from_array(source, "the given array")
    raise ImageError(
        f"cannot read an image from {shorten(source)}, a {type(source).__name__}; pass a path, URL, bytes, file object, PIL "
        "image, NumPy array or torch tensor"
    )


def held_bytes(source: Any) -> int:
    """Return the memory that an image takes before it is read: none for paths and URLs."""
    if isinstance(source, Image.Image):
        return 4 * source.width * source.height
    if isinstance(source, (bytes, bytearray)):
        return len(source)
    size = getattr(source, "nbytes", 0)  # of an array or tensor
    return size if isinstance(size, int) else 0


def _load_path(source: str | os.PathLike) -> Image.Image:
    with _image_errors(shorten(source, 200)):
        path = Path(source)
        name = shorten(str(path), 200)
        name = name[1:-1] if str(path).isprintable() else name  # quotes show what is not printable
        if not str(source):
            raise ImageError("the path of the image is empty")
    with _image_errors(name):
        path = path.expanduser()
        if not path.exists():
            raise ImageError(f"{name} does not exist")
        if not path.is_file():
            raise ImageError(f"{name} is a folder, not an image" if path.is_dir() else f"{name} is not a file")
        if path.stat().st_size == 0:
            raise ImageError(f"{name} is empty")
        if path.suffix.lower() in VIDEO_EXTENSIONS:
            raise ImageError(f"{name} is a video; pass it to predict_iter or infer --images, which read its frames")
        with path.open("rb") as file:
            return _open(file, name)


def _load_file(file: BinaryIO) -> Image.Image:
    name = shorten(getattr(file, "name", "the given file object")).strip("'")
    with _image_errors(name):
        rewinds = hasattr(file, "seekable") and file.seekable()
        position = file.tell() if rewinds else 0
        if rewinds:
            file.seek(0)  # as Pillow does: the position of a buffer is at its end after writing
        data = file.read()
        if rewinds:
            file.seek(position)
    if isinstance(data, str):
        raise ImageError(f"{name} was opened in text mode; open it in binary mode, 'rb'")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImageError(f"reading {name} gave {shorten(data)}, not bytes")
    return _decode(bytes(data), name)


def _load_url(url: str, scheme: str, timeout: float, max_bytes: int) -> Image.Image:
    if scheme not in ("http", "https"):
        raise ImageError(f"unsupported URL scheme {scheme!r} in {url}; use http or https")
    try:
        data, content_type = run_with_timeout(timeout, lambda: _fetch(url, timeout, max_bytes))
    except TimeoutError:
        raise ImageError(f"{url} could not be read within {timeout:g} s") from None
    return _decode(data, f"{url} (content type {content_type})")


def _fetch(url: str, timeout: float, max_bytes: int) -> tuple[bytes, str]:
    """The body of a URL and its content type. The caller limits the total time."""
    import requests

    too_large = f"{url} is larger than max_bytes = {max_bytes}"
    deadline = time.monotonic() + timeout
    data = bytearray()
    try:
        with requests.get(url, stream=True, timeout=timeout, headers={"User-Agent": "florence_lab"}) as response:
            if not response.ok:
                raise ImageError(f"{url} returned HTTP status {response.status_code} {response.reason}")
            if int(response.headers.get("Content-Length", 0)) > max_bytes:
                raise ImageError(too_large)
            for chunk in response.iter_content(2**14):
                data += chunk
                if len(data) > max_bytes:
                    raise ImageError(too_large)
                if time.monotonic() > deadline:  # the caller has given up: end the thread
                    raise TimeoutError
            return bytes(data), response.headers.get("Content-Type", "unknown")
    except ImageError:
        raise
    except (requests.RequestException, ValueError) as error:
        if time.monotonic() >= deadline:  # the time limit of the socket ends together with that of the caller
            raise TimeoutError from error
        raise ImageError(f"{url} cannot be fetched: {summarize_error(error)}") from error


def _tensor_to_array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu().resolve_conj()
    if tensor.is_floating_point():
        tensor = tensor.float()  # NumPy has no bfloat16
    array = tensor.numpy()
    return array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] in CHANNELS else array


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in CHANNELS or pixels.size == 0:
        raise ImageError(f"{name} has shape {array.shape}; expected H x W, H x W x 1, H x W x 3 or H x W x 4")
    if np.issubdtype(pixels.dtype, np.floating):
        low, high = pixels.min(), pixels.max()
        if not (low >= 0 and high <= 1):  # also refuses NaN
            raise ImageError(f"{name} has floats from {low:g} to {high:g}; expected 0 to 1")
        pixels = (pixels * 255 + 0.5).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageError(f"{name} has dtype {array.dtype}; expected uint8, or floats from 0 to 1")
    return _upright_rgb(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _decode(data: bytes, name: str) -> Image.Image:
    if not data:
        raise ImageError(f"{name} is empty")
    with _image_errors(name):
        return _open(io.BytesIO(data), name)


def _open(file: BinaryIO, name: str) -> Image.Image:
    if _is_heif(file):
        _register_heif_plugin(name)
    with Image.open(file) as image:
        limit = Image.MAX_IMAGE_PIXELS
        # Pillow only warns up to twice its limit. Nothing has been decoded yet.
        if limit and image.width * image.height > limit:
            raise Image.DecompressionBombError
        return _upright_rgb(image)


def _is_heif(file: BinaryIO) -> bool:
    """Whether a file is HEIF with HEVC, by the brand in its first box (ISO/IEC 23008-12)."""
    start = file.read(12)
    file.seek(0)
    return start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def _register_heif_plugin(name: str) -> None:
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(f"{name} is a HEIC image; install pillow-heif to read it: pip install pillow-heif") from None
    pillow_heif.register_heif_opener()  # idempotent


@contextmanager
def _image_errors(name: str) -> Iterator[None]:
    """Turn all errors within the block into an `ImageError` about `name`."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS}"
        raise ImageError(f"{name} has too many pixels to be opened safely: the limit is {limit}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not an image in a format that Pillow reads") from None
    except Exception as error:  # invalid files make Pillow's decoders raise many types
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name} cannot be read: {reason}") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"an image of {image.width} x {image.height} has no pixels")
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in WHITE_LEVELS:
        return _gray_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")  # always a copy


def _gray_to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float32)
    values = np.where(np.isfinite(values), values, 0)
    low, high = values.min(), values.max()
    white = next((level for level in WHITE_LEVELS[image.mode] if low >= 0 and high <= level), None)
    if white is None:  # no convention fits: stretch from the darkest to the lightest pixel
        values, white = values - low, high - low or 1
    return Image.fromarray((values * (255 / white) + 0.5).astype(np.uint8))
