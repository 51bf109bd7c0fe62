"""Reading ahead, splitting into batches, and the order of results."""

import itertools
import threading
import time

import pytest

from florence_lab.exceptions import ImageError
from florence_lab.inference import batching
from florence_lab.inference.batching import process_in_batches

MEGABYTE = 2**20


def run(items, prepare=lambda item: item, process=list, batch_size=2, **options):
    return process_in_batches(items, prepare, process, batch_size, None, "", **options)


@pytest.fixture
def limit(monkeypatch):
    monkeypatch.setattr(batching, "MAX_BYTES_AHEAD", 10 * MEGABYTE)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
@pytest.mark.parametrize("num_threads", [1, 2, 8])
@pytest.mark.parametrize("num_bytes", [None, lambda item: item * 3 * MEGABYTE])
def test_results_keep_their_order(batch_size, num_threads, num_bytes, limit):
    def prepare(item):
        time.sleep(0.002 * (item % 3))
        return ImageError(str(item)) if item % 5 == 4 else item

    results = run(range(30), prepare, batch_size=batch_size, num_threads=num_threads, num_bytes=num_bytes)
    assert [str(result) for result in results] == [str(item) for item in range(30)]


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("megabytes", [1, 4, 50])
def test_what_waits_stays_within_the_bound(num_threads, megabytes, limit):
    ready = []
    results = run(
        range(100),
        lambda item: ready.append(item) or item,
        batch_size=40,
        num_threads=num_threads,
        num_bytes=lambda _: megabytes * MEGABYTE,
        max_batch_bytes=1,  # one item a batch
    )
    for consumed in range(1, 5):
        next(results)
        time.sleep(0.05)
        # what fits, and what each thread had begun before the bound was reached
        assert len(ready) - consumed <= -(-10 // megabytes) + num_threads - 1
    assert [next(results) for _ in range(3)] == [4, 5, 6]
    results.close()


def test_a_batch_ends_with_the_item_that_reaches_its_bytes():
    sizes = [3, 3, 3, 9, 1, 1, 1, 1, 1]
    batches = []
    assert (
        list(
            run(
                sizes,
                process=lambda batch: batches.append(batch) or batch,
                batch_size=4,
                num_bytes=int,
                max_batch_bytes=6,
            )
        )
        == sizes
    )
    assert batches == [[3, 3], [3, 9], [1, 1, 1, 1], [1]]


def test_work_starts_one_batch_ahead():
    log = []
    results = run(
        range(6),
        process=lambda batch: log.append(("process", batch[0])) or batch,
        start=lambda batch: log.append(("start", batch[0])) or batch,
    )
    assert list(results) == list(range(6))
    assert log == [("start", 0), ("start", 2), ("process", 0), ("start", 4), ("process", 2), ("process", 4)]


@pytest.mark.parametrize("place", ["start", "process"])
def test_an_error_comes_after_the_results_before(place):
    def fail(batch):
        if 4 in batch:
            raise RuntimeError("out of memory")
        return batch

    results = run(range(6), **{"start": list, place: fail})
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="out of memory"):
        next(results)


def test_an_error_of_the_source_comes_after_the_results_before():
    def source():
        yield from range(3)
        raise KeyError("source")

    results = run(source(), start=list)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="source"):
        next(results)


def test_another_error_of_a_thread_is_raised_where_the_item_is_taken():
    results = run(range(6), lambda item: item if item < 4 else 1 // 0)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_an_endless_source_is_read_a_few_batches_ahead():
    taken = []
    results = run((taken.append(item) or item for item in itertools.count()), batch_size=3)
    assert [next(results) for _ in range(7)] == list(range(7))
    assert len(taken) <= 9 + 2 * 3 + 1
    results.close()


def test_closing_reads_nothing_more():
    started = []
    gate = threading.Event()

    def prepare(item):
        started.append(item)
        return item if item < 2 else gate.wait(5)

    results = run(range(20), prepare)
    assert next(results) == 0
    results.close()
    gate.set()
    time.sleep(0.05)
    assert len(started) <= 4
    assert not any(thread.name.startswith("florence_lab-reader") for thread in threading.enumerate())


def test_few_sources_are_requested_that_take_much_memory(limit):
    """Such as the frames of a video, which are decoded when they are requested."""
    requested = []

    def sources():
        for item in range(100):
            requested.append(item)
            yield item

    results = run(
        sources(), batch_size=40, source_bytes=lambda _: 4 * MEGABYTE, max_batch_bytes=1, num_bytes=lambda _: 1
    )
    for consumed in range(1, 5):
        assert next(results) == consumed - 1
        assert len(requested) - consumed <= 3
    assert list(results) == list(range(4, 100))
