"""Background jobs: one at a time, and a stopped one changes nothing."""

import threading

import pytest

from florence_lab.explorer.worker import Worker
from florence_lab.inference.generation import GenerationInterrupted


@pytest.fixture
def errors():
    return []


@pytest.fixture
def worker(errors):
    return Worker(lambda: None, errors.append)


def test_a_second_job_is_refused_while_one_runs(worker, wait_until):
    release = threading.Event()
    assert worker.start(lambda job: release.wait(20))
    assert not worker.start(lambda job: None)
    release.set()
    wait_until(lambda: not worker.is_busy)
    assert worker.start(lambda job: None)


def test_a_stopped_job_can_no_longer_show_anything(worker, errors):
    release, ended, shown = threading.Event(), threading.Event(), []

    def run(job):
        job.show(lambda: shown.append("before"))
        assert release.wait(20)
        job.show(lambda: shown.append("after"))
        ended.set()
        raise ValueError("too late")

    worker.start(run)
    while not shown:
        pass
    assert worker.stop()
    assert not worker.is_busy
    release.set()
    assert ended.wait(20)
    assert shown == ["before"]
    assert errors == []


def test_stopping_without_a_job_does_nothing(worker):
    assert not worker.stop()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1)])
def test_an_exception_is_reported_and_ends_the_job(worker, errors, wait_until, error):
    def run(job):
        raise error

    worker.start(run)
    wait_until(lambda: not worker.is_busy)
    assert errors == [error]


def test_an_interrupted_generation_is_not_an_error(worker, errors, wait_until):
    def run(job):
        raise GenerationInterrupted

    worker.start(run)
    wait_until(lambda: not worker.is_busy)
    assert errors == []
