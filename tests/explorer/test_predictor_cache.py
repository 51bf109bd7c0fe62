"""The cache of predictors."""

import os
import threading
import time

import pytest
from support import copy_of_tiny

from florence_lab.exceptions import warn
from florence_lab.explorer.predictor_cache import PredictorCache, shared_cache


class Loader:
    """Loads an object for a name, and records the loads."""

    def __init__(self):
        self.loads = []

    def __call__(self, name, is_compiled):
        self.loads.append((name, is_compiled))
        return type("Predictor", (), {})()


@pytest.fixture
def loader():
    return Loader()


def test_the_predictors_used_last_are_kept(loader):
    cache = PredictorCache(max_size=2, load=loader)
    for name in "a/a b/b a/a c/c a/a b/b".split():
        cache.get(name)
    assert [name for name, _ in loader.loads] == "a/a b/b c/c b/b".split()


def test_a_compiled_predictor_is_another_one(loader):
    cache = PredictorCache(load=loader)
    assert cache.get("a/a") is not cache.get("a/a", is_compiled=True)
    assert loader.loads == [("a/a", False), ("a/a", True)]


def test_a_folder_that_was_written_is_loaded_again(loader, tmp_path):
    folder = copy_of_tiny(tmp_path / "checkpoint")
    cache = PredictorCache(load=loader)
    first = cache.get(str(folder))
    assert cache.get(str(folder)) is first
    os.utime(folder / "config.json", (time.time() + 5, time.time() + 5))
    assert not cache.is_loaded(str(folder))
    assert cache.get(str(folder)) is not first


def test_a_failed_load_is_tried_again():
    outcomes = [OSError("no"), "predictor"]

    def load(name, is_compiled):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    cache = PredictorCache(load=load)
    with pytest.raises(OSError, match="no"):
        cache.get("a/a")
    assert cache.get("a/a") == "predictor"


def test_threads_that_ask_for_one_predictor_share_its_load(loader):
    release, started = threading.Event(), threading.Event()

    def load(name, is_compiled):
        started.set()
        assert release.wait(20)
        return loader(name, is_compiled)

    cache, predictors = PredictorCache(load=load), []
    threads = [threading.Thread(target=lambda: predictors.append(cache.get("a/a"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert started.wait(20)
    assert not cache.is_loaded("a/a")
    release.set()
    for thread in threads:
        thread.join()
    assert len(loader.loads) == 1
    assert predictors[0] is predictors[1]


def test_warnings_of_a_load_are_kept_for_all_who_use_the_predictor():
    def load(name, is_compiled):
        warn("there is no compiler")
        return type("Predictor", (), {})()

    cache = PredictorCache(load=load)
    for _ in range(2):
        assert cache.load_warning(cache.get("a/a")) == "there is no compiler"


def test_the_panels_of_a_process_share_a_cache():
    assert shared_cache() is shared_cache()
