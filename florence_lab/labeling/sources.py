"""What is labelled: image files, URLs, videos, and shards with many images (WebDataset and Parquet)."""

from __future__ import annotations

import glob
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..exceptions import (
    ArgumentError,
    ArgumentTypeError,
    DatasetError,
    FlorenceLabError,
    ImageError,
    capture_warnings,
    shorten,
    summarize_error,
)
from ..sources import expand_sources, is_url, is_video, list_images

SHARD_EXTENSIONS = (".tar", ".parquet")
"""Files with many images: WebDataset, and tables with a column of images."""

_IMAGE_SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .png .ppm .tif .tiff .webp .heic .heif .jp2 .avif".split())
_IMAGE_COLUMNS = ("image", "bytes", "jpg", "png", "img")
_PATH_COLUMNS = ("path", "file_name", "__key__", "key", "id", "image_id")


@dataclass(frozen=True)
class Source:
    """A file or URL with one image or more.

    Attributes:
        path: the absolute path, or the URL.
        name: the path relative to the folder that was given.
        signature: size in bytes and time of the last change; "" for a URL.
    """

    path: str
    name: str
    signature: str = ""

    @property
    def is_file(self) -> bool:
        """Whether the source is the file of a single image."""
        return not (is_url(self.path) or is_video(self.path) or self.is_shard)

    @property
    def is_shard(self) -> bool:
        """Whether the source contains many images."""
        return Path(self.path).suffix.lower() in SHARD_EXTENSIONS and not is_url(self.path)


@dataclass(frozen=True)
class Item:
    """An image before it is read.

    Attributes:
        key: see `LabelledImage.key`.
        name: see `LabelledImage.name`.
        source: where it comes from.
        image: what `load_image` reads, or the `ImageError` that it raises.
    """

    key: str
    name: str
    source: Source
    image: Any


def list_label_sources(images: str | Path | Iterable[str | Path], recursive: bool = False) -> list[Source]:
    """Return the files of folders, patterns and paths, and URLs. Each occurs once.

    Args:
        images: one or several paths, patterns such as `scans/*.png`, folders, videos, shards (`.tar`, `.parquet`) and URLs.
        recursive: also take the files in the folders of a folder.

    Raises:
        ImageError: for a path that does not exist, a folder without images, and a pattern that nothing matches.
        ArgumentError: for anything that is no path, and for nothing.
    """
    items: Any = [images] if isinstance(images, (str, Path)) else images
    if not isinstance(items, Iterable):
        raise ArgumentTypeError(f"images must be paths, folders, patterns or URLs, got {shorten(images)}")
    found: dict[str, Source] = {}
    for item in items:
        if not isinstance(item, (str, Path)):
            raise ArgumentTypeError(f"images must be paths, folders, patterns or URLs, got {shorten(item)}")
        for source in _list(item, recursive):
            found.setdefault(source.path, source)
    if not found:
        raise ArgumentError("images must name at least one image, got none")
    return list(found.values())


def read_source(source: Source) -> Iterator[Item]:
    """Yield the images of a source. A source that cannot be read yields one item, with the `ImageError`."""
    if is_video(source.path):
        yield from _read_video(source)
        return
    if not source.is_shard:
        yield Item(source.path, source.name, source, source.path)
        return
    read: Callable[[Source], Iterator[Item]] = _read_tar if source.path.lower().endswith(".tar") else _read_parquet
    try:
        yield from read(source)
    except Exception as error:  # damaged archives and tables raise many types
        reason = error if isinstance(error, ImageError) else f"{source.path} cannot be read: {summarize_error(error)}"
        yield Item(f"{source.path}#", source.name, source, ImageError(str(reason)))


def _list(item: str | Path, recursive: bool) -> Iterator[Source]:
    if is_url(item):
        yield Source(str(item), PurePosixPath(str(item).partition("?")[0]).name or "image")
        return
    if not str(item):
        raise ArgumentError("the path is empty; is a shell variable unset?")
    path = expand_user(item)
    try:
        if path.is_dir():
            files, root = _list_folder(path, recursive), path
        elif path.exists():
            files, root = [path], path.parent
        else:
            files, root = _match(path), _fixed_part(path)
    except (OSError, ValueError) as error:  # a name that is too long, or contains a null byte
        if isinstance(error, FlorenceLabError):
            raise
        raise ImageError(f"{shorten(str(item), 300)} cannot be read: {summarize_error(error)}") from error
    for file in files:
        yield _to_source(file, root)


