"""Background requests: one runs, one waits, and a stopped one changes nothing."""

import threading

import pytest

from florence_lab.exceptions import GenerationInterrupted
from florence_lab.explorer.worker import Request, Worker


@pytest.fixture
def errors():
    return []


@pytest.fixture
def worker(errors):
    return Worker(lambda: None, errors.append)


def submit(worker, run, title=""):
    return worker.submit(Request(title, run))


def test_the_last_request_made_meanwhile_runs_next(worker, wait_until):
    release, ran = threading.Event(), []
    assert submit(worker, lambda job: release.wait(20))
    for title in ("first", "second"):
        assert not submit(worker, lambda job, title=title: ran.append(title), title)
    assert worker.queued.title == "second"
    release.set()
    wait_until(lambda: not worker.is_busy)
    assert ran == ["second"]
    assert worker.queued is None


def test_a_request_runs_after_one_that_failed(worker, errors, wait_until):
    release, ran = threading.Event(), []

    def fail(job):
        assert release.wait(20)
        raise ValueError("no")

    submit(worker, fail)
    submit(worker, lambda job: ran.append(True))
    release.set()
    wait_until(lambda: not worker.is_busy)
    assert ran
    assert str(errors[0]) == "no"


def test_a_stopped_job_can_no_longer_show_anything(worker, errors, wait_until):
    release, ended, shown = threading.Event(), threading.Event(), []

    def run(job):
        job.show(lambda: shown.append("before"))
        assert release.wait(20)
        job.show(lambda: shown.append("after"))
        ended.set()
        raise ValueError("too late")

    submit(worker, run)
    submit(worker, lambda job: shown.append("queued"))
    wait_until(lambda: shown)
    assert worker.stop()
    assert not worker.is_busy
    release.set()
    assert ended.wait(20)
    assert shown == ["before"]
    assert errors == []


def test_stopping_without_a_job_does_nothing(worker):
    assert not worker.stop()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), GenerationInterrupted()])
def test_an_exception_ends_the_job_and_is_reported_unless_it_is_a_stop(worker, errors, wait_until, error):
    def run(job):
        raise error

    submit(worker, run)
    wait_until(lambda: not worker.is_busy)
    assert errors == ([] if isinstance(error, GenerationInterrupted) else [error])


def test_no_thread_is_left_when_nothing_runs(worker, wait_until):
    before = threading.active_count()
    submit(worker, lambda job: None)
    wait_until(lambda: threading.active_count() == before)
