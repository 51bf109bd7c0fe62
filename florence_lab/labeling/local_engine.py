"""Labelling in this process."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm.auto import tqdm

from .batches import BatchCount, label_items, missing_items
from .labeler import BatchLabeler
from .parts import PartStore
from .sources import Source


def run_locally(
    labeler: BatchLabeler, sources: Sequence[Source], done: set[str], store: PartStore, batch_size: int
) -> BatchCount:
    """Label all images that have no labels yet, with a progress bar, and return their number and that of errors.

    Args:
        labeler: the model.
        sources: what is labelled.
        done: the keys of images that have labels.
        store: where parts are written.
        batch_size: images that are labelled together, and whose labels are one part.
    """
    total = None if any(not source.is_file for source in sources) else sum(s.path not in done for s in sources)
    num_images = num_errors = 0
    with tqdm(total=total, desc="label", unit="image", disable=total == 0) as bar:
        for count in label_items(labeler, missing_items(sources, done), store, batch_size):
            num_images += count.images
            num_errors += count.errors
            bar.set_postfix(errors=num_errors, refresh=False)
            bar.update(count.images)
    return BatchCount(num_images, num_errors)
