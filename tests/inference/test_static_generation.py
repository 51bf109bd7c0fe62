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
from florence_lab.scenes import HELD_OUT_SEEDS, draw_scene

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


@pytest.mark.parametrize("settings", SETTINGS[:1] + SETTINGS[5:7] + SETTINGS[11:14] + SETTINGS[21:23], ids=str)
def test_tokens_are_those_of_transformers(small, states, graphs, settings):
    assert_equal_tokens(small.model, states[:3], graphs, settings)


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("batch", [1, 5])
def test_tokens_of_all_settings_are_those_of_transformers(small, states, graphs, settings, batch):
    assert_equal_tokens(small.model, states[:batch], graphs, settings)


@pytest.mark.parametrize("settings", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 2, "early_stopping": True}])
def test_sequences_of_different_lengths_are_those_of_transformers(small, states, graphs, settings, monkeypatch):
    # these come up early in some rows, later or not at all in others
    settings = settings | {"max_new_tokens": 24, "forced_eos_token_id": None, "eos_token_id": [2, 266, 413, 1090]}
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


@pytest.mark.slow
@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("scene_seed", range(4))
def test_answers_of_a_trained_model_are_those_of_transformers(nano, graphs, scene_seed, num_beams):
    image = draw_scene(HELD_OUT_SEEDS[scene_seed]).image
    prompts = [
        nano.build_prompt(image.size, task).prompt for task in ("<OD>", "<CAPTION>", "<OCR>", "<DENSE_REGION_CAPTION>")
    ]
    settings = {"num_beams": num_beams, "max_new_tokens": 200}
    assert_equal_tokens(nano.model, encode(nano, prompts, image), graphs, settings)


def test_probabilities_are_recorded(small, states, graphs):
    kwargs = resolve_generation_kwargs(small.model, {"num_beams": 1, "max_new_tokens": 70})
    settings = {"location_ids": small.template.location_ids, "score_rows": [0, 2]}
    found = generate(small.model, states[:3], kwargs, graphs=graphs, **settings)
    expected = generate(small.model, states[:3], kwargs, **settings)
    assert found[1].probabilities is None
    for row in (0, 2):
        for part in ("generated", "locations"):
            mine, theirs = (getattr(generation[row].probabilities, part) for generation in (found, expected))
            assert mine.shape == theirs.shape
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "settings", [{}, {"allowed_labels": ["cat", "a dog"]}, {"num_beams": 3, "allowed_labels": ["cat", "a dog"]}]
)
def test_constrained_answers_are_the_same(small, graphs, settings):
    kwargs = resolve_generation_kwargs(
        small.model, {"num_beams": 1, "max_new_tokens": 20, "constrain": True, **settings}
    )
    prompts = [small.build_prompt((300, 200), task) for task in ("<CAPTION>", "<OD>", "<CAPTION>")]  # texts end first
    states = encode(small, [prompt.prompt for prompt in prompts])
    found, expected = (
        generate(small.model, states, kwargs, constraint=small.constraints.processor(prompts, kwargs), graphs=cache)
        for cache in (graphs, None)
    )
    assert [g.token_ids.tolist() for g in found] == [g.token_ids.tolist() for g in expected]


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "top_k": 20}, {"bad_words_ids": [[7, 8], [9]]}])
def test_streamed_tokens_are_the_same(small, states, graphs, settings):
    kwargs = resolve_generation_kwargs(small.model, {"num_beams": 1, "max_new_tokens": 12, **settings})
    steps = []
    for cache in (graphs, None):
        torch.manual_seed(0)
        for step in stream(small.model, states[:1], kwargs, small.template.location_ids, graphs=cache):
            assert len(step.probabilities.generated) == len(step.token_ids)
        steps.append((step.token_ids, step.is_final))
        probabilities = step.probabilities
    assert steps[0] == steps[1]
    assert probabilities.locations.shape == (12, 1000)


def test_a_stream_can_be_interleaved_with_other_calls(small, states, graphs):
    kwargs = resolve_generation_kwargs(small.model, {"num_beams": 1, "max_new_tokens": 5})
    (expected,) = generate(small.model, states[:1], kwargs)
    for step in stream(small.model, states[:1], kwargs, graphs=graphs):
        generate(small.model, states[1:2], kwargs, graphs=graphs)
        token_ids = step.token_ids
    assert token_ids == expected.token_ids.tolist()


