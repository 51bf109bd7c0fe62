"""DaViT, the image encoder: its attention, the grids of its stages, and the same encoder in timm."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AttentionInterface, Florence2ForConditionalGeneration, Florence2Processor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.florence2.modeling_florence2 import Florence2VisionChannelAttention

from ..loading.published import published_name

if TYPE_CHECKING:
    from timm.models.davit import DaVit

DAVIT_ATTENTION = "florence_lab_davit"
"""The name of `davit_attention` in transformers' attention interface."""

_MAX_CHUNK = 512  # tokens whose products are summed at once


def davit_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of DaViT: PyTorch's for windows; for channels, sums are computed in chunks of tokens.

    Channel attention multiplies channels with channels, summed over all tokens: 36,864 products in the first stage at
    768 x 768 pixels. Some BLAS libraries add them one after the other in float32, which gives an error of 7e-5 in the image
    tokens. Chunks of a few hundred tokens reduce it to 1e-5 at about the same speed.

    Args:
        module: the attention layer.
        query, key, value: for channel attention, B x groups x channels x tokens.
        attention_mask: unused by channel attention.
        scaling: factor of the products.
        kwargs: passed on to transformers' SDPA attention.

    Returns:
        B x channels x groups x tokens, and None in place of the attention weights.
    """
    if not isinstance(module, Florence2VisionChannelAttention) or scaling is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    num_tokens = query.shape[-1]
    num_chunks = 1
    while num_tokens // num_chunks > _MAX_CHUNK and num_tokens % (2 * num_chunks) == 0:
        num_chunks *= 2
    shape = (num_chunks, num_tokens // num_chunks)
    query_chunks, key_chunks = (x.unflatten(-1, shape).movedim(-2, 2) for x in (query * scaling, key))
    weights = (query_chunks @ key_chunks.transpose(-1, -2)).sum(dim=2).softmax(dim=-1)
    return (weights @ value).transpose(1, 2), None


def register_davit_attention() -> None:
    """Register `davit_attention` with transformers. Idempotent."""
    AttentionInterface.register(DAVIT_ATTENTION, davit_attention)


def image_encoder_modules(model: Florence2ForConditionalGeneration) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return the vision tower of a model and the projector after it."""
    return model.model.vision_tower, model.model.multi_modal_projector


def image_encoder_fingerprint(model: Florence2ForConditionalGeneration, *settings: Any) -> str:
    """Return 32 hexadecimal digits that identify an image encoder: its dtype and weights, and further settings."""
    digest = hashlib.sha256(repr((model.dtype, *settings)).encode())
    for part in image_encoder_modules(model):
        for name, tensor in part.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def stage_grids(model: Florence2ForConditionalGeneration, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (rows, columns) of the feature map after each stage.

    The last one is the grid of image tokens, (24, 24) for the published models at 768 x 768 pixels. The mean of all image
    tokens is one more token, before them.

    Args:
        model: the model.
        size: (height, width) of the pixel values.
    """
    config, grids = _vision_config(model), [size]
    for kernel, stride, padding in zip(config.patch_size, config.patch_stride, config.patch_padding, strict=True):
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in grids[-1])
        grids.append((height, width))
    return grids[1:]


def image_token_grid(model: Florence2ForConditionalGeneration, processor: Florence2Processor) -> tuple[int, int]:
    """Return (rows, columns) of the image tokens after the first one, which is their mean."""
    size = processor.image_processor.size
    return stage_grids(model, (size["height"], size["width"]))[-1]


def to_timm(model: Florence2ForConditionalGeneration) -> DaVit:
    """Return the vision tower as timm's DaViT (`davit_base_fl`, `davit_huge_fl`, or the same at other sizes).

    `to_timm(model).forward_features(pixel_values)` gives the last feature map, B x channels x height x width, from an
    independent implementation. The weights are copied.

    Raises:
        ValueError: if the tower has patches or strides that timm's DaViT does not support.
    """
    import timm
    from timm.models.davit import checkpoint_filter_fn

    config = _vision_config(model)
    num_stages = len(config.embed_dim)
    patches, strides = [7] + [3] * (num_stages - 1), [4] + [2] * (num_stages - 1)
    if list(config.patch_size) != patches or list(config.patch_stride) != strides:
        raise ValueError(
            f"timm's DaViT requires patches {patches} with strides {strides}; this tower has {list(config.patch_size)} with "
            f"strides {list(config.patch_stride)}"
        )
    tower: Any = timm.create_model(
        "davit_huge_fl" if config.embed_dim[0] == 256 else "davit_base_fl",
        num_classes=0,
        depths=tuple(config.depths),
        embed_dims=tuple(config.embed_dim),
        num_heads=tuple(config.num_heads),
        window_size=config.window_size,
        mlp_ratio=config.mlp_ratio,
    )
    weights = {published_name(name): w for name, w in model.state_dict().items() if ".vision_tower." in name}
    report = tower.load_state_dict(checkpoint_filter_fn(weights, tower), strict=False)
    # Florence-2 has no norm after the tower
    if report.unexpected_keys or set(report.missing_keys) - {"head.norm.weight", "head.norm.bias"}:
        raise ValueError(f"the weights do not match timm's DaViT: {report}")
    return cast("DaVit", tower.eval().to(model.device, model.dtype))


def _vision_config(model: Florence2ForConditionalGeneration) -> Any:
    """The configuration of the vision tower, which transformers types as a union."""
    return model.config.vision_config
