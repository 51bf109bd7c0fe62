"""The vision tower, DaViT: its attention, the grids of its stages, and the same tower as timm's."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.florence2.modeling_florence2 import Florence2VisionChannelAttention

from ..loading.published import published_name

if TYPE_CHECKING:
    from timm.models.davit import DaVit
    from transformers import Florence2ForConditionalGeneration, Florence2Processor

DAVIT_ATTENTION = "florence_lab_davit"
"""The name under which transformers knows `davit_attention`."""

_RUN = 512  # tokens added up in one go


def davit_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention for DaViT: window attention is PyTorch's own; channel attention is summed in runs of tokens.

    Channel attention multiplies channels with channels, over all tokens of a picture: sums of 36,864 products in the first
    stage at 768 x 768. Some BLAS libraries add them one after the other in float32, and the image tokens come out 7e-5 from
    the exact ones; in runs of a few hundred the error falls to 1e-5, at about the same speed.

    Args:
        query, key, value: for channel attention batch x groups x channels x tokens.
        scaling: what the products are multiplied with.

    Returns:
        batch x channels x groups x tokens, and no weights.
    """
    if not isinstance(module, Florence2VisionChannelAttention):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    tokens = query.shape[-1]
    runs = 1
    while tokens // runs > _RUN and tokens % (2 * runs) == 0:
        runs *= 2
    query_runs, key_runs = ((x.unflatten(-1, (runs, tokens // runs)).movedim(-2, 2)) for x in (query * scaling, key))
    weights = (query_runs @ key_runs.transpose(-1, -2)).sum(dim=2).softmax(dim=-1)
    return (weights @ value).transpose(1, 2), None


def register_davit_attention() -> None:
    """Make `davit_attention` known to transformers under the name `DAVIT_ATTENTION`. Idempotent."""
    AttentionInterface.register(DAVIT_ATTENTION, davit_attention)


def image_encoder_modules(model: Florence2ForConditionalGeneration) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The vision tower, and the projector behind it."""
    return model.model.vision_tower, model.model.multi_modal_projector


def image_encoder_fingerprint(model: Florence2ForConditionalGeneration, *more: Any) -> str:
    """32 hexadecimal digits of a picture's way to tokens: number format, names and weights, and `more` that it depends on."""
    digest = hashlib.sha256(repr((model.dtype, *more)).encode())
    for part in image_encoder_modules(model):
        for name, tensor in part.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def stage_grids(model: Florence2ForConditionalGeneration, size: tuple[int, int]) -> list[tuple[int, int]]:
    """(rows, columns) of the tower's feature map after each stage, for pixels of (height, width).

    The last one is the grid of image tokens: (24, 24) in the published models, at 768 x 768. One token more stands in front
    of them, the mean of all.
    """
    config, grids = model.config.vision_config, [size]
    for kernel, stride, padding in zip(config.patch_size, config.patch_stride, config.patch_padding, strict=True):
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in grids[-1])
        grids.append((height, width))
    return grids[1:]


def to_timm(model: Florence2ForConditionalGeneration) -> DaVit:
    """The vision tower as timm's DaViT (`davit_base_fl`, `davit_huge_fl`, or the same at other sizes), weights copied.

    `to_timm(model).forward_features(pixel_values)` gives the tower's last feature map, batch x channels x height x width:
    an independent implementation of the same thing, for whoever lives in timm.

    Raises:
        ValueError: for a tower with strides or patches that timm's DaViT does not know.
    """
    import timm
    from timm.models.davit import checkpoint_filter_fn

    config = model.config.vision_config
    stages = len(config.embed_dim)
    if list(config.patch_size) != [7] + [3] * (stages - 1) or list(config.patch_stride) != [4] + [2] * (stages - 1):
        raise ValueError(
            f"timm's DaViT has patches of 7, 3, 3 … with strides 4, 2, 2 …; this tower has {list(config.patch_size)} "
            f"with strides {list(config.patch_stride)}"
        )
    tower = timm.create_model(
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
    if report.unexpected_keys or set(report.missing_keys) - {"head.norm.weight", "head.norm.bias"}:
        raise ValueError(f"timm's DaViT does not fit this tower: {report}")  # Florence-2 has no norm behind the tower
    return tower.eval().to(model.device, model.dtype)


def image_token_grid(model: Florence2ForConditionalGeneration, processor: Florence2Processor) -> tuple[int, int]:
    """(rows, columns) of the image tokens behind the first one, which is their mean."""
    size = processor.image_processor.size
    return stage_grids(model, (size["height"], size["width"]))[-1]
