"""The cache of graphs, and the encoders as graphs."""

import copy
import pickle
import warnings

import pytest
import torch
from recorded_graph import RecordedGraph
from support import PHOTO
from torch import nn

from florence_lab import FlorenceLabWarning
from florence_lab.exceptions import GenerationInterrupted
from florence_lab.inference import graphs as graphs_module
from florence_lab.inference.generation import (
    encode_prompts,
    generate,
    interruptible,
    resolve_generation_kwargs,
)
from florence_lab.inference.graphed_encoders import DefaultImageEncoder
from florence_lab.inference.graphs import GraphCache, bucket, capture_cuda_graph, decoder_modules
from florence_lab.predictor import Predictor

PROMPTS = ["OCR", "Locate the objects in the image, with their descriptions."]


@pytest.fixture(scope="module")
def tokens(small):
    return small.encode_image(PHOTO).tokens


@pytest.fixture(scope="module")
def states(small, tokens):
    return encode_prompts(small.model, small.processor.tokenizer, tokens.expand(2, -1, -1), PROMPTS)


@pytest.fixture
def graphs():
    return GraphCache(RecordedGraph.capture)


def greedy(model, **settings):
    return resolve_generation_kwargs(model, {"num_beams": 1, "max_new_tokens": 6, **settings})


@pytest.mark.parametrize(("number", "smallest", "expected"), [(0, 1, 1), (1, 1, 1), (3, 1, 4), (4, 1, 4), (9, 64, 64)])
def test_buckets_are_powers_of_two(number, smallest, expected):
    assert bucket(number, smallest) == expected


@torch.inference_mode()
def test_the_text_encoder_gives_the_states_of_the_plain_one(small, tokens, graphs):
    image_tokens = tokens.expand(2, -1, -1)
    for _ in range(2):  # captured, replayed
        found = encode_prompts(small.model, small.processor.tokenizer, image_tokens, PROMPTS, graphs)
        expected = encode_prompts(small.model, small.processor.tokenizer, image_tokens, PROMPTS)
        assert torch.equal(found.attention_mask, expected.attention_mask)
        rows = expected.attention_mask.bool()
        torch.testing.assert_close(found.hidden_states[rows], expected.hidden_states[rows], atol=1e-5, rtol=1e-4)
        image_tokens = image_tokens + 0.1


@pytest.mark.parametrize("batch", [1, 2])
def test_the_image_encoder_gives_the_tokens_of_the_plain_one(small, graphs, batch):
    encoder, plain = DefaultImageEncoder(small.model, graphs), DefaultImageEncoder(small.model)
    generator = torch.Generator().manual_seed(0)
    captured = RecordedGraph.num_captured
    for context in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        pixel_values = torch.randn(batch, 3, 192, 192, generator=generator)
        with context():
            found, expected = encoder(pixel_values), plain(pixel_values)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert RecordedGraph.num_captured == captured + 1


def test_image_tokens_of_an_earlier_call_stay_as_they_are(small, graphs):
    encoder = DefaultImageEncoder(small.model, graphs)
    with torch.inference_mode():
        first = encoder(torch.zeros(1, 3, 192, 192))
        before = first.clone()
        encoder(torch.ones(1, 3, 192, 192))
    assert torch.equal(first, before)


def test_many_images_and_gradients_are_encoded_without_a_graph(small, graphs):
    encoder = DefaultImageEncoder(copy.deepcopy(small.model), graphs)
    captured = RecordedGraph.num_captured
    with torch.inference_mode():
        encoder(torch.zeros(9, 3, 64, 64))
    assert encoder(torch.zeros(1, 3, 192, 192)).requires_grad
    assert RecordedGraph.num_captured == captured


def test_another_thread_stops_the_encoders(small, graphs, tokens):
    with torch.inference_mode():
        DefaultImageEncoder(small.model, graphs)(torch.zeros(1, 3, 192, 192))
        encode_prompts(small.model, small.processor.tokenizer, tokens, PROMPTS[:1], graphs)
        is_stopped = iter([False, True, True])
        with interruptible(small.model, lambda: next(is_stopped)):
            with pytest.raises(GenerationInterrupted):
                DefaultImageEncoder(small.model, graphs)(torch.zeros(1, 3, 192, 192))
            with pytest.raises(GenerationInterrupted):
                encode_prompts(small.model, small.processor.tokenizer, tokens, PROMPTS[:1], graphs)


def hook(model):
    model.model.language_model.decoder.layers[0].fc1.register_forward_hook(lambda *_: None)


def replace_forward(model):
    model.model.language_model.decoder.layers[0].fc1.forward = lambda x: x


def replace_layer(model):
    class Other(nn.Linear):
        pass

    model.model.language_model.decoder.layers[0].fc1.__class__ = Other


CHANGES = {
    "training": lambda model: model.train(),
    "a hook": hook,
    "a replaced function": replace_forward,
    "another layer": replace_layer,
}


@pytest.mark.parametrize("change", CHANGES)
@torch.inference_mode()
def test_changed_models_run_without_graphs(small, graphs, change):
    model = copy.deepcopy(small.model)
    assert graphs.is_usable(*decoder_modules(model))
    CHANGES[change](model)
    assert not graphs.is_usable(*decoder_modules(model))


@torch.inference_mode()
def test_hooks_that_transformers_leaves_behind_are_no_change(small, graphs):
    model = copy.deepcopy(small.model)
    ids = torch.tensor([[0, 5, 2]])
    model.model.language_model(input_ids=ids, decoder_input_ids=ids, output_attentions=True, output_hidden_states=True)
    assert any(layer._forward_hooks for layer in model.modules())
    assert graphs.is_usable(*decoder_modules(model))


