"""From paths, folders, patterns and videos to the images in them."""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import numpy as np
from PIL import Image

from .argument_validation import Range, validate_arguments, validate_value
from .exceptions import ArgumentError, ArgumentTypeError, ImageError, shorten, summarize_error, warn
from .images import HEIF_EXTENSIONS, VIDEO_EXTENSIONS

_URL_RE = re.compile(r"[A-Za-z][\w+.-]+://|data:image/", re.IGNORECASE)
_NUM_NAMES_SHOWN = 5


class NamedSource(NamedTuple):
    """An image before it is read.

    Attributes:
        name: the path or URL; for the frame of a video `clip.mp4#t=3.0`, with its time in seconds.
        image: what `load_image` reads; an `ImageError`, which `load_image` raises, if there is no image.
    """

    name: str
    image: Any


@validate_arguments
def expand_sources(
    sources: Iterable[str | Path],
    recursive: bool = False,
    frame_interval: Annotated[float, Range(0, is_open=True)] = 1.0,
) -> Iterator[NamedSource]:
    """Return an iterator over the images of files, folders, patterns, URLs and videos, in this order.

    A source without an image yields one whose `image` is the `ImageError`. Files of a folder that are neither images nor videos
    are left out with a warning; those whose name starts with a dot are ignored.

    Args:
        sources: paths, patterns such as `scans/*.png` (`**` matches folders), folders, URLs and video files.
        recursive: also take the files in the folders of a folder.
        frame_interval: seconds between the frames of a video; less than the duration of a frame takes each.

    Raises:
        ArgumentError: for a source that is neither a string nor a path, or a frame interval that is not positive.
    """
    return (named for source in sources for named in _expand(source, recursive, frame_interval))


