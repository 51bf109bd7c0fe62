"""Measure speed and memory against plain transformers and against the hardware's roofline."""

from __future__ import annotations

import math
import os
import platform
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from tqdm.auto import tqdm

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, FlorenceLabWarning, summarize_error, unknown_name
from ..inference.device import select_device
from ..loading.hub import find_cached
from .hardware import Work, matmul_precision, measure_hardware, roofline, time_once
from .memory import peak_memory_gb
from .models import check_size
from .report import BenchmarkReport
from .runners import BACKENDS, available_backends, build_runner
from .training import TRAINING_BACKENDS, time_steps, training_files
from .workloads import (
    CAPTIONS_OF_PIXELS,
    GPU_FORMATS,
    NEXT_TOKEN,
    TOKENS_PER_ANSWER,
    WORKLOADS,
    BenchmarkInputs,
    Runner,
    benchmark_images,
    scale_of,
)

PEAK_MEMORY = "peak memory"
ROWS: tuple[str, ...] = (*WORKLOADS, *TRAINING_BACKENDS, PEAK_MEMORY)
"""What can be measured, in this order."""

_NUM_COMPARED = 2  # images whose captions are compared between the libraries


@validate_arguments
def benchmark(
    model_type: str = "florence-2-base",
    device: str = "auto",
    repeats: int = 5,
    against: Literal["transformers", "nothing"] = "transformers",
    rows: Sequence[str] = ROWS,
    time_limit: float | None = None,
) -> BenchmarkReport:
    """Measure florence_lab and, unless `against` is `"nothing"`, transformers.

    The backends alternate within each repetition, so that a busy machine slows all of them. Captions are measured at the batch
    size that is fastest for each backend. A row that fails, as for lack of memory, is listed with the reason, and the others go
    on.

    Args:
        model_type: one of `available_models()`, a folder or a hub id. A checkpoint that is not on this machine is replaced by
            random weights of the size of florence-2-base or florence-2-large, which take the same time.
        device: as for `load`.
        repeats: repetitions of each row, at least 1, after one that warms up.
        against: the library to compare with.
        rows: names in `ROWS`.
        time_limit: seconds, after which no row is started; rows are repeated less often to keep to it. None measures all.

    Raises:
        ArgumentError: for fewer than one repetition, or an unknown row.
        ValueError: for a model that is neither on this machine nor of a
            published size.
    """
    for name in rows:
        if name not in ROWS:
            raise ArgumentError(unknown_name("row", name, ROWS))
    torch_device = select_device(device)
    check_size(model_type)
    names = [n for n in available_backends(torch_device) if against == "transformers" or n.startswith("florence_lab")]
    session = _Session(model_type, torch_device, repeats, [name for name in ROWS if name in rows], time_limit)
    session.measure_inference(names)
    session.measure_training(names)
    if PEAK_MEMORY in rows:
        session.measure_memory(names)
    return session.report()