@torch.inference_mode()
def test_graphs_are_for_cuda(small):
    assert not GraphCache().is_usable(*decoder_modules(small.model))


def test_autocast_runs_without_graphs(small, graphs):
    with torch.inference_mode(), torch.autocast("cpu"):
        assert not graphs.is_usable(*decoder_modules(small.model))


def test_a_failed_capture_gives_one_warning_and_the_same_tokens(small, states):
    def fail(step, pool):
        raise RuntimeError("no graphs here")

    graphs, kwargs = GraphCache(fail), greedy(small.model)
    expected = [generation.token_ids.tolist() for generation in generate(small.model, states, kwargs)]
    with pytest.warns(FlorenceLabWarning, match="without it: no graphs here"):
        first = generate(small.model, states, kwargs, graphs=graphs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = generate(small.model, states[:1], kwargs, graphs=graphs)
    assert [generation.token_ids.tolist() for generation in [*first, *second]] == [*expected, expected[0]]


def test_what_is_used_again_is_not_captured_again(small, states, graphs):
    generate(small.model, states, greedy(small.model), graphs=graphs)
    captured = RecordedGraph.num_captured
    generate(small.model, states, greedy(small.model, max_new_tokens=9), graphs=graphs)
    assert RecordedGraph.num_captured == captured
    generate(small.model, states, greedy(small.model, no_repeat_ngram_size=2), graphs=graphs)
    assert RecordedGraph.num_captured == captured + 1


def test_the_memory_of_buffers_is_bounded(small, states):
    kwargs = greedy(small.model)
    graphs = GraphCache(RecordedGraph.capture)
    generate(small.model, states[:1], kwargs, graphs=graphs)
    one = graphs.nbytes()
    assert one > 0
    bounded = GraphCache(RecordedGraph.capture, max_bytes=2 * one)
    for settings in ({}, {"num_beams": 3}, {"num_beams": 2}):
        generate(small.model, states[:1], kwargs | settings, graphs=bounded)
        generate(small.model, states, kwargs | settings, graphs=bounded)
        assert bounded.nbytes() <= 2 * one
    graphs.clear()
    assert graphs.nbytes() == 0


@pytest.mark.parametrize("name", ["StaticSource", "SearchState"])
def test_memory_is_freed_where_it_is_short(small, states, graphs, monkeypatch, name):
    kwargs = greedy(small.model)
    generate(small.model, states[:1], kwargs, graphs=graphs)
    original, failures = getattr(graphs_module, name), [1]

    def allocate(*arguments):
        if failures:
            failures.pop()
            raise torch.OutOfMemoryError
        return original(*arguments)

    monkeypatch.setattr(graphs_module, name, allocate)
    assert graphs.nbytes() > 0
    assert len(generate(small.model, states, kwargs, graphs=graphs)) == 2
    assert not failures
    assert graphs.nbytes() > 0


def test_an_encoder_without_memory_for_a_graph_runs_without(small):
    def fail(step, pool):
        raise torch.OutOfMemoryError

    pixel_values = torch.zeros(1, 3, 192, 192)
    with torch.inference_mode():
        found = DefaultImageEncoder(small.model, GraphCache(fail))(pixel_values)
        torch.testing.assert_close(found, DefaultImageEncoder(small.model)(pixel_values))


def test_a_copied_predictor_has_graphs_of_its_own(small):
    predictor = Predictor(copy.deepcopy(small.model), small.processor)
    predictor.graphs = GraphCache(RecordedGraph.capture)
    predictor.image_encoder = DefaultImageEncoder(predictor.model, predictor.graphs)
    settings = {"max_new_tokens": 9, "num_beams": 1, "forced_eos_token_id": None}
    with pytest.warns(FlorenceLabWarning, match="truncated"):
        expected = predictor.predict(PHOTO, "<OD>", **settings).raw
    copied = copy.deepcopy(predictor)
    with torch.no_grad():
        for parameter in predictor.model.parameters():
            parameter.zero_()
    with pytest.warns(FlorenceLabWarning, match="truncated"):
        assert copied.predict(PHOTO, "<OD>", **settings).raw == expected
    assert copied.graphs is not predictor.graphs
    assert copied.graphs.nbytes() > 0


def test_a_cache_is_pickled_without_its_graphs(small, states):
    graphs = GraphCache(RecordedGraph.capture, max_bytes=1000)
    generate(small.model, states, greedy(small.model), graphs=graphs)
    assert pickle.loads(pickle.dumps(graphs)).nbytes() == 0


@pytest.mark.gpu
def test_a_step_is_captured_and_replayed():
    counter = torch.zeros(1, device="cuda")
    replay = capture_cuda_graph(lambda: counter.add_(1), torch.cuda.graph_pool_handle())
    counter.zero_()
    for _ in range(3):
        replay()
    assert counter.item() == 3


@pytest.mark.gpu
@pytest.mark.parametrize(
    "settings", [{"num_beams": 1}, {"num_beams": 3}, {"do_sample": True, "top_k": 9, "top_p": 0.9}]
)
def test_answers_on_cuda_are_those_without_graphs(nano, settings):
    predictor = Predictor(copy.deepcopy(nano.model).cuda(), nano.processor)
    plain = Predictor(predictor.model, nano.processor, graphs=False)
    image = predictor.encode_image(PHOTO)
    answers = []
    for each in (predictor, plain):
        torch.manual_seed(0)
        answers.append([result.raw for result in each.predict_tasks(image, ["<OD>", "<CAPTION>", "<OCR>"], **settings)])
    assert answers[0] == answers[1]
