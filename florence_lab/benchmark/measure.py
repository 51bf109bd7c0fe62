"""TODO"""

from __future__ import annotations

import multiprocessing
import platform
import re
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from ..inference.device import select_device
from ..loading.hub import find_cached
from ..predictor import Predictor
from ..scenes import HELD_OUT_SEEDS, draw_scene
from .report import Benchmark
from .runners import BACKENDS, make
from .workloads import TOKENS, WORKLOADS, Pictures

if TYPE_CHECKING:
    from .runners import FlorenceLabRunner, TransformersRunner
    from .workloads import Row


def benchmark(
    model_type: str = "florence-2-base",
    device: str = "auto",
    repeats: int = 5,
    against: str = "transformers",
    rows: Sequence[str] = tuple(WORKLOADS),
) -> Benchmark:
    """Measure florence_lab, and transformers beside it.

    Args:
        model_type: one of `available_models()`, a folder or a hub id; what is not at hand has random weights, in the size of
            florence-2-base or -large.
        device: as for `load`.
        repeats: measurements of each, after one that does not count.
        against: `"transformers"`, or `"nothing"` to leave it out.
        rows: what to measure, of `WORKLOADS`.

    Raises:
        ValueError: for a model that is neither at hand nor of a known size, or fewer than one repeat.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: give 1 or more")
    where = select_device(device)
    names = [name for name in BACKENDS if against == "transformers" or not name.startswith("transformers")]
    with torch.inference_mode():
        ways = {name: make(name, model_type, where) for name in tqdm(names, desc="loading", unit="way")}
        pictures = Pictures(next(iter(ways.values())))
        seconds, said = _measure(ways, {name: WORKLOADS[name] for name in rows}, pictures, repeats)
        speeds = _speeds(where)
        limits = _limits(next(iter(ways.values())).predictor, pictures.pixels, speeds)
    texts = {row: of for row, of in said.items() if row != "vision tower"}
    pair = "transformers fp32", "florence_lab fp32"
    identical = {row: of[pair[0]] == of[pair[1]] for row, of in texts.items() if all(name in of for name in pair)}
    del ways
    return Benchmark(
        about=_about(model_type, where, repeats),
        seconds=seconds,
        identical=identical,
        limits={row: limit for row, limit in limits.items() if row in rows or row == "each further token"},
        speeds=speeds,
        memory={name: _peak_memory(name, model_type, device) for name in tqdm(names, desc="memory", unit="way")},
    )


def _measure(
    ways: dict[str, FlorenceLabRunner | TransformersRunner], rows: dict[str, Row], pictures: Pictures, repeats: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, Any]]]:
    """Seconds of each row in each way, and what it answered."""
    seconds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in rows}
    said: dict[str, dict[str, Any]] = {name: {} for name in rows}
    with tqdm(total=len(rows) * (1 + repeats), unit="round") as bar:
        for name, row in rows.items():
            for round_ in range(1 + repeats):
                bar.set_description(name)
                for way in (way for way in ways if way.startswith(row.ways)):
                    took, said[name][way] = _timed(row, ways[way], pictures)
                    if round_:  # the first one warms up
                        seconds[name][way].append(took)
                bar.update()
    return seconds, said


def _timed(row: Row, way: FlorenceLabRunner | TransformersRunner, pictures: Pictures) -> tuple[float, Any]:
    start = time.perf_counter()
    said = row.run(way, pictures)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, said


def _speeds(device: torch.device) -> dict[str, float]:
    """The best of some tries: matrix products of the size of the tower's, and reading more than any cache holds."""
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.ones(shape, dtype=dtype, device=device) for shape in ((2304, 768), (768, 3072)))
        found[f"{name} GFLOP/s"] = 20 * 2 * 2304 * 768 * 3072 / _best(lambda a=a, b=b: [a @ b for _ in range(20)]) / 1e9
    memory = torch.ones(2**27, device=device)
    found["memory GB/s"] = memory.nbytes / _best(memory.sum) / 1e9
    return found


def _best(run: Callable[[], Any], tries: int = 7) -> float:
    took = []
    for _ in range(tries):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return min(took)


def _limits(predictor: Predictor, pixels: torch.Tensor, speeds: dict[str, float]) -> dict[str, dict[str, float]]:
    """Seconds at the least: a picture and its prompt are bound by computing, a token by reading the decoder's weights."""
    model = predictor.model
    with FlopCounterMode(display=False) as tower:
        tokens = model.get_image_features(pixels.to(model.device, model.dtype)).pooler_output
    with FlopCounterMode(display=False) as encoder:
        model.get_encoder()(inputs_embeds=tokens)
    decoder = model.model.language_model.decoder
    # keys and values of the picture are computed once for an answer
    read = [p for n, p in decoder.layers.named_parameters() if "encoder_attn.k" not in n and "encoder_attn.v" not in n]
    numbers = sum(p.numel() for p in [*read, model.lm_head.weight])
    limits: dict[str, dict[str, float]] = defaultdict(dict)
    for name, size in (("fp32", 4), ("bf16", 2)):
        look = tower.get_total_flops() / 1e9 / speeds[f"{name} GFLOP/s"]
        first = look + encoder.get_total_flops() / 1e9 / speeds[f"{name} GFLOP/s"]
        token = size * numbers / 1e9 / speeds["memory GB/s"]
        limits["vision tower"][name], limits["each further token"][name] = look, token
        limits["first token"][name], limits["one answer"][name] = first + token, first + TOKENS * token
    return dict(limits)


def _about(model_type: str, device: torch.device, repeats: int) -> dict[str, Any]:
    import transformers

    cpu = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return {
        "model": f"{model_type}, {'its own' if find_cached(model_type) else 'random'} weights",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({cpu})",
        "releases": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "measured": f"{time.strftime('%Y-%m-%d')}, {repeats} times each, answers of {TOKENS} tokens",
    }


def _peak_memory(way: str, model_type: str, device: str) -> float:
    """GB that a process of its own took at most, from loading to one answer."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(_answer_once, way, model_type, device).result()


def _answer_once(way: str, model_type: str, device: str) -> float:
    where = select_device(device)
    one = make(way, model_type, where)
    one.answer(draw_scene(HELD_OUT_SEEDS[0], 512).image, "<CAPTION>", "", TOKENS)
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return _peak_of_this_process()


def _peak_of_this_process() -> float:
    """GB. Linux counts the parent's peak into `getrusage`, and has this program's own in /proc."""
    with suppress(FileNotFoundError):
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024 / 1e9
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
