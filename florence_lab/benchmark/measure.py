"""Measure speed and memory against plain transformers and against the hardware's roofline."""

from __future__ import annotations

import multiprocessing
import platform
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm
from transformers import Florence2ForConditionalGeneration

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, unknown_name
from ..inference.device import select_device
from ..loading.hub import find_cached
from ..scenes import HELD_OUT_SEEDS, draw_scene
from ..tasks import TASKS
from .report import NEXT_TOKEN, BenchmarkReport
from .runners import BACKENDS, build_runner
from .workloads import IMAGE_SIZE, TOKENS_PER_ANSWER, WORKLOADS, BenchmarkInputs, Runner, Workload

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@validate_arguments
def benchmark(
    model_type: str = "florence-2-base",
    device: str = "auto",
    repeats: int = 5,
    against: Literal["transformers", "nothing"] = "transformers",
    workloads: Sequence[str] = tuple(WORKLOADS),
) -> BenchmarkReport:
    """Measure florence_lab and, unless `against` is `"nothing"`, transformers.

    The backends alternate within each repetition, so that a busy machine slows all of them.

    Args:
        model_type: one of `available_models()`, a folder or a hub id. A checkpoint that is not on this machine is replaced by
            random weights of the size of florence-2-base or florence-2-large, which take the same time.
        device: as for `load`.
        repeats: repetitions of each workload, at least 1, after one that warms up.
        against: the library to compare with.
        workloads: names in `WORKLOADS`.

    Raises:
        ArgumentError: for fewer than one repetition, or an unknown workload.
        ValueError: for a model that is neither on this machine nor of a
            published size.
    """
    chosen = {name: _get_workload(name) for name in workloads}
    torch_device = select_device(device)
    names = [name for name in BACKENDS if against == "transformers" or not name.startswith("transformers")]
    with torch.inference_mode():
        runners = {
            name: build_runner(name, model_type, torch_device) for name in tqdm(names, desc="loading", unit="backend")
        }
        first = next(iter(runners.values()))
        inputs = BenchmarkInputs.create(first.processor)
        timings, outputs = _measure(runners, chosen, inputs, repeats)
        hardware = measure_hardware(torch_device)
        roofline = _roofline(first.model, inputs.pixel_values, hardware)
    del runners, first
    return BenchmarkReport(
        environment=_describe_environment(model_type, torch_device, repeats),
        timings_s=timings,
        outputs_match=_compare_outputs({name: outputs[name] for name in chosen if chosen[name].has_text}),
        roofline_s={name: seconds for name, seconds in roofline.items() if name in (*chosen, NEXT_TOKEN)},
        hardware=hardware,
        peak_memory_gb={
            name: peak_memory_gb(name, model_type, device) for name in tqdm(names, desc="memory", unit="backend")
        },
    )


def _get_workload(name: str) -> Workload:
    if name not in WORKLOADS:
        raise ArgumentError(unknown_name("workload", name, WORKLOADS))
    return WORKLOADS[name]


def _measure(
    runners: Mapping[str, Runner], workloads: Mapping[str, Workload], inputs: BenchmarkInputs, repeats: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, Any]]]:
    """Seconds of each repetition and the last outputs, by workload and backend."""
    timings: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in workloads}
    outputs: dict[str, dict[str, Any]] = {name: {} for name in workloads}
    with tqdm(total=len(workloads) * (1 + repeats), unit="repetition") as bar:
        for name, workload in workloads.items():
            bar.set_description(name)
            for repetition in range(1 + repeats):
                for backend in (backend for backend in runners if backend.startswith(workload.backends)):
                    elapsed, outputs[name][backend] = _time_once(workload, runners[backend], inputs)
                    if repetition:  # the first one warms up
                        timings[name][backend].append(elapsed)
                bar.update()
    return timings, outputs


def _time_once(workload: Workload, runner: Runner, inputs: BenchmarkInputs) -> tuple[float, Any]:
    start = time.perf_counter()
    outputs = workload.run(runner, inputs)
    _synchronize()
    return time.perf_counter() - start, outputs


