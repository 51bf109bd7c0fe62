"""Labelling in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from tqdm.auto import tqdm

from .batches import BatchCount, LoadedItem, label_batch, load_item, missing_items
from .labeler import BatchLabeler
from .parts import PartStore
from .sources import Item, Source

_NUM_READERS = 2


def run_locally(
    labeler: BatchLabeler, sources: Sequence[Source], done: set[str], store: PartStore, batch_size: int
) -> BatchCount:
    """Label all images that have no labels yet, with a progress bar, and return their number and that of errors.

    Images are read in background threads, at most a batch ahead. After each batch its part is on disk.

    Args:
        labeler: the model.
        sources: what is labelled.
        done: the keys of images that have labels.
        store: where parts are written.
        batch_size: images that are labelled together.
    """
    total = None if any(not source.is_file for source in sources) else sum(s.path not in done for s in sources)
    num_images = num_errors = 0
    readers = ThreadPoolExecutor(_NUM_READERS)
    try:
        with tqdm(total=total, desc="label", unit="image", disable=total == 0) as bar:
            loaded = _read_ahead(readers, missing_items(sources, done), batch_size)
            while batch := list(islice(loaded, batch_size)):
                count = label_batch(labeler, batch, store)
                num_images += count.images
                num_errors += count.errors
                bar.set_postfix(errors=num_errors, refresh=False)
                bar.update(count.images)
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
    return BatchCount(num_images, num_errors)


def _read_ahead(readers: ThreadPoolExecutor, items: Iterator[Item], count: int) -> Iterator[LoadedItem]:
    """Yield items with their images, of which at most `count` are read ahead."""
    pending: deque[Future[LoadedItem]] = deque()
    for item in items:
        pending.append(readers.submit(load_item, item))
        if len(pending) > count:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
