"""Background jobs of the panel, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..inference.generation import GenerationInterrupted


class Worker:
    """Runs one job at a time in a background thread.

    A stopped job is abandoned: its thread ends as soon as it can, and can no longer change the panel.
    """

    def __init__(self, on_change: Callable[[], None], on_error: Callable[[BaseException], None]) -> None:
        """Create a worker.

        Args:
            on_change: called after `is_busy` has changed.
            on_error: called with the exception of a job that fails, unless the job was stopped.
        """
        self._lock = threading.RLock()
        self._job: Job | None = None
        self._on_change = on_change
        self._on_error = on_error

    @property
    def is_busy(self) -> bool:
        """Whether a job is running and was not stopped."""
        return self._job is not None

    def start(self, run: Callable[[Job], None]) -> bool:
        """Start a job in a thread, and return whether it was started: False while another one is running."""
        with self._lock:
            if self.is_busy:
                return False
            job = Job(self)
            self._set_job(job)
        threading.Thread(target=self._run, args=(run, job), daemon=True).start()
        return True

    def stop(self) -> bool:
        """Stop the running job, and return whether there was one."""
        with self._lock:
            if self._job is None:
                return False
            self._job.stop.set()
            self._set_job(None)
            return True

    def apply(self, job: Job, change: Callable[[], None]) -> None:
        """Call `change` if the job is the running one."""
        with self._lock:
            if self._job is job:
                change()

    def _run(self, run: Callable[[Job], None], job: Job) -> None:
        try:
            run(job)
        except GenerationInterrupted:
            pass
        except BaseException as error:  # whatever a library raises, the panel must stay usable
            failure = error
            self.apply(job, lambda: self._on_error(failure))
        self.apply(job, lambda: self._set_job(None))

    def _set_job(self, job: Job | None) -> None:
        self._job = job
        self._on_change()


class Job:
    """A running job.

    Attributes:
        stop: set once the job is stopped.
    """

    def __init__(self, worker: Worker) -> None:
        self.stop = threading.Event()
        self._worker = worker

    def show(self, change: Callable[[], None]) -> None:
        """Call a function that changes the panel, unless the job was stopped."""
        self._worker.apply(self, change)