def _compare_outputs(outputs: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """Whether both libraries gave the same text in fp32, for workloads that were measured on both."""
    pair = "transformers fp32", "florence_lab fp32"
    both = {name: [by_backend[b] for b in pair if b in by_backend] for name, by_backend in outputs.items()}
    return {name: texts[0] == texts[1] for name, texts in both.items() if len(texts) == 2}


def measure_hardware(device: torch.device) -> dict[str, float]:
    """Return peak GFLOP/s of matrix products of the image encoder's size, and GB/s of reading more than caches hold."""
    hardware = {}
    for name, dtype in _DTYPES.items():
        a = torch.ones((2304, 768), dtype=dtype, device=device)
        b = torch.ones((768, 3072), dtype=dtype, device=device)
        hardware[f"{name} GFLOP/s"] = 20 * 2 * 2304 * 768 * 3072 / _fastest_of(_repeated_product(a, b, 20)) / 1e9
    memory = torch.ones(2**27, device=device)
    hardware["memory GB/s"] = memory.nbytes / _fastest_of(memory.sum) / 1e9
    return hardware


def _repeated_product(a: torch.Tensor, b: torch.Tensor, times: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            torch.matmul(a, b)

    return run


def _fastest_of(run: Callable[[], Any], tries: int = 7) -> float:
    """Seconds of the fastest of several calls."""
    elapsed = []
    for _ in range(tries):
        start = time.perf_counter()
        run()
        _synchronize()
        elapsed.append(time.perf_counter() - start)
    return min(elapsed)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _roofline(
    model: Florence2ForConditionalGeneration, pixel_values: torch.Tensor, hardware: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Lower bounds in seconds: encoding is bound by arithmetic, decoding by reading the decoder's weights for each token."""
    with FlopCounterMode(display=False) as image_counter:
        image_tokens = model.get_image_features(pixel_values.to(model.device, model.dtype)).pooler_output
    with FlopCounterMode(display=False) as text_counter:
        model.get_encoder()(inputs_embeds=image_tokens)
    decoder_layers = model.model.language_model.decoder.layers
    # keys and values of the image are computed once for an answer
    once = "encoder_attn.k", "encoder_attn.v"
    weights = [p for name, p in decoder_layers.named_parameters() if not any(part in name for part in once)]
    num_weights = sum(p.numel() for p in [*weights, model.lm_head.weight])
    bounds: dict[str, dict[str, float]] = defaultdict(dict)
    for name, dtype in _DTYPES.items():
        image_encoder_s = image_counter.get_total_flops() / 1e9 / hardware[f"{name} GFLOP/s"]
        text_encoder_s = text_counter.get_total_flops() / 1e9 / hardware[f"{name} GFLOP/s"]
        token_s = dtype.itemsize * num_weights / 1e9 / hardware["memory GB/s"]
        bounds["vision tower"][name] = image_encoder_s
        bounds[NEXT_TOKEN][name] = token_s
        bounds["first token"][name] = image_encoder_s + text_encoder_s + token_s
        bounds["one answer"][name] = image_encoder_s + text_encoder_s + TOKENS_PER_ANSWER * token_s
    return dict(bounds)


def _describe_environment(model_type: str, device: torch.device, repeats: int) -> dict[str, Any]:
    import transformers

    cpu = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return {
        "model": f"{model_type}, {'its own' if find_cached(model_type) else 'random'} weights",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({cpu})",
        "releases": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "measured": f"{time.strftime('%Y-%m-%d')}, {repeats} repetitions, answers of {TOKENS_PER_ANSWER} tokens",
    }


def peak_memory_gb(backend: str, model_type: str, device: str) -> float:
    """Return the peak memory in GB of a new process that loads a model and answers once; on CUDA, that of the device."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(answer_once, backend, model_type, device).result()


def answer_once(backend: str, model_type: str, device: str) -> float:
    """Load a model, answer once, and return the peak memory of this process (on CUDA, of the device) in GB.

    A function of the module, so that a new process can import it.
    """
    torch_device = select_device(device)
    runner = build_runner(backend, model_type, torch_device)
    image = draw_scene(HELD_OUT_SEEDS[0], IMAGE_SIZE).image
    runner.generate_text(image, TASKS["<CAPTION>"], TOKENS_PER_ANSWER)
    if torch_device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return _peak_rss_gb()


def _peak_rss_gb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage includes the peak of the parent process on Linux
        peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
        if peak:
            return int(peak[1]) * 1024 / 1e9
    import resource  # not on Windows

    bytes_per_unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_per_unit / 1e9
