"""A batch of images, from reading to its part: what both engines do."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from ..exceptions import ImageError
from ..images import load_image
from ..output_files import replace_file
from .labeler import BatchLabeler
from .parts import PartStore
from .records import LabelledImage
from .sources import Item, Source, read_source

_NUM_READERS = 2


class LoadedItem(NamedTuple):
    """An image that has been read: upright RGB, or why it cannot be read."""

    item: Item
    image: Image.Image | ImageError


class BatchCount(NamedTuple):
    """The number of images of a batch, and how many of them could not be labelled."""

    images: int
    errors: int


def load_item(item: Item) -> LoadedItem:
    """Read an image. Errors become a part of the result."""
    try:
        return LoadedItem(item, load_image(item.image))
    except ImageError as error:
        return LoadedItem(item, error)


def missing_items(sources: Sequence[Source], done: frozenset[str] | set[str]) -> Iterator[Item]:
    """Yield the images of sources whose keys are not in `done`."""
    for source in sources:
        if source.is_file and source.path in done:  # without reading it
            continue
        yield from (item for item in read_source(source) if item.key not in done)


def label_items(
    labeler: BatchLabeler, items: Iterator[Item], store: PartStore, batch_size: int
) -> Iterator[BatchCount]:
    """Label images in batches, and yield the count of each batch when its part is on disk.

    Images are read in background threads, at most a batch ahead.

    Args:
        labeler: the model.
        items: the images.
        store: where parts are written.
        batch_size: images that are labelled together.
    """
    readers = ThreadPoolExecutor(_NUM_READERS)
    try:
        loaded = _read_ahead(readers, items, batch_size)
        while batch := list(islice(loaded, batch_size)):
            yield label_batch(labeler, batch, store)
    finally:
        readers.shutdown(wait=False, cancel_futures=True)  # an image that is being read is not waited for


def label_batch(labeler: BatchLabeler, batch: Sequence[LoadedItem], store: PartStore) -> BatchCount:
    """Label a batch and write its part. Nothing is done if this run has written the part already, as after a retry.

    Args:
        labeler: the model.
        batch: at least one image.
        store: where the part is written.
    """
    num_errors = sum(isinstance(loaded.image, ImageError) for loaded in batch)
    if not store.has([loaded.item.key for loaded in batch]):
        images = [loaded.image for loaded in batch if not isinstance(loaded.image, ImageError)]
        labels = iter(labeler.label(images) if images else ())
        rows = []
        for item, image in batch:
            row = LabelledImage(item.key, item.name, item.source.path, item.source.signature)
            if isinstance(image, ImageError):
                rows.append(replace(row, error=str(image)))
            else:
                found = next(labels)
                stored = "" if item.source.is_file else _store_image(item, image, store.images)
                rows.append(replace(row, size=found.size, objects=found.objects, answers=found.answers, stored=stored))
        store.write(rows)
    return BatchCount(len(batch), num_errors)


def _read_ahead(readers: ThreadPoolExecutor, items: Iterator[Item], count: int) -> Iterator[LoadedItem]:
    """Yield items with their images, of which at most `count` are read ahead."""
    pending: deque[Future[LoadedItem]] = deque()
    for item in items:
        pending.append(readers.submit(load_item, item))
        if len(pending) > count:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _store_image(item: Item, image: Image.Image, folder: Path) -> str:
    """Write an image that is no file of its own, and return the name of its file. Bytes are kept as they are."""
    if isinstance(item.image, bytes):
        extension = PurePosixPath(item.name).suffix.lower()
        data = item.image
        if len(extension) < 2 or extension not in Image.registered_extensions():
            extension = f".{(Image.open(io.BytesIO(data)).format or 'png').lower()}"
    else:
        extension, buffer = ".png", io.BytesIO()
        image.save(buffer, "PNG")
        data = buffer.getvalue()
    digest = hashlib.sha256(item.key.encode("utf-8", "surrogateescape")).hexdigest()
    name = f"{digest[:2]}/{digest[:20]}{extension}"
    (folder / digest[:2]).mkdir(parents=True, exist_ok=True)
    with replace_file(folder / name) as temporary:
        temporary.write_bytes(data)
    return name
