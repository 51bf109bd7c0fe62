"""Both libraries do the same work, each in its own way."""

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from florence_lab.benchmark import runners
from florence_lab.benchmark.runners import BACKENDS, TransformersRunner, available_backends, build_runner
from florence_lab.benchmark.workloads import ALL_TASKS, BenchmarkInputs, benchmark_images
from florence_lab.inference.davit import DAVIT_ATTENTION
from florence_lab.inference.decoding import LANGUAGE_ATTENTION


@pytest.fixture(scope="module")
def inputs(both):
    with benchmark_images(3) as paths:
        yield BenchmarkInputs(paths, both[0].preprocess(paths))


def test_both_libraries_give_the_same_image_tokens(both, inputs):
    lab, baseline = (runner.encode(inputs.pixel_values) for runner in both)
    torch.testing.assert_close(lab, baseline, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_both_libraries_give_the_same_answer(both, inputs, num_beams):
    lab, baseline = (r.generate_text(inputs.paths[0], ALL_TASKS[0], 6, num_beams) for r in both)
    assert lab == baseline


def test_both_libraries_give_the_same_answers_to_all_tasks(both, inputs):
    lab, baseline = (runner.predict_all_tasks(inputs.paths[0]) for runner in both)
    assert lab == baseline
    assert len(lab) == 15


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_both_libraries_give_the_same_captions(both, inputs, batch_size):
    lab, baseline = (runner.caption_files(inputs.paths, batch_size) for runner in both)
    assert lab == baseline
    assert len(lab) == 3
    for runner in both:
        assert runner.caption_pixels(inputs.pixel_values, batch_size) == lab


def test_an_image_is_encoded_once(both, inputs, monkeypatch):
    lab, _ = both
    expected = lab.generate_text(inputs.paths[1], ALL_TASKS[0], 6)
    assert lab.generate_encoded(inputs.paths[1], 6) == expected
    monkeypatch.setattr(lab.predictor, "image_encoder", lambda pixels: pytest.fail("encoded again"))
    assert lab.generate_encoded(inputs.paths[1], 6) == expected


def test_the_baseline_preprocesses_as_transformers_does_by_default(short, checkpoint, tmp_path, inputs):
    """Which is faster than Pillow; a baseline that is slower than need be would flatter florence_lab."""
    runner = TransformersRunner(checkpoint, torch.float32, torch.device("cpu"))
    runner.processor.save_pretrained(tmp_path)
    default = AutoProcessor.from_pretrained(tmp_path)
    expected = default(text="what?", images=[Image.open(inputs.paths[0])], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(runner.preprocess(inputs.paths[:1]), expected, rtol=0, atol=0)


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
    formats = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    assert runner.model.dtype == formats[backend.split()[-1]]


@pytest.mark.parametrize(
    ("device", "is_native", "formats"),
    [("cpu", False, {"fp32"}), ("cpu", True, {"fp32", "bf16"}), ("cuda", True, {"fp32", "bf16", "tf32", "fp16"})],
)
def test_only_formats_that_a_device_computes_in_are_measured(monkeypatch, device, is_native, formats):
    monkeypatch.setattr(runners, "has_native_bf16", lambda device: is_native)
    assert {name.split()[-1] for name in available_backends(torch.device(device))} == formats
