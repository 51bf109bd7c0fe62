"""TODO"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .exceptions import ImageError, summarize_error
from .network import run_with_timeout

CHANNELS = (1, 3, 4)

GENERATOR_TAG = "florence_lab scene"
"""How `info["Source"]` of a picture begins that florence_lab drew: in memory, and in its PNG files."""

# What is white in grey images of more than 8 bits: the first level that no pixel exceeds, since "I" and "F"
# do not say. Pillow's own conversion to 8 bits would clip.
WHITE_LEVELS = {"I;16": (65535,), "I;16L": (65535,), "I;16B": (65535,), "I;16N": (65535,)}

WHITE_LEVELS |= {"I": (255, 65535), "F": (1, 255, 65535)}


def load_image(source: Any, timeout: float = 10.0, max_bytes: int = 64 * 2**20) -> Image.Image:
    """Read `source` as an upright, 8-bit RGB image; `source` itself is left as it was.

    Transparent parts are laid over white, the camera's orientation (EXIF) is applied, grey of more than 8
    bits is scaled to 8, and of an animation the first frame is taken.

    Args:
        source: a path (`~` works), an http or https URL, `bytes`, a binary file object, a PIL image, a NumPy
            array (H x W, or H x W x C with 1, 3 or 4 channels; `uint8`, or floats in [0, 1]), or a torch
            tensor of the same kind, which may also be C x H x W (and is taken as that where both orders fit).
        timeout: seconds that fetching a URL may take in all.
        max_bytes: the most that is read from a URL.

    Raises:
        ImageError: for anything else. A file of more than `PIL.Image.MAX_IMAGE_PIXELS` pixels is refused.
    """
    if isinstance(source, Image.Image):
        with _naming(f"the PIL image given ({source.mode}, {source.width} x {source.height})"):
            return _upright_rgb(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), "the bytes given")
    if isinstance(source, str) and (scheme := re.match(r"([A-Za-z][\w+.-]+)://", source)):
        return _load_url(source, scheme[1].lower(), timeout, max_bytes)
    if isinstance(source, (str, os.PathLike)):
        return _load_path(Path(source))
    if hasattr(source, "read"):
        return _load_file(source)
    if hasattr(source, "detach"):
        return _from_array(_tensor_to_array(source), "the tensor given")
    if isinstance(source, np.ndarray):
        return _from_array(source, "the array given")
    raise ImageError(
        f"cannot read an image from {type(source).__name__}: give a path, URL, bytes, file object, PIL image "
        "or NumPy array, or a torch tensor"
    )


def _load_path(path: Path) -> Image.Image:
    name = str(path) if len(str(path)) <= 200 else f"{str(path)[:200]}..."
    with _naming(name):
        path = path.expanduser()
        if not path.exists():
            raise ImageError(f"{name} does not exist")
        if not path.is_file():
            raise ImageError(f"{name} is a folder, not an image" if path.is_dir() else f"{name} is not a file")
        if path.stat().st_size == 0:
            raise ImageError(f"{name} is empty")
        with path.open("rb") as file:
            return _open(file, name)


def _load_file(file: BinaryIO) -> Image.Image:
    name = str(getattr(file, "name", "the file object given"))
    with _naming(name):
        rewinds = hasattr(file, "seekable") and file.seekable()
        position = file.tell() if rewinds else 0
        if rewinds:
            file.seek(0)  # from the start, as Pillow does: a buffer just written to stands at its end
        data = file.read()
        if rewinds:
            file.seek(position)
    if isinstance(data, str):
        raise ImageError(f"{name} was opened as text; open it in binary mode, 'rb'")
    return _decode(data, name)


def _load_url(url: str, scheme: str, timeout: float, max_bytes: int) -> Image.Image:
    if scheme not in ("http", "https"):
        raise ImageError(f"{url} is not read: only http and https URLs are, not {scheme}")
    try:
        data, content_type = run_with_timeout(timeout, lambda: _fetch(url, timeout, max_bytes))
    except TimeoutError:
        raise ImageError(f"{url} could not be read within {timeout:g} s") from None
    return _decode(data, f"{url} (which is {content_type})")


def _fetch(url: str, timeout: float, max_bytes: int) -> tuple[bytes, str]:
    """The body behind `url` and its content type. The caller sees to it that all takes at most `timeout`."""
    import requests

    too_much = f"{url} is larger than the {max_bytes} bytes allowed (max_bytes)"
    deadline = time.monotonic() + timeout
    data = bytearray()
    try:
        with requests.get(url, stream=True, timeout=timeout, headers={"User-Agent": "florence_lab"}) as response:
            if not response.ok:
                raise ImageError(f"{url} answered {response.status_code} {response.reason}")
            if int(response.headers.get("Content-Length", 0)) > max_bytes:
                raise ImageError(too_much)
            for chunk in response.iter_content(2**14):
                data += chunk
                if len(data) > max_bytes:
                    raise ImageError(too_much)
                if time.monotonic() > deadline:  # nobody waits any more: leave, lest the thread stays
                    raise TimeoutError
            return bytes(data), response.headers.get("Content-Type", "of no stated type")
    except ImageError:
        raise
    except (requests.RequestException, ValueError) as error:
        raise ImageError(f"{url} cannot be fetched: {summarize_error(error)}") from error


def _tensor_to_array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # NumPy has no bfloat16
    array = tensor.numpy()
    return array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] in CHANNELS else array


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in CHANNELS or pixels.size == 0:
        raise ImageError(f"{name} has shape {array.shape}; an image has H x W, H x W x 1, H x W x 3 or H x W x 4")
    if np.issubdtype(pixels.dtype, np.floating):
        low, high = pixels.min(), pixels.max()
        if not (low >= 0 and high <= 1):  # said this way round, it refuses NaN too
            raise ImageError(f"{name} has floats from {low:g} to {high:g}; they must be in [0, 1]")
        pixels = (pixels * 255 + 0.5).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageError(f"{name} is {array.dtype}; it must be uint8, or floats in [0, 1]")
    return _upright_rgb(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _decode(data: bytes, name: str) -> Image.Image:
    if not data:
        raise ImageError(f"{name} is empty")
    with _naming(name):
        return _open(io.BytesIO(data), name)


def _open(file: BinaryIO, name: str) -> Image.Image:
    with Image.open(file) as image:
        limit = Image.MAX_IMAGE_PIXELS
        # Pillow itself only warns up to twice its limit. Nothing is decoded before this line.
        if limit and image.width * image.height > limit:
            raise Image.DecompressionBombError
        return _upright_rgb(image)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into an `ImageError` about `name`."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS}"
        raise ImageError(f"{name} has more pixels than are safe to open: the limit is {limit}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not an image, or of a kind that Pillow cannot read") from None
    except Exception as error:  # broken files make Pillow's decoders raise nearly anything
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name} cannot be read: {reason}") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)  # always a copy
    if image.mode in WHITE_LEVELS:
        return _grey_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _grey_to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float32)
    values = np.where(np.isfinite(values), values, 0)
    low, high = values.min(), values.max()
    white = next((level for level in WHITE_LEVELS[image.mode] if low >= 0 and high <= level), None)
    if white is None:  # no convention fits, so darkest to lightest
        values, white = values - low, high - low or 1
    return Image.fromarray((values * (255 / white) + 0.5).astype(np.uint8))


def list_images(folder: str | Path) -> list[Path]:
    """Return the image files of a folder, sorted by name. Files are recognized by their extension.

    Raises:
        ValueError: if there is no such folder, or no image in it.
    """
    folder = Path(folder).expanduser()
    if folder.is_file():
        raise ValueError(f"{folder} is a file; for one image use predict, or pass a list: [{str(folder)!r}]")
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; pass a folder or a list of images")
    known = Image.registered_extensions()
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in known)
    if not paths:
        raise ValueError(f"{folder} contains no image files")
    return paths
