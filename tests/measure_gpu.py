"""Measure everything that depends on a GPU, in about five minutes: `python tests/measure_gpu.py [FILE]`.

1. Answers of florence-2-nano in each number format, compared with those in float32 on the CPU: the share that is equal, and the mean score.
2. The rows of `florence-lab benchmark` at base size, beside transformers and with the memory.
3. One answer at large size.
4. Graphs beside no graphs at base size in bf16 (`tests/measure_graphs.py`).
5. Captions a second from files, by batch size and readers (`tests/measure_throughput.py`).

Each part is written to FILE (default `gpu.json`) as soon as it is measured, and a part that fails is replaced by the reason. Run
`pytest -m gpu` before: it compares tokens.
"""

import contextlib
import io
import json
import sys
import time
import warnings
from pathlib import Path

import measure_graphs
import measure_throughput
import numpy as np
import torch
from tqdm.auto import tqdm

from florence_lab import load
from florence_lab.benchmark.measure import benchmark
from florence_lab.evaluation import evaluate_scenes
from florence_lab.scenes import HELD_OUT_SEEDS

FORMATS = {
    "fp32": ("fp32", "highest"),
    "tf32": ("fp32", "high"),
    "fp16": ("fp16", "highest"),
    "bf16": ("bf16", "highest"),
}
"""Name -> dtype, precision of products of float32."""
NUM_SCENES = 8


def answers(device, dtype):
    """Return the answers of florence-2-nano to all tasks about some scenes, and their mean score."""
    predictor = load("florence-2-nano", device=device, dtype=dtype)
    evaluation = evaluate_scenes(predictor, HELD_OUT_SEEDS[:NUM_SCENES], num_beams=1)
    return [prediction.raw for prediction in evaluation.predictions], float(np.nanmean(evaluation.sample_scores))


def measure_formats():
    """Return for each format the share of answers that are those of the CPU in float32, and the mean score."""
    expected, score = answers("cpu", "fp32")
    rows = {"CPU fp32": {"equal": 1.0, "score": score}}
    for name, (dtype, precision) in FORMATS.items():
        torch.set_float32_matmul_precision(precision)
        found, score = answers("cuda", dtype)
        rows[name] = {"equal": sum(map(str.__eq__, found, expected)) / len(expected), "score": score}
    torch.set_float32_matmul_precision("highest")
    return rows


def printed_json(function, *arguments):
    """Return what a function prints, as an object."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        function(*arguments)
    return json.loads(output.getvalue())


PARTS = {
    "formats": measure_formats,
    "base": lambda: benchmark("florence-2-base", "cuda", repeats=3, time_limit=120).to_json(),
    "large": lambda: benchmark("florence-2-large", "cuda", 3, rows=["one answer"], time_limit=40).to_json(),
    "graphs": lambda: printed_json(measure_graphs.main, "base", "bf16"),
    "throughput": lambda: printed_json(measure_throughput.main, "base", "bf16", "128"),
}


def main(file="gpu.json"):
    """Measure all parts."""
    measured = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    for name, measure in tqdm(PARTS.items(), desc="parts"):
        start = time.perf_counter()
        try:
            measured[name] = measure()
        except Exception as error:  # the other parts go on
            measured[name] = f"{type(error).__name__}: {error}"
        measured[f"{name}, seconds"] = time.perf_counter() - start
        torch.cuda.empty_cache()
        Path(file).write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
