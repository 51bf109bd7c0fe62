"""The image encoder: an independent implementation agrees, and its attention is exact."""

import copy

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.florence2.modeling_florence2 import Florence2VisionChannelAttention, eager_attention_forward

from florence_lab.inference.davit import (
    davit_attention,
    image_encoder_fingerprint,
    image_token_grid,
    stage_grids,
    to_timm,
)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@torch.inference_mode()
def test_timm_computes_the_same_features(tiny, dtype, tolerance):
    model = copy.deepcopy(tiny.model).to(dtype)
    pixel_values = torch.randn(2, 3, 192, 192, dtype=dtype, generator=torch.Generator().manual_seed(0))
    features = model.model.vision_tower(pixel_values).last_hidden_state
    timm_features = to_timm(model).forward_features(pixel_values)
    assert timm_features.shape == features.shape == (2, 64, 6, 6)
    assert timm_features.dtype == dtype
    assert (timm_features - features).abs().max() <= tolerance * features.abs().max()


def test_strides_that_timm_does_not_support_are_refused(tiny):
    model = copy.deepcopy(tiny.model)
    model.config.vision_config.patch_stride = [2, 2, 2, 2]
    with pytest.raises(ValueError, match=r"with strides \[4, 2, 2, 2\]; this tower has .* strides \[2, 2, 2, 2\]"):
        to_timm(model)


@pytest.fixture
def channels(tiny):
    """A channel attention of the model, with query, key and value as in the first stage at 768 x 768 pixels."""
    module = next(m for m in tiny.model.modules() if isinstance(m, Florence2VisionChannelAttention))
    generator = torch.Generator().manual_seed(0)
    # with a mean, as real activations have: sums over 36,864 tokens grow, and float32 loses digits
    query, key, value = torch.randn(3, 1, 2, 8, 192 * 192, dtype=torch.float64, generator=generator).add(0.5)
    return module, query, key, value


def attend(attention, channels, dtype=torch.float64):
    module, *qkv = channels
    scaling = qkv[0].shape[-1] ** -0.5
    output, _ = attention(module, *(x.to(dtype) for x in qkv), attention_mask=None, scaling=scaling)
    return output.double()


@pytest.mark.parametrize("num_tokens", [1, 511, 513, 36, 768, 192 * 192])
def test_channel_attention_equals_that_of_transformers(channels, num_tokens):
    module, *qkv = channels
    some = (module, *(x[..., :num_tokens] for x in qkv))
    expected = attend(eager_attention_forward, some)
    torch.testing.assert_close(attend(davit_attention, some), expected, rtol=1e-12, atol=1e-12)


def test_channel_attention_is_exact_in_single_precision(channels):
    exact = attend(eager_attention_forward, channels)
    error = (attend(davit_attention, channels, torch.float32) - exact).abs().max()
    plain = (attend(sdpa_attention_forward, channels, torch.float32) - exact).abs().max()
    assert error < max(plain, 1e-5)  # some BLAS libraries sum accurately themselves; the error of others is 9e-5
    assert error < 3e-5


def test_the_grid_halves_with_each_stage(tiny, small):
    assert stage_grids(tiny.model, (768, 768)) == [(192, 192), (96, 96), (48, 48), (24, 24)]
    assert image_token_grid(tiny.model, tiny.processor) == (24, 24)
    assert image_token_grid(small.model, small.processor) == (6, 6)


def test_the_fingerprint_depends_on_weights_dtype_and_settings(small):
    model = copy.deepcopy(small.model)
    fingerprints = [image_encoder_fingerprint(model), image_encoder_fingerprint(model, (384, 384))]
    fingerprints.append(image_encoder_fingerprint(copy.deepcopy(model).to(torch.bfloat16)))
    with torch.no_grad():
        next(model.model.vision_tower.parameters()).add_(1)
    fingerprints.append(image_encoder_fingerprint(model))
    assert len(set(fingerprints)) == 4
    assert image_encoder_fingerprint(small.model) == fingerprints[0]


def test_the_fingerprint_is_stable_across_releases(tiny):
    """Caches on disk are named by it: another value computes them anew."""
    assert image_encoder_fingerprint(tiny.model) == "031ac2a042952016b8e68d23079cac36"
