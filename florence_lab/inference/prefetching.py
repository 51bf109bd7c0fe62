"""Reading images ahead of the model, in background threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple, TypeVar

from ..exceptions import ArgumentError

T = TypeVar("T")
U = TypeVar("U")


class SourceFailure(NamedTuple):
    """The exception of an iterator of images, which ends it."""

    error: Exception


def prefetch_map(
    executor: Executor, function: Callable[[T], U], items: Iterable[T], max_pending: int
) -> Iterator[U | SourceFailure]:
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
        failure = SourceFailure(error)
    while pending:
        yield pending.popleft().result()
    if failure:
        yield failure


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
