"""Threads that load, answer, trace, save and stream at the same time, and the state of the process afterwards."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers.utils import logging

import florence_lab
from florence_lab.scenes import sample_path

pytestmark = pytest.mark.slow

NUM_THREADS = 8
DTYPES = ("fp32", "bf16", "fp32", "fp16")


def process_state():
    """What `from_pretrained` changes in the whole process while it runs."""
    from transformers import PreTrainedModel

    return (
        torch.get_default_dtype(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        PreTrainedModel.tie_weights,
        PreTrainedModel.init_weights,
    )


@pytest.fixture
def unchanged_process():
    before = process_state()
    yield
    assert process_state() == before


def attention_functions(predictor):
    config = predictor.model.config
    return config.vision_config._attn_implementation, config.text_config._attn_implementation


@pytest.fixture(scope="module")
def references(small):
    """Name -> the answer of a model that was loaded alone."""
    image = sample_path("sheep")
    names = (small.name, "florence-2-nano")
    loaded = {name: florence_lab.load(name, device="cpu") for name in names}
    return {name: predictor.predict(image, "<OD>", max_new_tokens=12).raw for name, predictor in loaded.items()}


def test_eight_threads_load_at_once(references, unchanged_process):
    names = list(references)
    jobs = [(names[i % 2], DTYPES[i // 2 % len(DTYPES)]) for i in range(2 * NUM_THREADS)]
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        loaded = list(threads.map(lambda job: florence_lab.load(job[0], device="cpu", dtype=job[1]), jobs))
    for (name, dtype), predictor in zip(jobs, loaded, strict=True):
        model = predictor.model
        assert {str(p.dtype) for p in model.parameters()} == {str(model.dtype)}
        assert model.lm_head.weight is model.get_input_embeddings().weight
        if dtype == "fp32":
            assert predictor.predict(sample_path("sheep"), "<OD>", max_new_tokens=12).raw == references[name]
    for name, raw in references.items():  # and the process can load afterwards
        predictor = florence_lab.load(name, device="cpu")
        assert predictor.predict(sample_path("sheep"), "<OD>", max_new_tokens=12).raw == raw


def test_threads_predict_while_others_load_trace_save_and_stream(references, tmp_path, unchanged_process):
    predictor = florence_lab.load("florence-2-nano", device="cpu")
    expected, before = references["florence-2-nano"], attention_functions(predictor)
    encoded = predictor.encode_image(sample_path("sheep"))

    def predict(_):
        return predictor.predict(encoded, "<OD>", max_new_tokens=12).raw

    def trace(_):
        return florence_lab.trace(predictor, encoded, "<OD>", max_new_tokens=12).result.raw

    def stream(_):
        return [result.raw for result in predictor.stream(encoded, "<OD>", max_new_tokens=12)][-1]

    def load(_):
        other = florence_lab.load("florence-2-nano", device="cpu")
        return other.predict(encoded.image, "<OD>", max_new_tokens=12).raw

    def save(number):
        predictor.save_pretrained(tmp_path / str(number))
        return expected

    jobs = [(action, i) for i in range(4) for action in (predict, trace, stream, load, save)]
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        answers = list(threads.map(lambda job: job[0](job[1]), jobs))
    assert answers == [expected] * len(jobs)
    assert attention_functions(predictor) == before
    for number in range(4):
        saved = florence_lab.load(tmp_path / str(number), device="cpu")
        assert saved.predict(encoded.image, "<OD>", max_new_tokens=12).raw == expected


def test_eight_threads_trace_at_once(references):
    predictor = florence_lab.load("florence-2-nano", device="cpu")
    before = attention_functions(predictor)
    encoded = predictor.encode_image(sample_path("sheep"))
    alone = florence_lab.trace(predictor, encoded, "<OD>", max_new_tokens=12)
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        traces = list(
            threads.map(lambda _: florence_lab.trace(predictor, encoded, "<OD>", max_new_tokens=12), range(16))
        )
    for traced in traces:
        assert traced.result.raw == alone.result.raw
        torch.testing.assert_close(torch.from_numpy(traced.cross_attention), torch.from_numpy(alone.cross_attention))
    assert attention_functions(predictor) == before
