"""Generation by graphs gives the tokens of transformers' `generate`.

There is no graph on the CPU: `RecordedGraph` repeats the operations of a step as a CUDA graph repeats its kernels.
"""

import copy
import threading

import numpy as np
import pytest
import torch
from recorded_graph import RecordedGraph
from support import PHOTO
from transformers.modeling_outputs import BaseModelOutput

from florence_lab import ArgumentError
from florence_lab.exceptions import GenerationInterrupted
from florence_lab.inference import static_generation
from florence_lab.inference.generation import (
    encode_prompts,
    generate,
    interruptible,
    resolve_generation_kwargs,
)
from florence_lab.inference.graphs import GraphCache
from florence_lab.inference.streaming import stream

PROMPTS = [
    "OCR",
    "Locate the objects in the image, with their descriptions.",
    "What does the image describe?",
    "Locate the objects with category name in the image.",
    "Describe in detail what is shown in the image.",
]

SETTINGS = [
    {"num_beams": 1},
    {"num_beams": 1, "max_new_tokens": 1},
    {"num_beams": 1, "max_new_tokens": 70},  # longer than the first cache
    {"num_beams": 1, "no_repeat_ngram_size": 0},
    {"num_beams": 1, "no_repeat_ngram_size": 1},
    {"num_beams": 1, "no_repeat_ngram_size": 2, "repetition_penalty": 1.5},
    {"num_beams": 1, "min_length": 8, "suppress_tokens": [5, 6, 7], "begin_suppress_tokens": [9]},
    {"num_beams": 1, "min_new_tokens": 9, "eos_token_id": [2, 400, 401, 402]},
    {"num_beams": 1, "forced_bos_token_id": None, "forced_eos_token_id": None},
    {"num_beams": 1, "forced_bos_token_id": 30, "forced_eos_token_id": [31, 2]},
    {"num_beams": 1, "remove_invalid_values": True, "renormalize_logits": True},
    {"num_beams": 1, "bad_words_ids": [[7, 8], [9]]},  # processed outside of the graph
    {"num_beams": 1, "exponential_decay_length_penalty": (3, 1.5)},
    {"num_beams": 3},
    {"num_beams": 3, "max_new_tokens": 70},
    {"num_beams": 3, "early_stopping": True},
    {"num_beams": 3, "early_stopping": False},
    {"num_beams": 2, "early_stopping": "never", "length_penalty": 2.0},
    {"num_beams": 2, "early_stopping": "never", "length_penalty": -1.0},
    {"num_beams": 4, "length_penalty": 0.0, "eos_token_id": [2, 400, 401, 402]},
    {"num_beams": 3, "bad_words_ids": [[7, 8], [9]], "repetition_penalty": 1.3},
    {"do_sample": True},
    {"do_sample": True, "temperature": 3.0, "top_k": 7, "top_p": 0.8},
    {"do_sample": True, "min_p": 0.01, "typical_p": 0.9, "epsilon_cutoff": 0.001},
    {"do_sample": True, "eta_cutoff": 0.002},
]


@pytest.fixture(scope="module")
def states(small):
    """Five prompts of different lengths about one image."""
    return encode(small, PROMPTS)


@pytest.fixture(scope="module")
def graphs():
    return GraphCache(RecordedGraph.capture)


def encode(predictor, prompts, image=PHOTO):
    tokens = predictor.encode_image(image).tokens.expand(len(prompts), -1, -1)
    return encode_prompts(predictor.model, predictor.processor.tokenizer, tokens, prompts)


def transformers_tokens(model, states, kwargs):
    """What transformers generates, without the start token and padding."""
    sequences = model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=states.hidden_states.clone()),
        attention_mask=states.attention_mask,
        **kwargs,
    )
    return sequences[:, 1:].tolist()


def assert_equal_tokens(model, states, graphs, settings):
    kwargs = resolve_generation_kwargs(model, {"max_new_tokens": 14, **settings})
    torch.manual_seed(0)
    expected = transformers_tokens(model, states, kwargs)
    torch.manual_seed(0)
    before = RecordedGraph.num_replayed
    found = generate(model, states, kwargs, graphs=graphs)
    assert RecordedGraph.num_replayed > before
    for generation, sequence in zip(found, expected, strict=True):
        tokens = generation.token_ids.tolist()
        assert tokens == sequence[: len(tokens)]
        assert set(sequence[len(tokens) :]) <= {1}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_tokens_are_those_of_transformers(small, states, graphs, settings, batch):
    assert_equal_tokens(small.model, states[:batch], graphs, settings)


@pytest.mark.parametrize("settings", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 2, "early_stopping": False}])
def test_sequences_of_different_lengths_are_those_of_transformers(small, states, graphs, settings, monkeypatch):
    # so many tokens end an answer that it ends early in some rows
    settings = settings | {"eos_token_id": list(range(2, 1000, 9)), "max_new_tokens": 30, "forced_eos_token_id": None}
    shrunk = []
    original = static_generation._Run._shrink
    monkeypatch.setattr(
        static_generation._Run, "_shrink", lambda run, going: shrunk.append(len(going)) or original(run, going)
    )
    kwargs = resolve_generation_kwargs(small.model, settings)
    monkeypatch.setattr(small.model.generation_config, "eos_token_id", settings["eos_token_id"])
    expected = transformers_tokens(small.model, states, kwargs)
    found = [generation.token_ids.tolist() for generation in generate(small.model, states, kwargs, graphs=graphs)]
    assert found == [sequence[: len(tokens)] for tokens, sequence in zip(found, expected, strict=True)]
    assert len({len(tokens) for tokens in found}) > 1
    assert shrunk
