"""The peak memory of a backend, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import platform
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from ..inference.device import select_device
from .hardware import matmul_precision
from .runners import BACKENDS, build_runner
from .workloads import CAPTION, TOKENS_PER_ANSWER, benchmark_images


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
    with torch.inference_mode(), matmul_precision(BACKENDS[backend].format), benchmark_images(1) as paths:
        runner = build_runner(backend, model_type, torch_device)
        runner.generate_text(paths[0], CAPTION, TOKENS_PER_ANSWER)
    if torch_device.type == "cuda":
        return torch.cuda.max_memory_reserved(torch_device) / 1e9  # with the pools of graphs
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
