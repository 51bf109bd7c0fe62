"""Streaming: one sequence, token by token."""

import threading

import numpy as np
import pytest
import torch
from support import PHOTO

from florence_lab.inference.generation import encode_prompts, generate, resolve_generation_kwargs, score
from florence_lab.inference.streaming import stream


@pytest.fixture(scope="module")
def states(small):
    encoded = small.encode_image(PHOTO)
    prompt = "Locate the objects with category name in the image."
    return encode_prompts(small.model, small.processor.tokenizer, encoded.tokens, [prompt])


def kwargs_of(small, **kwargs):
    return resolve_generation_kwargs(small.model, {"num_beams": 1, "max_new_tokens": 40, **kwargs})


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "temperature": 4.0, "top_k": 30}])
def test_streamed_tokens_are_those_of_generate(small, states, sampling):
    kwargs = kwargs_of(small, **sampling)
    torch.manual_seed(3)
    (whole,) = generate(small.model, states, kwargs)
    torch.manual_seed(3)
    steps = [(list(step.token_ids), step.is_final) for step in stream(small.model, states, kwargs)]
    assert steps[-1] == (whole.token_ids.tolist(), True)
    assert [tokens for tokens, _ in steps] == [steps[-1][0][: i + 1] for i in range(len(steps))]
    assert not any(is_final for _, is_final in steps[:-1])


def test_streamed_probabilities_are_those_of_a_teacher_forced_pass(small, states):
    location_ids = small.template.location_ids
    *_, step = stream(small.model, states, kwargs_of(small), location_ids)
    expected = score(small.model, torch.tensor(step.token_ids), states, location_ids)
    np.testing.assert_allclose(step.probabilities.generated, expected.generated, rtol=1e-4)
    np.testing.assert_allclose(step.probabilities.locations, expected.locations, rtol=1e-4, atol=1e-8)


def test_probabilities_are_recorded_only_if_requested(small, states):
    assert next(stream(small.model, states, kwargs_of(small))).probabilities is None


def test_streaming_starts_no_thread(small, states):
    before = threading.active_count()
    steps = stream(small.model, states, kwargs_of(small))
    next(steps)
    assert threading.active_count() == before


def test_gradients_are_not_recorded_between_steps(small, states):
    steps = stream(small.model, states, kwargs_of(small))
    next(steps)
    assert torch.is_grad_enabled()  # the caller's mode is untouched
    assert not torch.is_inference_mode_enabled()
