"""The vision tower: two independent implementations agree, and its attention is exact."""

import copy

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.florence2.modeling_florence2 import Florence2VisionChannelAttention, eager_attention_forward

from florence_lab.inference.davit import DAVIT_ATTENTION, davit_attention, to_timm


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@torch.inference_mode()
def test_timm_sees_the_same(tiny, dtype, tolerance):
    model = copy.deepcopy(tiny.model).to(dtype)
    pixels = torch.randn(2, 3, 192, 192, dtype=dtype, generator=torch.Generator().manual_seed(0))
    features = model.model.vision_tower(pixels).last_hidden_state
    of_timm = to_timm(model).forward_features(pixels)
    assert of_timm.shape == features.shape == (2, 64, 6, 6)
    assert of_timm.dtype == dtype
    assert (of_timm - features).abs().max() <= tolerance * features.abs().max()


def test_timm_does_not_know_other_strides(tiny):
    model = copy.deepcopy(tiny.model)
    model.config.vision_config.patch_stride = [2, 2, 2, 2]
    with pytest.raises(ValueError, match=r"strides 4, 2, 2 .* this tower has .* strides \[2, 2, 2, 2\]"):
        to_timm(model)


@pytest.fixture
def channels(tiny):
    """A channel attention of the model, and a query, key and value as in the first stage at 768 x 768."""
    module = next(m for m in tiny.model.modules() if isinstance(m, Florence2VisionChannelAttention))
    generator = torch.Generator().manual_seed(0)
    # with a mean, as real activations have: the sums over 36,864 tokens grow, and float32 loses digits
    query, key, value = torch.randn(3, 1, 2, 8, 192 * 192, dtype=torch.float64, generator=generator).add(0.5)
    return module, query, key, value


def attend(attention, channels, dtype=torch.float64):
    module, *qkv = channels
    scaling = qkv[0].shape[-1] ** -0.5
    output, _ = attention(module, *(x.to(dtype) for x in qkv), attention_mask=None, scaling=scaling)
    return output.double()


def test_channel_attention_is_that_of_transformers(channels):
    truth = attend(eager_attention_forward, channels)
    torch.testing.assert_close(attend(davit_attention, channels), truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 511, 513, 36, 768])
def test_channel_attention_of_any_number_of_tokens(channels, tokens):
    module, *qkv = channels
    few = (module, *(x[..., :tokens] for x in qkv))
    truth = attend(eager_attention_forward, few)
    torch.testing.assert_close(attend(davit_attention, few), truth, rtol=1e-12, atol=1e-12)


def test_channel_attention_is_exact_in_single_precision(channels):
    truth = attend(eager_attention_forward, channels)
    ours = (attend(davit_attention, channels, torch.float32) - truth).abs().max()
    theirs = (attend(sdpa_attention_forward, channels, torch.float32) - truth).abs().max()
    assert ours < max(theirs, 1e-5)  # some BLAS libraries sum well by themselves; those that don't are 9e-5 off
    assert ours < 3e-5


def test_the_tower_uses_it(tiny):
    assert tiny.model.config.vision_config._attn_implementation == DAVIT_ATTENTION
    assert tiny.model.config.text_config._attn_implementation != DAVIT_ATTENTION