@validate_arguments
def list_images(folder: str | Path, recursive: bool = False) -> list[Path]:
    """Return the image and video files of a folder, sorted by path. They are recognized by their extension.

    Other files are left out with a warning.

    Args:
        folder: the folder.
        recursive: also list the files in its folders.

    Raises:
        ImageError: if there is no such folder, or no image in it.
    """
    folder = _expand_user(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder")
    known = {*Image.registered_extensions(), *HEIF_EXTENSIONS, *VIDEO_EXTENSIONS}
    images: list[Path] = []
    others: list[Path] = []
    num_folders = 0
    try:
        for path in sorted(folder.rglob("*") if recursive else folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                num_folders += 1
            else:
                (images if path.suffix.lower() in known else others).append(path)
    except OSError as error:
        raise ImageError(f"{folder} cannot be read: {error.strerror}") from error
    left_out = _describe_left_out(others, 0 if recursive else num_folders)
    if not images:
        raise ImageError(f"{folder} contains no image files" + (f", but {left_out}" if left_out else ""))
    if left_out:
        warn(f"{folder}: {left_out} left out")
    return images


def list_sources(images: str | Path | Iterable[Any]) -> Iterable[Any]:
    """Return the images of an iterable, or those that a path, a pattern or a single image stands for.

    The result is a sequence if the number of images is known before they are read.

    Raises:
        ImageError: for a folder without images, and for a path that does not exist.
        ArgumentTypeError: for anything that is not iterable, and for a mapping.
    """
    if isinstance(images, (str, os.PathLike)):
        return _list_path(validate_value("images", images, str | Path))
    is_array = getattr(images, "ndim", 4) < 4  # of NumPy or torch; a fourth axis is that of the images
    if is_array or isinstance(images, (Image.Image, bytes, bytearray)) or hasattr(images, "read"):
        return [images]
    if isinstance(images, Mapping) or not hasattr(images, "__iter__"):
        raise ArgumentTypeError(f"images must be a list of images, a folder or one image, got {shorten(images)}")
    return images


def import_supervision() -> ModuleType:
    """Import supervision without its warning about missing OpenCV: it reads videos with PyAV, and conversions need neither."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="OpenCV")
        import supervision

    return supervision


def is_url(source: Any) -> bool:
    """Return whether a source is a URL, including data URLs of images."""
    return isinstance(source, str) and _URL_RE.match(source) is not None


def is_video(source: Any) -> bool:
    """Return whether a source is the path of a video file, by its extension."""
    is_path = isinstance(source, (str, os.PathLike)) and not is_url(source)
    return is_path and Path(source).suffix.lower() in VIDEO_EXTENSIONS


def _list_path(path: str | Path) -> Iterable[Any]:
    if is_url(path):
        return [path]
    if os.path.isdir(_expand_user(path)):
        paths = list_images(path)
    elif os.path.exists(_expand_user(path)):
        paths = [Path(path)]
    elif not (paths := sorted(map(Path, glob.glob(str(_expand_user(path)), recursive=True)))):
        raise ImageError(f"{shorten(str(path), 300)} does not exist")
    if any(map(is_video, paths)):
        return (source.image for source in expand_sources(paths))
    return paths


def _expand(source: str | Path, recursive: bool, frame_interval: float) -> Iterator[NamedSource]:
    name = str(source)
    if is_url(name):
        yield NamedSource(name, name)
        return
    try:
        path = _expand_user(source)
        if path.is_dir():
            for file in list_images(path, recursive):
                yield from _expand(file, recursive, frame_interval)
        elif glob.has_magic(name) and not path.exists():
            matches = sorted(glob.glob(str(path), recursive=True))
            if not matches:
                raise ImageError(f"no file matches {name}")
            for match in matches:
                yield from _expand(Path(match), recursive, frame_interval)
        elif is_video(path) and path.is_file():
            yield from _read_frames(path, name, frame_interval)
        else:
            yield NamedSource(name, path)
    except ImageError as error:
        yield NamedSource(name, error)
    except (OSError, ValueError) as error:  # a name that is too long, or contains a null byte
        yield NamedSource(name, ImageError(f"{shorten(name)} cannot be read: {summarize_error(error)}"))


def _read_frames(path: Path, name: str, frame_interval: float) -> Iterator[NamedSource]:
    """Yield a frame of a video every `frame_interval` seconds."""
    sv = import_supervision()
    try:
        frames_per_second = sv.VideoInfo.from_video_path(str(path)).fps
        if not 0 < frames_per_second < 10_000:
            raise ImageError(f"{name} states {frames_per_second:g} frames per second")
        stride = max(1, round(frames_per_second * frame_interval))
        num_frames = 0
        for number, frame in enumerate(sv.get_video_frames_generator(str(path), stride=stride)):
            num_frames += 1
            rgb = Image.fromarray(np.ascontiguousarray(frame[..., ::-1]))  # OpenCV's order is BGR
            yield NamedSource(f"{name}#t={number * stride / frames_per_second:.3f}".rstrip("0").rstrip("."), rgb)
        if not num_frames:
            raise ImageError(f"{name} contains no frames")
    except ImageError as error:
        yield NamedSource(name, error)
    except Exception as error:  # decoders raise many types for damaged files
        yield NamedSource(name, ImageError(f"{name} cannot be read as a video: {summarize_error(error)}"))


def _expand_user(path: str | Path) -> Path:
    if not str(path):
        raise ArgumentError("the path is empty; is a shell variable unset?")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # no home directory of that user
        raise ImageError(f"{shorten(str(path))} cannot be read: {summarize_error(error)}") from error


def _describe_left_out(files: list[Path], num_folders: int) -> str:
    parts = []
    if files:
        names = ", ".join(path.name for path in files[:_NUM_NAMES_SHOWN])
        more = ", ..." if len(files) > _NUM_NAMES_SHOWN else ""
        parts.append(f"{len(files)} file{'s' * (len(files) > 1)} of another kind ({names}{more})")
    if num_folders:
        parts.append(f"{num_folders} folder{'s' * (num_folders > 1)} (see `recursive`)")
    return " and ".join(parts)
