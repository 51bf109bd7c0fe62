"""Background jobs of the panel: one runs, and one waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ..exceptions import GenerationInterrupted


@dataclass(frozen=True, eq=False)
class Request:
    """Something to do in the background.

    Attributes:
        title: what it is, in words.
        run: does it, in a thread of its own.
    """

    title: str
    run: Callable[[Job], None]


class Worker:
    """Runs one request at a time in a background thread, and keeps the last one that was made meanwhile.

    A stopped job is abandoned: its thread ends as soon as it can, and can no longer change the panel. There is no thread
    while nothing runs.

    Attributes:
        lock: held while a job changes the panel. The panel holds it while it handles a message of the browser, which JupyterLab
            may send to another thread than the one of the cells.
        queued: the request that runs next; None if there is none.
    """

    def __init__(self, on_change: Callable[[], None], on_error: Callable[[BaseException], None]) -> None:
        """Create a worker.

        Args:
            on_change: called after `is_busy` or `queued` has changed.
            on_error: called with the exception of a job that fails, unless the job was stopped.
        """
        self.lock = threading.RLock()
        self._job: Job | None = None
        self._on_change = on_change
        self._on_error = on_error
        self.queued: Request | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a job is running and was not stopped."""
        return self._job is not None

    def submit(self, request: Request) -> bool:
        """Start a request, or queue it while another one runs, in place of the one that was queued.

        Returns whether it was started.
        """
        with self.lock:
            if self._job is None:
                self._start(request)
                return True
            self.queued = request
            self._on_change()
            return False

    def stop(self) -> bool:
        """Stop the running job and drop the queued request; return whether there was a job."""
        with self.lock:
            if self._job is None:
                return False
            self._job.stop.set()
            self._job = self.queued = None
            self._on_change()
            return True

    def apply(self, job: Job, change: Callable[[], None]) -> None:
        """Call `change` if the job is the running one."""
        with self.lock:
            if self._job is job:
                change()

    def _start(self, request: Request) -> None:
        job = self._job = Job(self)
        self._on_change()
        threading.Thread(target=self._run, args=(request.run, job), daemon=True).start()

    def _run(self, run: Callable[[Job], None], job: Job) -> None:
        try:
            run(job)
        except GenerationInterrupted:
            pass
        except BaseException as error:  # whatever a library raises, the panel must stay usable
            failure = error
            self.apply(job, lambda: self._on_error(failure))
        self.apply(job, self._start_next)

    def _start_next(self) -> None:
        queued, self.queued, self._job = self.queued, None, None
        if queued is None:
            self._on_change()
        else:
            self._start(queued)


class Job:
    """A running request.

    Attributes:
        stop: set once the job is stopped.
    """

    def __init__(self, worker: Worker) -> None:
        self.stop = threading.Event()
        self._worker = worker

    def show(self, change: Callable[[], None]) -> None:
        """Call a function that changes the panel, unless the job was stopped."""
        self._worker.apply(self, change)
