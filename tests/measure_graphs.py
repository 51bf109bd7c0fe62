"""Measure generation by CUDA graphs beside the same without: `python tests/measure_graphs.py [MODEL] [DTYPE]`.

MODEL is what `load` takes, or `base` or `large` for random weights of that size, which is the default; DTYPE is bf16 by default.
Answers have 64 tokens. Prints a line of JSON: a row -> milliseconds with graphs and without, and whether the tokens are equal, to
each other and for float32 to those of transformers' `generate`. Takes about two minutes on an H100.
"""

import json
import statistics
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import torch
from measure_loading import write_checkpoints
from support import PHOTO
from transformers.modeling_outputs import BaseModelOutput

from florence_lab import load
from florence_lab.inference.generation import encode_prompts, generate, resolve_generation_kwargs
from florence_lab.inference.graphed_encoders import DefaultImageEncoder

NUM_TOKENS = 64
PROMPT = "What does the image describe?"
ROWS = {
    "one answer": (1, {"num_beams": 1}),
    "one answer, 3 beams": (1, {"num_beams": 3}),
    "one answer, sampled": (1, {"do_sample": True, "top_k": 50, "top_p": 0.9}),
    "one answer, processed outside of the graph": (1, {"num_beams": 1, "bad_words_ids": [[7, 8]]}),
    "8 answers": (8, {"num_beams": 1}),
    "32 answers": (32, {"num_beams": 1}),
    "32 answers, 3 beams": (32, {"num_beams": 3}),
    "128 answers": (128, {"num_beams": 1}),
}
"""Row -> number of prompts, settings."""


def milliseconds(function, repeats=5):
    """Return the first time and the median of later ones."""
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return times[0], statistics.median(times[1:])


def compare(with_graphs, without):
    """Return the times of two functions, and the first time of the first one, which includes its capture."""
    first, median = milliseconds(with_graphs)
    return {"graphs": median, "first": first, "without": milliseconds(without)[1]}


def measure_generation(model, states, settings, graphs):
    """Return times, and whether tokens are equal."""
    lengths = {"max_new_tokens": NUM_TOKENS, "min_new_tokens": NUM_TOKENS}
    kwargs = resolve_generation_kwargs(model, settings | lengths)
    run = partial(generate, model, states, kwargs)
    found = compare(partial(run, graphs=graphs), run)
    answers = []
    for cache in (graphs, None):
        torch.manual_seed(0)
        answers.append([generation.token_ids.tolist() for generation in run(graphs=cache)])
    found["equal"] = answers[0] == answers[1]
    if states.hidden_states.dtype == torch.float32 and not kwargs.get("do_sample"):
        encoded = BaseModelOutput(last_hidden_state=states.hidden_states.clone())
        sequences = model.generate(encoder_outputs=encoded, attention_mask=states.attention_mask, **kwargs)
        found["equal to transformers"] = answers[0] == sequences[:, 1:].tolist()
    return found


def main(name="base", dtype="bf16"):
    """Measure all rows."""
    with tempfile.TemporaryDirectory() as folder:
        if name in ("base", "large"):
            write_checkpoints(Path(folder), name)
            name = str(Path(folder) / "safetensors")
        predictor = load(name, dtype=dtype)
    plain = DefaultImageEncoder(predictor.model)
    model, tokenizer, graphs = predictor.model, predictor.processor.tokenizer, predictor.graphs
    size = predictor.processor.image_processor.size
    rows = {"device": torch.cuda.get_device_name(), "dtype": dtype, "torch": torch.__version__}
    with torch.inference_mode():
        for batch in (1, 8):
            pixel_values = torch.randn(batch, 3, size["height"], size["width"], device=model.device, dtype=model.dtype)
            rows[f"image encoder, {batch}"] = compare(
                partial(predictor.image_encoder, pixel_values), partial(plain, pixel_values)
            )
        tokens = predictor.encode_image(PHOTO).tokens
        encode = partial(encode_prompts, model, tokenizer, tokens, [PROMPT])
        rows["text encoder"] = compare(partial(encode, graphs=graphs), encode)
        for row, (batch, settings) in ROWS.items():
            states = encode_prompts(model, tokenizer, tokens.expand(batch, -1, -1), [PROMPT] * batch)
            rows[row] = measure_generation(model, states, settings, graphs)
    rows["buffers, MB"] = graphs.nbytes() / 1e6
    rows["peak memory, MB"] = torch.cuda.max_memory_allocated() / 1e6
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
