"""TODO"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path
from weakref import WeakKeyDictionary

from ..loading.hub import resolve
from ..predictor import Predictor, load
from .listening import listening

SHELF_ROOM = 2  # predictors; the largest takes 3 GB in fp32

_Key = tuple[str, bool, float]  # a model, whether it is compiled, and when it was written


class Shelf:
    """The predictors used last. One that is being loaded is waited for, and never loaded twice."""

    def __init__(self, room: int = SHELF_ROOM) -> None:
        self.room = room
        self._lock = threading.Lock()
        self._loads: OrderedDict[_Key, Future[Predictor]] = OrderedDict()
        self._warnings: WeakKeyDictionary[Predictor, str] = WeakKeyDictionary()

    def get(self, model: str, compiled: bool = False) -> Predictor:
        """The predictor of that name, loaded by now or before; raises what `florence_lab.load` does."""
        key = (model, compiled, _changed(model))
        with self._lock:
            known = self._loads.get(key)
            if known is None:
                known = self._loads[key] = Future()
                threading.Thread(target=self._load, args=(key, known), daemon=True).start()
            self._loads.move_to_end(key)
            self._make_room()
        return known.result()

    def holds(self, model: str, compiled: bool = False) -> bool:
        """Whether `get` would answer at once."""
        load = self._loads.get((model, compiled, _changed(model)))
        return load is not None and load.done()

    def warning(self, predictor: Predictor) -> str:
        """What the loading of a predictor warned of, so that everybody who asks it is told; "" for nothing."""
        return self._warnings.get(predictor, "")

    def _make_room(self) -> None:
        done = [key for key, load in self._loads.items() if load.done()]
        for key in done[: max(0, len(self._loads) - self.room)]:
            del self._loads[key]

    def _load(self, key: _Key, outcome: Future[Predictor]) -> None:
        model, compiled, _ = key
        try:
            resolve(model)  # may wait for a hub, and lets others load meanwhile
            with _LOADING, listening() as heard:
                predictor = load(model, compile=compiled)
            if heard:
                self._warnings[predictor] = "; ".join(heard)
            outcome.set_result(predictor)
        except BaseException as error:  # for whoever waits; the next one tries again
            with self._lock:
                self._loads.pop(key, None)
            outcome.set_exception(error)


_LOADING = threading.Lock()  # transformers changes settings of the whole process while it loads

SHELF = Shelf()
"""One for all panels: to run a cell again loads nothing again."""


def _changed(model: str) -> float:
    """When a checkpoint folder was last written to: after another run of fine-tuning it is another model. 0 for a hub's."""
    try:
        return max((file.stat().st_mtime for file in Path(model).expanduser().glob("*")), default=0.0)
    except OSError:
        return 0.0
