"""The number of processes that load and preprocess images."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

_MAX_WORKERS = 8
_MIN_BATCHES = 8  # for each worker: starting one takes as long as loading some batches
_PREFETCHED = 2  # batches of each worker that wait to be trained on, torch's default
_DEFAULT_METHOD = multiprocessing.get_all_start_methods()[0]
_FORK = ("fork", None) if _DEFAULT_METHOD == "fork" else ("fork",)  # None: the default
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (where processes hand over tensors)


def choose_num_workers(num_rows: int, batch_size: int, bytes_per_row: int, device_type: str) -> int:
    """Return the number of processes that load images, beside each process that trains.

    That is one for each core but one, 8 at most, if a GPU trains; one if the cores train themselves. There are fewer for a
    small dataset, and where shared memory is scarce, as in containers: a batch that finds no place there ends the run. There are
    none where processes are not forked (Windows, macOS, Python 3.14): they would run a script anew that has no
    `if __name__ == "__main__"`, and end it with an error.

    Args:
        num_rows: of the dataset.
        batch_size: rows of a batch.
        bytes_per_row: memory of a preprocessed row.
        device_type: what trains, such as `"cuda"`.
    """
    if multiprocessing.get_start_method(allow_none=True) not in _FORK:
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    limit = 1 if device_type == "cpu" else min(_MAX_WORKERS, max(1, count_cores() // processes - 1))
    limit = min(limit, num_rows // (_MIN_BATCHES * batch_size))
    if _SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(_SHARED_MEMORY).free / 2 / processes
        limit = min(limit, int(free // (_PREFETCHED * batch_size * bytes_per_row)))
    return limit


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