def test_each_thread_has_buffers_of_its_own(small, states):
    graphs = GraphCache(RecordedGraph.capture)
    kwargs = resolve_generation_kwargs(small.model, {"num_beams": 1, "max_new_tokens": 5})
    expected = [generation.token_ids.tolist() for generation in generate(small.model, states[:3], kwargs)]
    found = [None] * 3

    def answer(row):
        found[row] = generate(small.model, states[row : row + 1], kwargs, graphs=graphs)[0].token_ids.tolist()

    threads = [threading.Thread(target=answer, args=(row,)) for row in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_sampling_from_numbers_that_are_not_finite_is_an_error(small, states, graphs):
    model = copy.deepcopy(small.model)
    model.lm_head.weight = torch.nn.Parameter(torch.full_like(model.lm_head.weight, torch.nan))
    with pytest.raises(ArgumentError, match="not finite"):
        generate(model, states[:1], resolve_generation_kwargs(model, {"do_sample": True}), graphs=graphs)


def test_time_is_limited(small, states, graphs):
    kwargs = resolve_generation_kwargs(small.model, {"num_beams": 1, "max_new_tokens": 60, "max_time": 1e-9})
    for num_beams in (1, 3):
        for generation in generate(small.model, states[:2], kwargs | {"num_beams": num_beams}, graphs=graphs):
            assert len(generation.token_ids) == 1
            assert generation.is_truncated


def test_another_thread_stops_the_replays(small, states, graphs):
    kwargs = resolve_generation_kwargs(small.model, {"num_beams": 1, "max_new_tokens": 60})
    generate(small.model, states[:1], kwargs, graphs=graphs)  # captured
    before = RecordedGraph.num_replayed
    with (
        pytest.raises(GenerationInterrupted),
        interruptible(small.model, lambda: RecordedGraph.num_replayed >= before + 5),
    ):
        generate(small.model, states[:1], kwargs, graphs=graphs)
    assert RecordedGraph.num_replayed == before + 5


def test_weights_that_change_in_place_count(small, states):
    model, graphs = copy.deepcopy(small.model), GraphCache(RecordedGraph.capture)
    assert_equal_tokens(model, states[:1], graphs, {"num_beams": 1})
    captured = RecordedGraph.num_captured
    with torch.no_grad():
        for parameter in model.model.language_model.decoder.parameters():
            parameter.data += torch.randn_like(parameter) * 0.5  # as PEFT merges an adapter
    assert_equal_tokens(model, states[:1], graphs, {"num_beams": 1})
    assert RecordedGraph.num_captured == captured


def test_weights_that_are_replaced_count(small, states):
    model, graphs = copy.deepcopy(small.model), GraphCache(RecordedGraph.capture)
    assert_equal_tokens(model, states[:1], graphs, {"num_beams": 1})
    for parameter in model.model.language_model.decoder.parameters():
        parameter.data = parameter.data + 0.1
    assert_equal_tokens(model, states[:1], graphs, {"num_beams": 1})


@pytest.mark.slow
def test_an_adapter_counts_and_can_be_switched_off(small, states):
    peft = pytest.importorskip("peft")
    model, graphs = copy.deepcopy(small.model), GraphCache(RecordedGraph.capture)
    config = peft.LoraConfig(target_modules=["q_proj", "fc1"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()
    assert_equal_tokens(model, states[:1], graphs, {"num_beams": 1})
    with adapted.disable_adapter():
        assert_equal_tokens(model, states[:1], graphs, {"num_beams": 1})
    assert_equal_tokens(model, states[:1], graphs, {"num_beams": 1})


@pytest.mark.parametrize("num_beams", [1, 2])
def test_numbers_that_are_not_finite_do_not_stay_in_the_buffers(small, states, num_beams):
    """As of an answer that overflowed in fp16: the buffers serve the next one."""
    cache = GraphCache(RecordedGraph.capture)
    settings = {"num_beams": num_beams, "max_new_tokens": 70}  # longer than the first cache
    assert_equal_tokens(small.model, states[:2], cache, settings)
    with torch.inference_mode():
        for buffers in cache._buffers.values():
            buffers.source.cross_cache.fill_(torch.nan)
            for state in buffers._states.values():
                state.decoder.cache.fill_(torch.nan)
    assert_equal_tokens(small.model, states[:2], cache, settings)
