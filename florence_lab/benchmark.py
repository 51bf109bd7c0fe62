"""How fast a model answers here, beside plain transformers and beside what the machine could do at all.

    florence-lab benchmark                                    # the size of florence-2-base
    florence-lab benchmark --model_type florence-2-nano

Everything is measured in one run, the ways in turn, since a shared machine is now faster and now slower: what counts is a
ratio within a run. Time does not depend on what the weights say, so random ones do where no checkpoint is at hand. No answer
ends by itself here: all have the length that is asked for.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import re
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm
from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor

from .catalog import unknown_name
from .checkpoint import load_checkpoint
from .decoding import LANGUAGE_ATTENTION
from .hub import at_hand
from .layout import POST_PROCESSOR_CONFIG
from .predictor import Predictor, compiled_predictor, is_good_at_bf16, pick_device
from .scenes import HELD_OUT_SEEDS, draw_scene
from .tasks import TASKS
from .vision import DAVIT_ATTENTION

TOKENS = 64  # of every answer
PICTURES = 32
INPUTS = {"none": "", "phrase": "a sheep", "region": "<loc_100><loc_100><loc_600><loc_600>"}
_BATCH = {"transformers": 4, "florence_lab": 16}  # pictures decoded together


# ---------------------------------------------------------------------- models of real sizes


def _text_config(width: int, layers: int, positions: int) -> dict[str, Any]:
    sides = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in _parts(width, layers).items()}
    return {"model_type": "bart", "vocab_size": 51290, "d_model": width, "max_position_embeddings": positions} | sides


def _parts(width: int, layers: int) -> dict[str, int]:
    return {"layers": layers, "attention_heads": width // 64, "ffn_dim": 4 * width}


_LARGE = {"embed_dim": [256, 512, 1024, 2048], "num_heads": [8, 16, 32, 64], "num_groups": [8, 16, 32, 64]}
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "florence-2-base": ({"projection_dim": 768}, _text_config(768, 6, 1024)),
    "florence-2-large": ({"projection_dim": 1024} | _LARGE, _text_config(1024, 12, 4096)),
}
"""Vision and text config of the published sizes, as their config.json has them; what is left out is transformers' default."""


def build(model_type: str) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """A model in fp32 and its processor: the checkpoint, if it is at hand, else random weights of its size.

    Raises:
        ValueError: for a model that is neither at hand nor of a known size.
    """
    folder = at_hand(model_type)
    model, processor = load_checkpoint(folder) if folder else _random(model_type.removesuffix("-ft"))
    # generate's own warnings about an end that never comes are about nothing here
    model.generation_config.update(num_beams=1, early_stopping=False, eos_token_id=None, forced_eos_token_id=None)
    return model, processor


def _random(size: str) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    from .training.nano import build_processor

    if size not in SIZES:
        raise ValueError(unknown_name("size of a model that is not at hand", size, SIZES))
    _, nano = load_checkpoint(at_hand("florence-2-nano"))  # its words: which ones they are makes no difference
    images = build_processor(nano.tokenizer, 768).image_processor
    images.image_seq_length = 577
    processor = Florence2Processor(
        images, nano.tokenizer, num_additional_image_tokens=0, post_processor_config=POST_PROCESSOR_CONFIG
    )
    vision, text = SIZES[size]
    torch.manual_seed(0)
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=processor.image_token_id)
    model = Florence2ForConditionalGeneration(config).eval()
    model.set_attn_implementation({"vision_config": DAVIT_ATTENTION, "text_config": LANGUAGE_ATTENTION})
    model.generation_config.update(decoder_start_token_id=2, forced_bos_token_id=0, pad_token_id=1)
    return model, processor


# ---------------------------------------------------------------------- ways to answer


class Ours:
    """florence_lab, compiled."""

    def __init__(self, model_type: str, dtype: torch.dtype, device: torch.device) -> None:
        model, processor = build(model_type)
        self.predictor = compiled_predictor(model.to(device, dtype), processor, model_type)

    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        model = self.predictor.model
        return self.predictor._tower(pixels.to(model.device, model.dtype))

    def answer(self, image: Image.Image, task: str, text: str, tokens: int, beams: int = 1) -> str:
        return self.predictor.predict(image, task, text or None, num_beams=beams, max_new_tokens=tokens).raw

    def many(self, image: Image.Image) -> list[str]:
        asked = [(task.token, INPUTS[task.input] or None) for task in TASKS.values()]
        return [result.raw for result in self.predictor.predict_many(image, asked, num_beams=1, max_new_tokens=TOKENS)]

    def captions(self, images: Sequence[Image.Image]) -> list[str]:
        settings = {"num_beams": 1, "max_new_tokens": TOKENS, "batch_size": _BATCH["florence_lab"]}
        return [result.raw for result in self.predictor.predict_each(images, "<CAPTION>", **settings)]


