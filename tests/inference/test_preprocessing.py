"""The pixel values are those of transformers' image processor, to the last bit."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from florence_lab import load_image
from florence_lab.inference import preprocessing
from florence_lab.inference.preprocessing import (
    group_by_input_size,
    look_up_on_device,
    preprocess,
    preprocess_source,
    to_pixel_values,
)

PUBLISHED = {
    "size": {"height": 48, "width": 64},
    "do_center_crop": False,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def noise(width, height, mode="RGB"):
    levels = np.random.default_rng(width * height).integers(0, 256, (height, width, 4), np.uint8)
    return Image.fromarray(levels).convert(mode)


def official(processor, images):
    return processor(images, return_tensors="pt")["pixel_values"]


@pytest.fixture
def no_fallback(monkeypatch):
    monkeypatch.setattr(preprocessing, "_run_processor", lambda *_: pytest.fail("not the fast path"))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"resample": 2},
        {"resample": Image.Resampling.LANCZOS},
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"rescale_factor": 1},
        {"image_mean": 0.5, "image_std": 0.25},
        {"image_mean": (0, 0, 1), "image_std": (1, 2, 3)},
        {"do_pad": False, "do_convert_rgb": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(64, 48), (1, 1), (3, 200), (200, 150)], ids=str)
def test_the_fast_path_equals_the_processor(settings, size, no_fallback):
    processor, image = CLIPImageProcessorPil(**PUBLISHED | settings), noise(*size)
    pixel_values = preprocess(processor, [image, image.rotate(180)])
    assert pixel_values.dtype == torch.float32
    assert pixel_values.is_contiguous()
    assert torch.equal(pixel_values, official(processor, [image, image.rotate(180)]))


def test_every_level_of_every_channel_is_equal(no_fallback):
    processor = CLIPImageProcessorPil(**PUBLISHED | {"size": {"height": 16, "width": 16}})
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([levels, levels.T, 255 - levels], axis=-1))
    assert torch.equal(preprocess(processor, [image]), official(processor, [image]))


class Inverted(CLIPImageProcessorPil):
    """A processor of a user's own."""

    def rescale(self, image, scale, **kwargs):
        return super().rescale(255 - image, scale, **kwargs)


@pytest.mark.parametrize(
    ("processor", "mode"),
    [
        (CLIPImageProcessorPil(**PUBLISHED | {"do_center_crop": True, "crop_size": {"height": 9, "width": 9}}), "RGB"),
        (CLIPImageProcessorPil(**PUBLISHED | {"size": {"shortest_edge": 20}}), "RGB"),
        (CLIPImageProcessorPil(**PUBLISHED | {"size": {"shortest_edge": 20, "longest_edge": 30}}), "RGB"),
        (CLIPImageProcessorPil(**PUBLISHED | {"do_resize": False}), "RGB"),
        (CLIPImageProcessorPil(**PUBLISHED | {"do_pad": True, "pad_size": {"height": 70, "width": 70}}), "RGB"),
        (CLIPImageProcessorPil(**PUBLISHED), "L"),
        (CLIPImageProcessorPil(**PUBLISHED), "RGBA"),
        (Inverted(**PUBLISHED), "RGB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_steps_are_left_to_the_processor(processor, mode):
    image = noise(40, 30, mode)
    assert torch.equal(preprocess(processor, [image]), official(processor, [image]))


@pytest.mark.parametrize("settings", [{"image_mean": [0.5] * 2}, {"image_std": [0.5] * 4}], ids=str)
def test_invalid_settings_raise_what_the_processor_raises(settings):
    with pytest.raises(ValueError, match="must have 3 elements"):
        preprocess(CLIPImageProcessorPil(**PUBLISHED | settings), [noise(9, 9)])


def test_a_change_of_the_settings_is_followed():
    processor, image = CLIPImageProcessorPil(**PUBLISHED), noise(40, 30)
    before = preprocess(processor, [image])
    processor.image_mean = [0.1, 0.2, 0.3]
    after = preprocess(processor, [image])
    assert not torch.equal(before, after)
    assert torch.equal(after, official(processor, [image]))


@pytest.mark.parametrize("processor", [CLIPImageProcessorPil(**PUBLISHED), Inverted(**PUBLISHED)], ids=["fast", "own"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_read_images_have_the_pixel_values_of_the_processor(processor, dtype):
    images = [noise(40, 30), noise(30, 40)]
    preprocessed = [preprocess_source(processor, image) for image in images]
    assert [item.size for item in preprocessed] == [image.size for image in images]
    assert torch.equal(to_pixel_values(preprocessed, "cpu", dtype), official(processor, images).to(dtype))


def test_neighbours_of_one_input_size_are_grouped():
    keeps_shape = CLIPImageProcessorPil(**PUBLISHED | {"size": {"shortest_edge": 20}})
    processors = {"fast": CLIPImageProcessorPil(**PUBLISHED), "own": keeps_shape}
    kinds = [("fast", 30), ("fast", 40), ("own", 40), ("own", 40), ("own", 50), ("fast", 60)]
    items = [preprocess_source(processors[name], noise(width, 30)) for name, width in kinds]
    assert [len(group) for group in group_by_input_size(items)] == [2, 2, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_device_looks_up_the_same_values(dtype):
    processor, images = CLIPImageProcessorPil(**PUBLISHED), [noise(40, 30), noise(30, 40)]
    items = [preprocess_source(processor, image) for image in images]
    values = look_up_on_device(items[0].table.to(dtype), torch.stack([item.pixels for item in items]))
    assert values.is_contiguous()
    assert torch.equal(values, official(processor, images).to(dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("pin_memory", [False, True])
def test_a_gpu_looks_up_the_same_values(pin_memory):
    processor, images = CLIPImageProcessorPil(**PUBLISHED), [noise(40, 30), noise(30, 40)]
    items = [preprocess_source(processor, image, pin_memory) for image in images]
    assert all(item.pixels.is_pinned() is pin_memory for item in items)
    assert torch.equal(to_pixel_values(items, "cuda").cpu(), official(processor, images))


def test_the_image_keeps_its_size_and_counts_its_memory(tmp_path):
    noise(40, 30).save(tmp_path / "a.png")
    item = preprocess_source(CLIPImageProcessorPil(**PUBLISHED), tmp_path / "a.png")
    assert item.image == load_image(tmp_path / "a.png")
    assert item.num_bytes == 40 * 30 * 4 + 48 * 64 * 3


@pytest.mark.parametrize("name", ["small", "nano"])
def test_image_tokens_are_those_of_the_processors_pixel_values(name, request):
    predictor, image = request.getfixturevalue(name), noise(300, 200)
    pixel_values = official(predictor.processor.image_processor, [image])
    expected = predictor.model.get_image_features(pixel_values).pooler_output
    encoded = predictor.encode_image(image)
    assert torch.equal(encoded.tokens, expected)
    assert torch.equal(
        torch.cat([item.tokens for item in predictor.encode_images([image, encoded])]), expected.repeat(2, 1, 1)
    )
