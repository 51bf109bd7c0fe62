"""The image encoder and the text encoder, as CUDA graphs where that is possible."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import Florence2ForConditionalGeneration

from .davit import image_encoder_modules
from .graphs import GraphCache
from .interruption import check_interrupts

_LENGTH_MULTIPLE = 64
"""Inputs are padded to a multiple of so many positions, so that prompts of similar length share a graph."""


class DefaultImageEncoder:
    """The image encoder of a model, uncompiled: pixel values (B x 3 x H x W) -> image tokens (B x N x d_model)."""

    def __init__(self, model: Florence2ForConditionalGeneration, graphs: GraphCache | None = None) -> None:
        """
        Args:
            model: the model.
            graphs: keeps graphs, which take the place of the encoder where they can.
        """
        self._model, self._graphs = model, graphs

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the image tokens of pixel values."""
        modules = image_encoder_modules(self._model)
        if self._graphs is None or not self._graphs.accepts(len(pixel_values), *modules):
            return self._encode(pixel_values)
        check_interrupts(self._model.lm_head)
        return self._graphs.call("image encoder", self._encode, modules, pixel_values)

    def _encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        image_tokens: torch.Tensor = self._model.get_image_features(pixel_values).pooler_output
        return image_tokens


def encode_by_graph(
    model: Florence2ForConditionalGeneration, graphs: GraphCache, embeddings: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Return the output of the text encoder, B x S x d_model, computed by a graph.

    Args:
        model: the model.
        graphs: keeps graphs.
        embeddings: B x S x d_model, of image and prompt.
        attention_mask: B x S, 1 where there is a token.
    """
    check_interrupts(model.lm_head)
    encoder: Any = model.get_encoder()
    length = embeddings.shape[1]
    padded = min(-(-length // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE, encoder.max_source_positions)
    mask = pad(attention_mask, (0, padded - length))
    states = graphs.call(
        "text encoder",
        partial(static_text_encoder, encoder),
        [encoder],
        pad(embeddings, (0, 0, 0, padded - length)),
        mask,
    )
    return states[:, :length]


def static_text_encoder(encoder: Any, embeddings: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return what BART's encoder returns, B x S x d_model, without asking the device for values.

    transformers' own asks whether anything is masked, and in float16 whether values are finite.

    Args:
        encoder: `BartEncoder`, in eval mode.
        embeddings: B x S x d_model.
        attention_mask: B x S, 1 where there is a token.
    """
    positions = encoder.embed_positions
    first = positions.offset
    hidden = encoder.layernorm_embedding(embeddings + positions.weight[first : first + embeddings.shape[1]])
    mask = torch.where(attention_mask.bool(), 0.0, -torch.inf).to(hidden.dtype)[:, None, None]
    limit = torch.finfo(hidden.dtype).max - 1000
    for layer in encoder.layers:
        hidden = layer.self_attn_layer_norm(hidden + _attend(layer.self_attn, hidden, mask))
        feed_forward = layer.fc2(layer.activation_fn(layer.fc1(hidden)))
        hidden = layer.final_layer_norm(hidden + feed_forward)
        if hidden.dtype == torch.float16:
            hidden = hidden.clamp(-limit, limit)
    return hidden


def _attend(attention: Any, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    query, key, value = (
        project(hidden).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    output = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=attention.scaling)
    attended: torch.Tensor = attention.out_proj(output.transpose(1, 2).flatten(2))
    return attended
