"""Many images through the model: read ahead in background threads, answered in batches, yielded in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Real
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar

from tqdm.auto import tqdm

from ..exceptions import ArgumentError, ArgumentTypeError, ImageError, PromptError, shorten
from ..template.locations import Region

MAX_BYTES_AHEAD = 2**29
"""Memory of prepared items that wait: 10 photographs of 12 million pixels, or 100 of 1 million."""

T = TypeVar("T")
U = TypeVar("U")
R = TypeVar("R")


class _Failure(NamedTuple):
    """An exception that is raised when its turn comes."""

    error: Exception


class _Batch(NamedTuple):
    """Prepared items, and what `start` returned for those that are no exceptions."""

    items: list[Any]
    started: Any


def process_in_batches(
    items: Iterable[T],
    prepare: Callable[[T], U | ImageError | PromptError],
    process: Callable[[Any], list[R]],
    batch_size: int,
    total: int | None,
    description: str,
    num_threads: int = 2,
    num_bytes: Callable[[U], int] | None = None,
    max_batch_bytes: int | None = None,
    start: Callable[[list[U]], Any] | None = None,
    source_bytes: Callable[[T], int] | None = None,
) -> Iterator[R | ImageError | PromptError]:
    """Yield the results of items in order, with a progress bar for more than one batch.

    Args:
        items: what is prepared. If the iterable fails, the results of the items before are yielded first.
        prepare: called in background threads, at most a few batches ahead. A returned exception is yielded in place of a result.
        process: prepared items -> their results.
        batch_size: items processed together.
        total: number of items; None if it is unknown.
        description: of the progress bar.
        num_threads: of `prepare`.
        num_bytes: memory of a prepared item. No more items are prepared while `MAX_BYTES_AHEAD` wait.
        max_batch_bytes: a batch ends with the item that reaches it.
        start: starts the work on prepared items without waiting for it, such as on a GPU. It is called one batch ahead, and
            `process` with what it returns.
        source_bytes: memory of an item before it is prepared. No more items are requested while `MAX_BYTES_AHEAD` wait.
    """
    bar = tqdm(total=total, desc=description, unit="image", disable=total is not None and total <= batch_size)
    readers = _ReadAhead(prepare, num_threads, num_bytes or (lambda _: 0), source_bytes or (lambda _: 0))
    try:
        prepared = readers.map(items, 2 * batch_size)
        batches = (_start(batch, start) for batch in _split(prepared, batch_size, num_bytes, max_batch_bytes))
        for batch in _one_ahead(batches) if start else batches:
            if isinstance(batch.started, _Failure):
                raise batch.started.error
            results = iter(process(batch.started) if batch.started is not None else ())
            for item in batch.items:
                if isinstance(item, _Failure):
                    raise item.error
                bar.update()
                yield item if isinstance(item, (ImageError, PromptError)) else next(results)
    finally:
        bar.close()
        readers.close()


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


def _start(items: list[Any], start: Callable[[list[Any]], Any] | None) -> _Batch:
    valid = [item for item in items if not isinstance(item, (ImageError, PromptError, _Failure))]
    try:
        return _Batch(items, (start(valid) if start else valid) if valid else None)
    except Exception as error:  # the results of the batch before come first
        return _Batch(items, _Failure(error))


def _one_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield items, each after the next one has been computed."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _split(
    items: Iterable[U], batch_size: int, num_bytes: Callable[[Any], int] | None, max_bytes: int | None
) -> Iterator[list[U]]:
    """Yield lists of `batch_size` items, and shorter ones of items that take `max_bytes`."""
    batch: list[U] = []
    size = 0
    for item in items:
        batch.append(item)
        if num_bytes and not isinstance(item, (ImageError, PromptError, _Failure)):
            size += num_bytes(item)
        if len(batch) == batch_size or (max_bytes is not None and size >= max_bytes):
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _until_failure(items: Iterable[T]) -> Iterator[T | _Failure]:
    """Yield items, and the exception of the iterable as the last one."""
    try:
        yield from items
    except Exception as error:
        yield _Failure(error)


class _ReadAhead(Generic[T, U]):
    """Calls a function in threads, ahead of the consumer, within a bound on the memory of what it returns.

    An item is handed to a thread when there is room for it, so no thread ever waits.
    """

    def __init__(
        self,
        function: Callable[[T], U],
        num_threads: int,
        num_bytes: Callable[[Any], int],
        source_bytes: Callable[[T], int],
    ) -> None:
        self._function, self._num_threads = function, num_threads
        self._num_bytes, self._source_bytes = num_bytes, source_bytes
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="florence_lab-reader")
        self._lock = Lock()
        self._waiting: deque[tuple[T, Future[tuple[U, int]]]] = deque()
        self._num_running = self._bytes_ready = 0

    def map(self, items: Iterable[T], max_pending: int) -> Iterator[U | _Failure]:
        """Yield `function(item)` for each item, with at most `max_pending` items ahead. An exception of `items` comes last."""
        pending: deque[Future[tuple[U, int]]] = deque()
        sizes: deque[int] = deque()
        failure = None
        for item in _until_failure(items):
            if isinstance(item, _Failure):
                failure = item
                break
            pending.append(Future())
            sizes.append(self._source_bytes(item))
            with self._lock:
                self._waiting.append((item, pending[-1]))
                self._fill()
            while len(pending) > max_pending or sum(sizes) > MAX_BYTES_AHEAD:
                sizes.popleft()
                yield self._take(pending.popleft())
        while pending:
            yield self._take(pending.popleft())
        if failure:
            yield failure

    def close(self) -> None:
        """Drop what waits. An item that is being read is not waited for."""
        with self._lock:
            self._waiting.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self, future: Future[tuple[U, int]]) -> U:
        value, size = future.result()
        with self._lock:
            self._bytes_ready -= size
            self._fill()
        return value

    def _fill(self) -> None:
        """Hand items to the threads while there is room. The lock is held."""
        while self._waiting and self._num_running < self._num_threads and self._bytes_ready < MAX_BYTES_AHEAD:
            self._num_running += 1
            self._threads.submit(self._run, *self._waiting.popleft())

    def _run(self, item: T, future: Future[tuple[U, int]]) -> None:
        size, error, value = 0, None, None
        try:
            value = self._function(item)
            size = 0 if isinstance(value, Exception) else self._num_bytes(value)
        except BaseException as raised:  # of the function, raised where the item is taken
            error = raised
        with self._lock:
            self._num_running -= 1
            self._bytes_ready += size
        if error is None:
            future.set_result((value, size))  # type: ignore[arg-type]
        else:
            future.set_exception(error)
        with self._lock:
            self._fill()
