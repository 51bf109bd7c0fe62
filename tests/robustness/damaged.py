"""Damaged checkpoints: cases made from whole ones, and the processes that load them and ask for answers."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from robustness.damages import Damage, json_damages, tokenizer_damages, weight_damages

TIME_LIMIT = 30.0
"""Seconds of computation that loading and answering may take together. On an idle machine they are at most this long."""

_WAITING_LIMIT = 150.0  # seconds for a process that computes nothing: the machine may be busy otherwise

NUM_WORKERS = 2
_START_LIMIT = 120.0  # seconds: a new process imports torch and transformers
_MAX_MEMORY = 12 * 2**30  # bytes of addresses, most of which libraries reserve and do not use

ANSWERED, REFUSED = "answered", "refused"
"""The outcomes of a case that passes. Others describe what went wrong."""


@dataclass(frozen=True)
class Case:
    """A checkpoint with one damage.

    Attributes:
        name: `"published: config.json cut"`.
        source: the whole checkpoint or adapter.
        damage: changes the files of a copy.
    """

    name: str
    source: Path
    damage: Damage


def checkpoint_cases(label: str, source: Path, seed: int = 18, num_fields: int = 100) -> list[Case]:
    """Return the cases of a checkpoint or adapter.

    Args:
        label: the first word of their names.
        source: the folder.
        seed, num_fields: of the sample of fields in its JSON files.
    """
    damages = [*json_damages(source, seed, num_fields), *weight_damages(source), *tokenizer_damages(source)]
    return [Case(f"{label}: {what}", source, damage) for what, damage in damages]


def run_cases(cases: list[Case], folder: Path) -> dict[str, str]:
    """Load each case in one of a few processes, and return its outcome by its name.

    A process that dies or exceeds the limit is replaced, and the case has that as its outcome.

    Args:
        cases: the cases.
        folder: where the copies are made.
    """
    shares = [cases[i::NUM_WORKERS] for i in range(NUM_WORKERS)]
    with ThreadPoolExecutor(NUM_WORKERS) as threads:
        found = threads.map(lambda share: _run_share(share, folder), shares)
    return {name: outcome for outcomes in found for name, outcome in outcomes.items()}


def load_and_ask(folder: Path) -> str:
    """Load a checkpoint and ask each kind of question. Return the outcome."""
    import florence_lab
    from florence_lab.exceptions import FlorenceLabError

    image = florence_lab.scenes.sample_path("sheep")
    try:
        predictor = florence_lab.load(folder, device="cpu")
    except FlorenceLabError:
        return REFUSED
    except Exception as error:
        return f"foreign while loading: {_describe(error)}"
    try:
        encoded = predictor.encode_image(image)
        predictor.predict(encoded, "<CAPTION>", max_new_tokens=12)
        predictor.predict(encoded, "<OD>", max_new_tokens=12)
        predictor.predict(encoded, "<REGION_TO_CATEGORY>", (10, 10, 90, 90), max_new_tokens=5)
        for _ in predictor.stream(encoded, "<CAPTION>", max_new_tokens=5):
            pass
    except Exception as error:
        kind = "own error" if isinstance(error, FlorenceLabError) else "foreign"
        return f"{kind} after loading: {_describe(error)}"
    return ANSWERED


def _describe(error: BaseException) -> str:
    own = [f for f in traceback.extract_tb(error.__traceback__) if "/florence_lab/" in f.filename]
    place = f"{own[-1].filename.rpartition('/florence_lab/')[2]}:{own[-1].lineno}" if own else "?"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]} at {place}"


def _run_share(cases: list[Case], folder: Path) -> dict[str, str]:
    outcomes = {}
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(_Worker())
        for case in cases:
            with _damaged_copy(case, folder) as copy:
                outcomes[case.name] = worker.ask(copy)
            if not worker.is_alive:
                worker = stack.enter_context(_Worker())
    return outcomes


@contextlib.contextmanager
def _damaged_copy(case: Case, parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=parent)) / "checkpoint"
    shutil.copytree(case.source, folder, copy_function=os.link)
    case.damage(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder.parent)


class _Worker:
    """A process that loads checkpoints one after the other."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(_START_LIMIT):
            raise TimeoutError("the process for damaged checkpoints does not start")
        self._pipe.recv()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    @property
    def is_alive(self) -> bool:
        """Whether it can take another checkpoint."""
        return self._process.is_alive()

    def ask(self, folder: Path) -> str:
        """Return the outcome of a checkpoint. After a timeout or a crash the worker is no longer alive."""
        started, computed = time.monotonic(), self._computing_seconds()
        self._pipe.send(str(folder))
        try:
            while not self._pipe.poll(1):
                used = self._computing_seconds() - computed
                if used > TIME_LIMIT or time.monotonic() - started > _WAITING_LIMIT:
                    self.__exit__()
                    return f"hangs: no answer after {used:.0f} s of computation"
            return str(self._pipe.recv())
        except (EOFError, ConnectionError):
            self._process.join()
            return f"the process died with exit code {self._process.exitcode}"

    def _computing_seconds(self) -> float:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(self._process.pid).cpu_times()
            return float(times.user + times.system)
        return 0.0


def _serve(pipe: Any) -> None:
    import florence_lab

    florence_lab.load("florence-2-nano", device="cpu")  # imports what loading needs
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY if soft < 0 else min(soft, _MAX_MEMORY), hard))
    warnings.simplefilter("ignore")
    pipe.send("ready")
    while True:
        pipe.send(load_and_ask(Path(pipe.recv())))


def summarize(outcomes: dict[str, str]) -> str:
    """Return the number of cases by the first word of their outcome, as JSON."""
    counts: dict[str, int] = {}
    for outcome in outcomes.values():
        kind = outcome.partition(":")[0]
        counts[kind] = counts.get(kind, 0) + 1
    return json.dumps(dict(sorted(counts.items())))
