"""The predictors that the explorer used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..exceptions import capture_warnings
from ..loading.hub import resolve

if TYPE_CHECKING:
    from ..predictor import Predictor

CACHE_SIZE = 2
"""Maximum number of cached predictors. The largest takes 3 GB in fp32."""

_Key = tuple[str, bool, float]  # model name, whether it is compiled, time of the last change of its folder

_LOAD_LOCK = threading.Lock()  # transformers changes settings of the whole process while it loads a model


def load_predictor(model_name: str, is_compiled: bool) -> Predictor:
    """Load a model. Downloads of several threads run in parallel; loading itself does not.

    Raises:
        ValueError, HubError, CheckpointError: as `florence_lab.load`.
    """
    resolve(model_name)
    from ..predictor import load  # imports torch, which takes seconds, and the panel is shown before that

    with _LOAD_LOCK:
        return load(model_name, compile=is_compiled)


class PredictorCache:
    """Keeps the predictors that were used last. Threads may use it at the same time; no predictor is loaded twice."""

    def __init__(self, max_size: int = CACHE_SIZE, load: Callable[[str, bool], Predictor] = load_predictor) -> None:
        """Create an empty cache.

        Args:
            max_size: maximum number of cached predictors, at least 1.
            load: loads a predictor by its name and whether it is compiled.
        """
        self._max_size = max_size
        self._load = load
        self._lock = threading.Lock()
        self._futures: OrderedDict[_Key, Future[Predictor]] = OrderedDict()
        self._warnings: WeakKeyDictionary[Predictor, str] = WeakKeyDictionary()

    def get(self, model_name: str, is_compiled: bool = False) -> Predictor:
        """Return the predictor of a name. It is loaded if the cache does not have it, or if its folder has changed.

        Raises:
            ValueError, HubError, CheckpointError: as `florence_lab.load`. The next call tries again.
        """
        key = (model_name, is_compiled, _modification_time(model_name))
        with self._lock:
            future = self._futures.get(key)
            if future is None:
                future = self._futures[key] = Future()
                threading.Thread(target=self._run_load, args=(key, future), daemon=True).start()
            self._futures.move_to_end(key)
            self._evict()
        return future.result()

    def is_loaded(self, model_name: str, is_compiled: bool = False) -> bool:
        """Return whether `get` would return without loading."""
        future = self._futures.get((model_name, is_compiled, _modification_time(model_name)))
        return future is not None and future.done()

    def load_warning(self, predictor: Predictor) -> str:
        """Return the warnings that florence_lab issued while it loaded a predictor, "" if there were none."""
        return self._warnings.get(predictor, "")

    def _evict(self) -> None:
        loaded = [key for key, future in self._futures.items() if future.done()]
        for key in loaded[: max(0, len(self._futures) - self._max_size)]:
            del self._futures[key]

    def _run_load(self, key: _Key, future: Future[Predictor]) -> None:
        try:
            with capture_warnings() as messages:
                predictor = self._load(*key[:2])
            if messages:
                self._warnings[predictor] = "; ".join(messages)
            future.set_result(predictor)
        except BaseException as error:  # raised again in the threads that wait for the result
            with self._lock:
                self._futures.pop(key, None)
            future.set_exception(error)


@cache
def shared_cache() -> PredictorCache:
    """Return the cache that all panels of this process share, so that running a cell again does not load a model again."""
    return PredictorCache()


def _modification_time(model_name: str) -> float:
    """When a checkpoint folder was last written, in seconds since the epoch; 0 for the name of a model."""
    try:
        return max((file.stat().st_mtime for file in Path(model_name).expanduser().glob("*")), default=0.0)
    except OSError:
        return 0.0
