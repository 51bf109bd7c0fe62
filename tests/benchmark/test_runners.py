"""Both libraries do the same work, each in its own way."""

import pytest
import torch

from florence_lab.benchmark.runners import BACKENDS, build_runner
from florence_lab.benchmark.workloads import ALL_TASKS, BenchmarkInputs
from florence_lab.inference.davit import DAVIT_ATTENTION
from florence_lab.inference.decoding import LANGUAGE_ATTENTION


@pytest.fixture(scope="module")
def inputs(both):
    return BenchmarkInputs.create(both[0].processor)


def test_both_libraries_give_the_same_image_tokens(both, inputs):
    lab, baseline = (runner.encode(inputs.pixel_values) for runner in both)
    torch.testing.assert_close(lab, baseline, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_both_libraries_give_the_same_answer(both, inputs, num_beams):
    lab, baseline = (r.generate_text(inputs.images[0], ALL_TASKS[0], 6, num_beams) for r in both)
    assert lab == baseline


def test_both_libraries_give_the_same_answers_to_all_tasks(both, inputs):
    lab, baseline = (runner.predict_all_tasks(inputs.images[0]) for runner in both)
    assert lab == baseline
    assert len(lab) == 15


def test_both_libraries_give_the_same_captions(both, inputs):
    lab, baseline = (runner.caption_images(inputs.images) for runner in both)
    assert lab == baseline
    assert len(lab) == 3


def test_the_baseline_runs_transformers_own_attention(both):
    """Otherwise the ratios would compare florence_lab with itself."""
    lab, baseline = ({module.config._attn_implementation for module in _attention_modules(r.model)} for r in both)
    assert lab == {DAVIT_ATTENTION, LANGUAGE_ATTENTION}
    assert baseline == {"sdpa"}


def _attention_modules(model):
    return [m for m in model.modules() if "Attention" in type(m).__name__ and hasattr(m, "config")]


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_load_their_format(short, checkpoint, backend):
    runner = build_runner(backend, checkpoint, torch.device("cpu"))
    expected = {"fp32": [torch.float32], "bf16": [torch.bfloat16], "auto": [torch.float32, torch.bfloat16]}
    assert runner.model.dtype in expected[BACKENDS[backend].dtype]
