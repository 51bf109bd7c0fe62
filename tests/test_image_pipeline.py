"""Many images about one task: batches that nobody sized, and images encoded beside the decoder."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from florence_lab.exceptions import ArgumentError, ImageError
from florence_lab.inference import batch_size as sizes
from florence_lab.inference.generation import resolve_generation_kwargs
from florence_lab.predictor import Predictor
from florence_lab.predictor import pipeline as pipeline_module
from florence_lab.predictor.pipeline import ImagePipeline

SHORT = {"max_new_tokens": 8, "num_beams": 1}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20 + n, 30, 3), np.uint8)) for n in range(5)]


@pytest.fixture
def batches(small, monkeypatch):
    """The sizes of the batches that are decoded."""
    found, answer = [], pipeline_module.answer_prompts
    monkeypatch.setattr(pipeline_module, "answer_prompts", lambda *args: found.append(len(args[1])) or answer(*args))
    return found


def assert_equal(result, expected):
    assert result.raw == expected.raw
    assert result.image.tobytes() == expected.image.tobytes()
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-5)


class RecordedStream:
    """A side stream whose functions run at once."""

    def __init__(self):
        self.log = []

    def launch(self, function):
        self.log.append("launch")
        return function(), len(self.log)

    def join(self, event, tensors):
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors)
        self.log.append("join")

    def join_all(self):
        self.log.append("join all")


def test_images_are_encoded_one_batch_ahead_with_the_same_results(small, images):
    pipeline = ImagePipeline(small, "<OD>", resolve_generation_kwargs(small.model, SHORT))
    pipeline._side = RecordedStream()
    sources = [images[0], small.encode_image(images[1]), "missing.png", *images[2:]]
    results = list(pipeline.run(((source, None) for source in sources), 2, None))
    assert pipeline._side.log == ["launch", *["launch", "join", "join all"] * 2, "join", "join all"]
    assert isinstance(results.pop(2), ImageError)
    for result, image in zip(results, images, strict=True):
        assert_equal(result, small.predict(image, "<OD>", **SHORT))


def test_batches_fill_by_themselves(small, images, batches, monkeypatch):
    monkeypatch.setattr(sizes, "_CPU_ROWS", 4)
    results = small.predict_batch(images, "<OD>", **SHORT)
    assert batches == [4, 1]
    batches.clear()
    for result, expected in zip(results, small.predict_batch(images, "<OD>", batch_size=5, **SHORT), strict=True):
        assert_equal(result, expected)
    assert batches == [5]


def test_large_images_fill_a_batch_by_their_bytes(small, images, batches, monkeypatch):
    pixels = small.processor.image_processor.size
    monkeypatch.setattr(pipeline_module, "MAX_BATCH_BYTES", 2 * 3 * pixels["height"] * pixels["width"])
    small.predict_batch(images, "<OD>", **SHORT)
    assert batches == [2, 2, 1]
    small.predict_batch(images, "<OD>", batch_size=5, **SHORT)
    assert batches[3:] == [5]


@pytest.mark.parametrize("batch_size", ["all", 0, None, 2.5])
def test_other_batch_sizes_are_refused(small, images, batch_size):
    with pytest.raises(ArgumentError, match="batch_size must be"):
        small.predict_batch(images, "<OD>", batch_size=batch_size)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_results_in_batches(small, images):
    on_gpu = Predictor(copy.deepcopy(small.model).cuda(), small.processor)
    expected = small.predict_batch(images * 4, "<OD>", **SHORT)
    for batch_size in (1, 2, 9, "auto"):
        results = on_gpu.predict_batch(images * 4, "<OD>", batch_size=batch_size, **SHORT)
        assert [result.raw for result in results] == [result.raw for result in expected]