class Plain:
    """transformers as its documentation shows it: the processor, then `generate`."""

    def __init__(self, model_type: str, dtype: torch.dtype, device: torch.device) -> None:
        model, self.processor = build(model_type)
        model.set_attn_implementation("sdpa")
        self.model = model.to(device, dtype)
        self.predictor = Predictor(self.model, self.processor)  # for its words: prompts, and text from tokens

    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.get_image_features(pixels.to(self.model.device, self.model.dtype)).pooler_output

    def answer(self, image: Image.Image, task: str, text: str, tokens: int, beams: int = 1) -> str:
        return self._generate([image], TASKS[task].prompt.replace("{input}", text), tokens, beams)[0]

    def many(self, image: Image.Image) -> list[str]:
        return [self.answer(image, task.token, INPUTS[task.input], TOKENS) for task in TASKS.values()]

    def captions(self, images: Sequence[Image.Image]) -> list[str]:
        batch, prompt = _BATCH["transformers"], TASKS["<CAPTION>"].prompt
        starts = range(0, len(images), batch)
        return [text for start in starts for text in self._generate(images[start : start + batch], prompt, TOKENS, 1)]

    def _generate(self, images: Sequence[Image.Image], prompt: str, tokens: int, beams: int) -> list[str]:
        inputs = self.processor(text=[prompt] * len(images), images=list(images), return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        sequences = self.model.generate(**inputs, num_beams=beams, do_sample=False, max_new_tokens=tokens)
        return [self.predictor.template.decode(self.predictor._up_to_its_end(ids)[1:].tolist()) for ids in sequences]


WAYS: dict[str, tuple[type[Ours] | type[Plain], str]] = {
    "transformers fp32": (Plain, "fp32"),
    "transformers bf16": (Plain, "bf16"),
    "florence_lab fp32": (Ours, "fp32"),
    "florence_lab auto": (Ours, "auto"),
}


def make(way: str, model_type: str, device: torch.device) -> Ours | Plain:
    """One of `WAYS`, ready to answer."""
    kind, dtype = WAYS[way]
    low = dtype == "bf16" or (dtype == "auto" and is_good_at_bf16(device))
    return kind(model_type, torch.bfloat16 if low else torch.float32, device)


# ---------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Row:
    """Something that takes time.

    Attributes:
        run: does it, in one of the ways; its answers come back as text, if there are any.
        ways: in which it is measured, by the beginnings of their names.
    """

    run: Callable[[Ours | Plain, Any], Any]
    ways: tuple[str, ...] = ("transformers", "florence_lab")


class Pictures:
    """What is asked about: `images`, `PICTURES` of them, and the first one's `pixels`."""

    def __init__(self, way: Ours | Plain) -> None:
        self.images = [draw_scene(seed, 512).image for seed in HELD_OUT_SEEDS[:PICTURES]]
        processor = way.predictor.processor.image_processor
        self.pixels = processor(self.images[0], return_tensors="pt")["pixel_values"]


def _answer(tokens: int, beams: int = 1) -> Callable[[Ours | Plain, Pictures], list[str]]:
    return lambda way, pictures: [way.answer(pictures.images[0], "<CAPTION>", "", tokens, beams)]


ROWS: dict[str, Row] = {
    "vision tower": Row(lambda way, pictures: way.tower(pictures.pixels)),
    "first token": Row(_answer(1)),
    "one answer": Row(_answer(TOKENS)),
    "one answer, 3 beams": Row(_answer(TOKENS, 3)),
    "15 tasks": Row(lambda way, pictures: way.many(pictures.images[0]), ways=("transformers fp32", "florence_lab")),
    f"{PICTURES} captions": Row(
        lambda way, pictures: way.captions(pictures.images), ways=("transformers bf16", "florence_lab auto")
    ),
}
"""What is measured; answers have `TOKENS` tokens, `transformers` takes 15 tasks one by one and pictures four at a time."""

RATIOS = (
    ("one answer", "transformers fp32", "florence_lab auto"),
    ("one answer", "transformers bf16", "florence_lab auto"),
    ("one answer", "transformers fp32", "florence_lab fp32"),
    ("one answer, 3 beams", "transformers fp32", "florence_lab auto"),
    ("15 tasks", "transformers fp32", "florence_lab fp32"),
    ("15 tasks", "transformers fp32", "florence_lab auto"),
    (f"{PICTURES} captions", "transformers bf16", "florence_lab auto"),
    ("vision tower", "transformers bf16", "florence_lab auto"),
)
"""Which of them are compared: what, how many times the second way is as fast as the first."""


@dataclass(frozen=True)
class Benchmark:
    """What a run measured.

    Attributes:
        about: the machine, the releases, the model.
        seconds: row -> way -> each measurement.
        identical: row -> whether both ways in fp32 gave the same text, where there is text.
        limits: row -> format (fp32, bf16) -> seconds that the machine would need at the least.
        speeds: of matrix products in GFLOP/s by format, and of reading memory in GB/s.
        memory: way -> GB at the peak, in a process of its own.
    """

    about: dict[str, Any]
    seconds: dict[str, dict[str, list[float]]]
    identical: dict[str, bool]
    limits: dict[str, dict[str, float]]
    speeds: dict[str, float]
    memory: dict[str, float]

    def medians(self) -> pd.DataFrame:
        """Rows x ways, seconds; with a row for each further token, and the limits."""
        table = pd.DataFrame(
            {row: {w: statistics.median(s) for w, s in of.items()} for row, of in self.seconds.items()}
        ).T
        table.loc["each further token"] = (table.loc["one answer"] - table.loc["first token"]) / (TOKENS - 1)
        return table.join(pd.DataFrame(self.limits).T.add_prefix("limit "))

    def ratios(self) -> pd.DataFrame:
        """What florence_lab gains: the median of the ratios of measurements that followed one another, least and most."""
        rows = []
        for row, slow, fast in RATIOS:
            of = self.seconds.get(row, {})
            if slow in of and fast in of:
                each = [a / b for a, b in zip(of[slow], of[fast], strict=True)]
                rows.append((row, f"{fast} / {slow}", statistics.median(each), min(each), max(each)))
        return pd.DataFrame(rows, columns=["what", "speed", "times", "least", "most"])

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in (self.about | self.speeds).items()]
        lines += ["", "seconds, median", self.medians().to_string(float_format="{:.4g}".format, na_rep="")]
        if len(self.ratios()):
            lines += ["", self.ratios().to_string(index=False, float_format="{:.2f}".format)]
        lines += ["", f"same text in fp32: {self.identical}"] if self.identical else []
        return "\n".join([*lines, "", f"GB at the peak: { {way: round(gb, 2) for way, gb in self.memory.items()} }"])

    def save(self, path: str | Path) -> Path:
        """Writes all of it as JSON."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        ratios = self.ratios().to_dict("records")
        path.write_text(json.dumps(vars(self) | {"ratios": ratios}, indent=1) + "\n", encoding="utf-8")
        return path


def benchmark(
    model_type: str = "florence-2-base",
    device: str = "auto",
    repeats: int = 5,
    against: str = "transformers",
    rows: Sequence[str] = tuple(ROWS),
) -> Benchmark:
    """Measure florence_lab, and transformers beside it.

    Args:
        model_type: one of `available_models()`, a folder or a hub id; what is not at hand has random weights, in the size of
            florence-2-base or -large.
        device: as for `load`.
        repeats: measurements of each, after one that does not count.
        against: `"transformers"`, or `"nothing"` to leave it out.
        rows: what to measure, of `ROWS`.

    Raises:
        ValueError: for a model that is neither at hand nor of a known size, or fewer than one repeat.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: give 1 or more")
    where = pick_device(device)
    names = [name for name in WAYS if against == "transformers" or not name.startswith("transformers")]
    with torch.inference_mode():
        ways = {name: make(name, model_type, where) for name in tqdm(names, desc="loading", unit="way")}
        pictures = Pictures(next(iter(ways.values())))
        seconds, said = _measure(ways, {name: ROWS[name] for name in rows}, pictures, repeats)
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
    ways: dict[str, Ours | Plain], rows: dict[str, Row], pictures: Pictures, repeats: int
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


def _timed(row: Row, way: Ours | Plain, pictures: Pictures) -> tuple[float, Any]:
    start = time.perf_counter()
    said = row.run(way, pictures)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, said


# ---------------------------------------------------------------------- the machine


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
        "model": f"{model_type}, {'its own' if at_hand(model_type) else 'random'} weights",
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
    where = pick_device(device)
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
