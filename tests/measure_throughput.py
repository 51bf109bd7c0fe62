"""Measure captions a second from JPEG files: `python tests/measure_throughput.py [MODEL] [DTYPE] [NUM_IMAGES]`.

MODEL is what `load` takes, or `base` or `large` for random weights of that size, which is the default. Captions have 64 tokens. Prints
a line of JSON: preprocessing beside transformers' in milliseconds, then captions a second by batch size, by the number of reader
threads, and, on CUDA, with the images encoded beside the decoder and without. Takes about two minutes on an H100.
"""

import json
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest.mock import patch

import torch
from measure_loading import SIZES, write_checkpoints

from florence_lab import load, load_image
from florence_lab.inference.preprocessing import preprocess
from florence_lab.predictor import pipeline
from florence_lab.scenes import HELD_OUT_SEEDS, draw_scene

IMAGE_SIZE = 512
LENGTHS = {"num_beams": 1, "max_new_tokens": 64, "min_new_tokens": 64}
BATCH_SIZES = {"cuda": (8, 32, 64, 128, "auto"), "cpu": (1, 8, 16, 32, "auto")}
READERS = {"cuda": (1, 4, 8, 16), "cpu": (1, 2, 4)}


def seconds(functions, repeats=3):
    """Return the median time of each function. They alternate, and the first run of each does not count."""
    times = [[] for _ in functions]
    for _ in range(repeats + 1):
        for function, found in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    return [statistics.median(found[1:]) for found in times]


def measure_preprocessing(processor, path):
    """Return milliseconds of transformers' image processor and of florence_lab, for an image that is read."""
    image = load_image(path)
    theirs, ours = seconds(
        [lambda: processor(image, return_tensors="pt"), lambda: preprocess(processor, [image])], repeats=9
    )
    return {"transformers": 1000 * theirs, "florence_lab": 1000 * ours}


def main(name="base", dtype="auto", num_images="256"):
    """Measure all rows."""
    with tempfile.TemporaryDirectory() as folder:
        if name in SIZES:
            write_checkpoints(Path(folder), name)
            name = str(Path(folder) / "safetensors")
        predictor = load(name, dtype=dtype)
        paths = [Path(folder) / f"{seed}.jpg" for seed in HELD_OUT_SEEDS[: int(num_images)]]
        for seed, path in zip(HELD_OUT_SEEDS, paths, strict=False):
            draw_scene(seed, IMAGE_SIZE).image.save(path, quality=90)
        device = predictor.model.device.type

        def caption(batch_size="auto"):
            for _ in predictor.predict_iter(paths, "<CAPTION>", batch_size=batch_size, keep_images=False, **LENGTHS):
                pass

        def with_patch(attribute, value):
            def run():
                with patch.object(pipeline, attribute, lambda _: value):
                    caption()

            return run

        rows = {"dtype": str(predictor.model.dtype), "torch": torch.__version__}
        rows["preprocessing, ms"] = measure_preprocessing(predictor.processor.image_processor, paths[0])
        variants = {f"batch_size={size}": lambda size=size: caption(size) for size in BATCH_SIZES[device]}
        variants |= {f"{count} readers": with_patch("num_reader_threads", count) for count in READERS[device]}
        if device == "cuda":
            variants["one stream"] = with_patch("shared_side_stream", None)
        times = seconds(list(variants.values()))
        rows["captions a second"] = {row: len(paths) / t for row, t in zip(variants, times, strict=True)}
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