@dataclass
class _Session:
    """One run of the benchmark: what is measured, and the measurements so far."""

    model_type: str
    device: torch.device
    repeats: int
    rows: list[str]
    time_limit: float | None
    hardware: dict[str, float] = field(default_factory=dict)
    limits: dict[str, dict[str, float]] = field(default_factory=dict)
    timings: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    first_calls: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    failures: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    batch_sizes: dict[str, int] = field(default_factory=dict)
    matches: dict[str, bool] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._start = time.perf_counter()
        self._num_left = len(self.rows)
        self._bar = tqdm(total=len(self.rows), unit="row")

    def measure_inference(self, names: Sequence[str]) -> None:
        """Load the models, and measure all rows that are workloads."""
        workloads = [name for name in self.rows if name in WORKLOADS]
        formats = list(dict.fromkeys(BACKENDS[name].format for name in names))
        self.hardware = measure_hardware(self.device, formats)
        if not workloads:
            return
        runners: dict[str, Runner] = {}
        with (
            warnings.catch_warnings(),
            torch.inference_mode(),
            benchmark_images(scale_of(self.device).num_images) as paths,
        ):
            warnings.filterwarnings("ignore", ".*truncated", FlorenceLabWarning)  # answers of random weights do not end
            for name in tqdm(names, desc="loading", unit="backend"):
                with self._failure_noted("loading", name):
                    runners[name] = build_runner(name, self.model_type, self.device)
            if not runners:
                return
            first = next(iter(runners.values()))
            inputs = BenchmarkInputs(paths, first.preprocess(paths))
            self.limits = roofline(Work.of(first.model, inputs.pixel_values), self.hardware, self.device, formats)
            self.limits = {name: bounds for name, bounds in self.limits.items() if name in (*workloads, NEXT_TOKEN)}
            for name in workloads:
                seconds = self._start_row(name)
                if seconds is not None:
                    self._measure_workload(name, runners, inputs, seconds)
            self._compare_texts(runners, inputs)

    def _measure_workload(
        self, row: str, runners: Mapping[str, Runner], inputs: BenchmarkInputs, seconds: float
    ) -> None:
        """Measure a workload on its backends, which take turns, for at most about some seconds."""
        workload = WORKLOADS[row]
        start, timings = time.perf_counter(), self.timings.setdefault(row, {})
        names = workload.select(list(runners), self.device)
        for repetition in range(1 + self.repeats):
            if repetition > 1 and time.perf_counter() - start > seconds:
                break
            for name in names:
                if name in self.failures.get(row, ()):
                    continue
                with self._failure_noted(row, name), matmul_precision(BACKENDS[name].format):
                    if workload.is_batched and name not in self.batch_sizes:
                        self.batch_sizes[name] = self._best_batch_size(row, name, runners[name], inputs)
                    size = self.batch_sizes.get(name, 1)
                    elapsed, _ = time_once(partial(workload.run, runners[name], inputs, size))
                    elapsed /= len(inputs.paths) if workload.is_batched else 1
                    if repetition:
                        timings.setdefault(name, []).append(elapsed)
                    else:
                        self.first_calls[row][name] = elapsed
                if name in self.failures.get(row, ()):
                    timings.pop(name, None)

    def _best_batch_size(self, row: str, name: str, runner: Runner, inputs: BenchmarkInputs) -> int:
        """The batch size at which a backend is fastest. One that does not fit into memory is passed over."""
        seconds: dict[int, float] = {}
        for size in scale_of(self.device).batch_sizes:
            try:
                run = WORKLOADS[row].run
                if self.device.type == "cuda":
                    run(
                        runner,
                        inputs._replace(paths=inputs.paths[:size], pixel_values=inputs.pixel_values[:size]),
                        size,
                    )
                seconds[size], _ = time_once(partial(run, runner, inputs, size))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
        if not seconds:
            raise MemoryError(f"{name} has too little memory for the smallest batch")
        return min(seconds, key=seconds.__getitem__)

    def _compare_texts(self, runners: Mapping[str, Runner], inputs: BenchmarkInputs) -> None:
        """Compare the captions of both libraries in fp32."""
        pair = [runners[name] for name in ("transformers fp32", "florence_lab fp32") if name in runners]
        if len(pair) == 2 and not self._is_over():
            pixel_values = inputs.pixel_values[:_NUM_COMPARED]
            with self._failure_noted("comparison of texts", "both"):
                texts = [runner.caption_pixels(pixel_values, len(pixel_values)) for runner in pair]
                self.matches = {CAPTIONS_OF_PIXELS: texts[0] == texts[1]}

    def measure_training(self, names: Sequence[str]) -> None:
        """Measure the rows of fine-tuning."""
        rows = [row for row in self.rows if row in TRAINING_BACKENDS]
        if not rows:
            return
        with training_files(self.model_type, self.device) as files:
            for row in rows:
                backends = [name for name in TRAINING_BACKENDS[row] if name in names]
                if self._start_row(row) is None:
                    continue
                for name in backends:
                    with self._failure_noted(row, name):
                        first, steps = time_steps(row, name, files, self.repeats)
                        self.first_calls[row][name] = first
                        self.timings.setdefault(row, {})[name] = steps

    def measure_memory(self, names: Sequence[str]) -> None:
        """Measure the peak memory of each backend."""
        if self._start_row(PEAK_MEMORY) is None:
            return
        for name in names:
            if not name.endswith(GPU_FORMATS):
                with self._failure_noted(PEAK_MEMORY, name):
                    self.memory[name] = peak_memory_gb(name, self.model_type, str(self.device))

    def report(self) -> BenchmarkReport:
        """Return the measurements."""
        self._bar.close()
        return BenchmarkReport(
            environment=_describe_environment(self.model_type, self.device, self.repeats),
            timings_s={row: timings for row, timings in self.timings.items() if timings},
            outputs_match=self.matches,
            roofline_s=self.limits,
            hardware=self.hardware,
            peak_memory_gb=self.memory,
            first_call_s=dict(self.first_calls),
            batch_sizes=self.batch_sizes,
            failures=dict(self.failures),
        )

    def _start_row(self, row: str) -> float | None:
        """The seconds that a row may take; None, with a note in the report, if the time is over."""
        self._bar.set_description(row)
        self._bar.update()
        self._num_left -= 1
        if self._is_over():
            self.failures[row]["all"] = f"the time limit of {self.time_limit:g} s was reached"
            return None
        return self._seconds_left() / (1 + self._num_left)

    def _seconds_left(self) -> float:
        if self.time_limit is None:
            return math.inf
        return self.time_limit - (time.perf_counter() - self._start)

    def _is_over(self) -> bool:
        return self._seconds_left() <= 0

    @contextmanager
    def _failure_noted(self, row: str, backend: str) -> Iterator[None]:
        """Note the error that ends the block, if any, so that the other measurements go on."""
        try:
            yield
        except Exception as error:  # libraries, drivers and the disk raise many types
            self.failures[row][backend] = f"{type(error).__name__}: {summarize_error(error)}"
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


def _describe_environment(model_type: str, device: torch.device, repeats: int) -> dict[str, Any]:
    import transformers

    cpu = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    is_gpu = device.type == "cuda"
    return {
        "model": f"{model_type}, {'its own' if find_cached(model_type) else 'random'} weights",
        "device": f"{torch.cuda.get_device_name(device)}, {os.cpu_count()} CPU cores"
        if is_gpu
        else f"{device.type} ({cpu})",
        "releases": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "measured": f"{time.strftime('%Y-%m-%d')}, at most {repeats} repetitions, answers of {TOKENS_PER_ANSWER} tokens",
    }