def expand_user(path: str | Path) -> Path:
    """Return a path with the home directory in place of `~`.

    Raises:
        ArgumentError: for the home directory of a user who does not exist.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ArgumentError(f"{shorten(str(path), 300)} does not exist: {summarize_error(error)}") from error


def _list_folder(folder: Path, recursive: bool) -> list[Path]:
    """The images and shards of a folder, which may contain both. What is in a hidden folder is left out, such as `.parts`."""
    shards = [
        path
        for path in (folder.rglob("*") if recursive else folder.iterdir())
        if path.suffix.lower() in SHARD_EXTENSIONS and not path.name.startswith(".") and path.is_file()
    ]
    if not shards:
        images = list_images(folder, recursive)
    else:
        with capture_warnings():  # that shards are no images
            try:
                images = list_images(folder, recursive)
            except ImageError:  # there is none
                images = []
    found = sorted(path for path in (*images, *shards) if not _is_hidden(path.relative_to(folder).parent))
    if not found:
        raise ImageError(f"{folder} contains images in hidden folders only")
    return found


def _is_hidden(folder: Path) -> bool:
    return any(part.startswith(".") for part in folder.parts)


def _match(pattern: Path) -> list[Path]:
    files = [file for file in sorted(map(Path, glob.glob(str(pattern), recursive=True))) if file.is_file()]
    if not files:
        raise ImageError(f"{shorten(str(pattern), 300)} does not exist, and matches no file")
    return files


def _to_source(file: Path, root: Path) -> Source:
    absolute = file.absolute()
    name = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
    try:
        status = absolute.stat()
    except OSError:  # a link to nothing; reading it says so
        return Source(str(absolute), name.as_posix())
    return Source(str(absolute), name.as_posix(), f"{status.st_size}-{status.st_mtime_ns}")


def _fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before the first one with a wildcard."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _read_video(source: Source) -> Iterator[Item]:
    for frame in expand_sources([source.path]):
        time = frame.name.partition("#")[2]
        name = f"{source.name}_{time}.png" if time else source.name
        yield Item(frame.name, name, source, frame.image)


def _read_tar(source: Source) -> Iterator[Item]:
    """Yield the images of a WebDataset shard. What is no image, such as a caption, is passed over."""
    with tarfile.open(source.path, "r|*") as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if not member.isfile() or path.suffix.lower() not in _IMAGE_SUFFIXES or path.name.startswith("."):
                continue
            file = archive.extractfile(member)
            assert file is not None  # it is a regular file
            name = f"{Path(source.name).stem}/{member.name.lstrip('./')}"
            yield Item(f"{source.path}#{member.name}", name, source, file.read())


def _read_parquet(source: Source) -> Iterator[Item]:
    """Yield the images of a table: a column of bytes, or of `{"bytes", "path"}` as `datasets` writes."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(source.path)
    columns = table.schema_arrow.names
    column = next((name for name in _IMAGE_COLUMNS if name in columns), None)
    if column is None:
        raise DatasetError(
            f"{source.path} has no column of images, {', '.join(_IMAGE_COLUMNS)}; its columns are {', '.join(columns[:20])}"
        )
    name_column = next((name for name in _PATH_COLUMNS if name in columns), None)
    number = 0
    for batch in table.iter_batches(batch_size=16, columns=list(filter(None, (column, name_column)))):
        for row in batch.to_pylist():
            yield _to_item(source, number, row[column], row.get(name_column) if name_column else None)
            number += 1


def _to_item(source: Source, number: int, image: Any, name: Any) -> Item:
    """The item of a row of a table. Its key is its number, as names may occur twice."""
    if isinstance(image, dict):
        name = name if name is not None else image.get("path")
        image = image.get("bytes") or image.get("path")
    key = f"{source.path}#{number}"
    if isinstance(image, str) and not is_url(image):
        image = Path(source.path).parent / image
    if not image:
        image = ImageError(f"{key} has no image")
    stem = str(name).lstrip("./") if name is not None else f"{number:08d}"
    return Item(key, f"{Path(source.name).stem}/{stem}", source, image)
