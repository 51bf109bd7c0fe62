"""Many images through the model: read ahead in background threads, answered in batches, yielded in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from numbers import Real
from typing import Any, NamedTuple, TypeVar

from tqdm.auto import tqdm

from ..exceptions import ArgumentError, ArgumentTypeError, ImageError, PromptError, shorten
from ..template.locations import Region

_NUM_READER_THREADS = 2

T = TypeVar("T")
U = TypeVar("U")
R = TypeVar("R")


class _SourceFailure(NamedTuple):
    """The exception of an iterator of images, which ends it."""

    error: Exception


def process_in_batches(
    items: Iterable[T],
    prepare: Callable[[T], U | ImageError | PromptError],
    process: Callable[[list[U]], list[R]],
    batch_size: int,
    total: int | None,
    description: str,
) -> Iterator[R | ImageError | PromptError]:
    """Yield the results of items in order, with a progress bar for more than one batch.

    Args:
        items: what is prepared. If the iterable fails, the results of the items before are yielded first.
        prepare: called in background threads, at most a few batches ahead. A returned exception is yielded in place of a result.
        process: prepared items -> their results.
        batch_size: items processed together.
        total: number of items; None if it is unknown.
        description: of the progress bar.
    """
    bar = tqdm(total=total, desc=description, unit="image", disable=total is not None and total <= batch_size)
    readers = ThreadPoolExecutor(_NUM_READER_THREADS)
    try:
        prefetched = _prefetch_map(readers, prepare, items, 2 * batch_size)
        while batch := list(islice(prefetched, batch_size)):
            valid = [item for item in batch if not isinstance(item, (ImageError, PromptError, _SourceFailure))]
            results = iter(process(valid) if valid else ())
            for item in batch:
                if isinstance(item, _SourceFailure):
                    raise item.error
                bar.update()
                yield item if isinstance(item, (ImageError, PromptError)) else next(results)
    finally:
        bar.close()
        readers.shutdown(wait=False, cancel_futures=True)  # an image that is being read is not waited for


def zip_texts(sources: Iterable[Any], texts: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield pairs of image and text.

    Raises:
        ArgumentError: after the last pair, if there is another number of texts than of images.
    """
    num_images = 0
    for num_images, source in enumerate(sources, 1):
        if num_images > len(texts):
            raise unequal_numbers(f"at least {num_images}", len(texts))
        yield source, texts[num_images - 1]
    if num_images < len(texts):
        raise unequal_numbers(num_images, len(texts))


def unequal_numbers(num_images: int | str, num_texts: int) -> ArgumentError:
    """Return the error for another number of texts than of images."""
    return ArgumentError(f"{num_images} images, but {num_texts} texts: give one text for all images, or one for each")


def list_tasks(tasks: Any) -> list[tuple[str, str | Region | None]]:
    """Return each task as a pair of task and text.

    Raises:
        ArgumentError: for anything but a list of tasks and of pairs.
    """
    if isinstance(tasks, str) or not isinstance(tasks, Sequence):
        raise ArgumentTypeError(f"tasks must be a list of tasks, got {shorten(tasks)}; use predict for one task")
    pairs = [(task, None) if isinstance(task, str) else task for task in tasks]
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ArgumentTypeError(f"each of tasks must be a string or a pair of task and text, got {shorten(pair)}")
    return pairs


def list_texts(text: Any) -> list[Any] | None:
    """Return the texts if there is one for each image; None if there is one for all. A list of four numbers is one region."""
    is_region = isinstance(text, list) and len(text) == 4 and all(isinstance(value, Real) for value in text)
    return text if isinstance(text, list) and not is_region else None


def _prefetch_map(
    executor: Executor, function: Callable[[T], U], items: Iterable[T], max_pending: int
) -> Iterator[U | _SourceFailure]:
    """Yield `function(item)` for each item, computed in an executor, with at most `max_pending` items ahead.

    (`Executor.map(buffersize=…)` does this from Python 3.14 on.) An exception of `items` comes last, as an item.
    """
    pending: deque[Future[U]] = deque()
    failure = None
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > max_pending:
                yield pending.popleft().result()
    except Exception as error:
        failure = _SourceFailure(error)
    while pending:
        yield pending.popleft().result()
    if failure:
        yield failure
