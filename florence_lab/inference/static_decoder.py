"""BART's decoder in buffers of fixed shape, so that a step can be captured as a CUDA graph and replayed.

A step reads and writes the same memory each time, and never asks the device for a value. The position is a tensor on the device.
The first part of a buffer holds what a generation needs; the rest is padding that a mask excludes.

In shapes, B is the number of prompts that the buffers hold, b of beams per prompt, R = B * b of rows, S of positions of the
encoder's output, L of positions of the cache, d the size of a head, V the size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import Florence2ForConditionalGeneration

from ..exceptions import ArgumentError

Step = Callable[[], None]
"""Advances buffers by one step, as plain operations or as the replay of a graph."""


class DecoderWeights:
    """The weights of the decoder, with those of query, key and value of each layer in one matrix.

    One product takes the place of three. The matrices are copies, which `refresh` makes equal to the model's weights again, so
    that weights may be changed in place in between. They take 21 MB for the base size in bf16.

    Attributes:
        decoder: the model's decoder.
        lm_head: the model's output layer.
    """

    def __init__(self, model: Florence2ForConditionalGeneration) -> None:
        self.decoder: Any = model.model.language_model.decoder
        self.lm_head: Any = model.lm_head
        self._sources: list[torch.Tensor] = []
        self._copies: list[torch.Tensor] = []
        self._fused = [self._fuse(layer.self_attn) for layer in self.decoder.layers]

    @property
    def num_heads(self) -> int:
        """Number of attention heads."""
        return int(self.decoder.layers[0].self_attn.num_heads)

    def nbytes(self) -> int:
        """Return the size of the copies in bytes."""
        return sum(copy.nbytes for copy in self._copies)

    def refresh(self) -> None:
        """Copy the model's weights again."""
        if self._copies:
            torch._foreach_copy_(self._copies, self._sources)

    def query_key_value(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Return queries, keys and values of a layer, R x 3 * d_model, for R x d_model hidden states."""
        fused = self._fused[index]
        if fused is not None:
            return linear(hidden, *fused)
        attention = self.decoder.layers[index].self_attn
        return torch.cat([attention.q_proj(hidden), attention.k_proj(hidden), attention.v_proj(hidden)], dim=-1)

    def _fuse(self, attention: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return one matrix and bias for three layers; None if they are not plain ones, as those of an adapter."""
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        if not all(_is_plain_linear(part) for part in parts):
            return None
        weight = torch.cat([part.weight.detach() for part in parts])
        bias = torch.cat([part.bias.detach() for part in parts])
        for copies, name in ((weight, "weight"), (bias, "bias")):
            self._sources += [getattr(part, name).detach() for part in parts]
            self._copies += copies.chunk(3)
        return weight, bias


class StaticSource:
    """The output of the encoder for B prompts, as keys and values of the cross-attention.

    A prompt takes 12 MB at base size in bf16 with 640 positions, for any number of beams.

    Attributes:
        cross_cache: layers x B x 2 x heads x S x d, keys and values.
        mask: B x 1 x 1 x S, 0 where the decoder attends, else -inf.
    """

    def __init__(self, weights: DecoderWeights, num_prompts: int, length: int) -> None:
        """
        Args:
            weights: of the decoder.
            num_prompts: B.
            length: S.
        """
        parameter = weights.decoder.embed_positions.weight
        options: Any = {"dtype": parameter.dtype, "device": parameter.device}
        self.weights = weights
        heads, width = weights.num_heads, parameter.shape[1]
        shape = (len(weights.decoder.layers), num_prompts, 2, heads, length, width // heads)
        self.cross_cache = torch.zeros(shape, **options)
        self.mask = torch.zeros(num_prompts, 1, 1, length, **options)

    @property
    def num_prompts(self) -> int:
        """B, the number of prompts that the buffers hold."""
        return len(self.mask)

    @property
    def length(self) -> int:
        """S, the number of positions."""
        return self.mask.shape[-1]

    def nbytes(self) -> int:
        """Return the size of the buffers in bytes."""
        return self.cross_cache.nbytes + self.mask.nbytes

    def fill(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> None:
        """Set the first n prompts.

        Args:
            hidden_states: n x s x d_model, the output of the encoder; n at most B, s at most S.
            attention_mask: n x s, 1 where the decoder may attend.
        """
        n, length = attention_mask.shape
        if n > self.num_prompts or length > self.length:
            raise ArgumentError(f"buffers for {self.num_prompts} x {self.length} positions cannot hold {n} x {length}")
        self.mask[:n] = -torch.inf
        # by `where`: masked_fill_ with a mask of rows would need another buffer
        self.mask[:n, 0, 0, :length] = torch.where(attention_mask.bool(), 0.0, -torch.inf).to(self.mask.dtype)
        self.mask[n:] = 0
        self.cross_cache[:, :n, :, :, length:] = (
            0  # nan, as of an earlier prompt that overflowed, passes through a mask
        )
        for layer, cache in zip(self.weights.decoder.layers, self.cross_cache, strict=True):
            attention = layer.encoder_attn
            for part, project in enumerate((attention.k_proj, attention.v_proj)):
                states = project(hidden_states).unflatten(-1, (self.weights.num_heads, -1))
                cache[:n, part, :, :length] = states.transpose(1, 2)

    def load(self, other: StaticSource, prompts: torch.Tensor) -> None:
        """Take over prompts of other buffers of the same length, given their n indices there."""
        n = len(prompts)
        self.cross_cache[:, :n] = other.cross_cache.index_select(1, prompts)
        self.mask[:n] = other.mask.index_select(0, prompts)
        self.mask[n:] = 0


class StaticDecoder:
    """The decoder for one more token per row, with a cache of fixed length.

    It computes what `IncrementalDecoder` computes. Positions that are not filled yet are masked.

    Attributes:
        cache: layers x R x 2 x heads x L x d, keys and values of the tokens so far.
    """

    def __init__(self, source: StaticSource, num_beams: int, length: int) -> None:
        """
        Args:
            source: the keys and values that the prompts' rows attend to. The beams of a prompt share them.
            num_beams: b.
            length: L.
        """
        self.source, self.num_beams, self.length = source, num_beams, length
        layers, prompts, _, heads, _, size = source.cross_cache.shape
        self.cache = source.cross_cache.new_zeros(layers, prompts * num_beams, 2, heads, length, size)
        self._indices = torch.arange(length, device=self.cache.device)

    def __call__(self, token_ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return the hidden states (R x d_model) after one more token per row.

        Args:
            token_ids: R ids.
            position: 1 int64, the number of tokens before, less than L.
        """
        weights = self.source.weights
        decoder = weights.decoder
        positions = decoder.embed_positions
        hidden = decoder.embed_tokens(token_ids) + positions.weight.index_select(0, position + positions.offset)
        hidden = decoder.layernorm_embedding(hidden)
        mask = torch.where(self._indices <= position, 0.0, -torch.inf).to(hidden.dtype)[None, None, None]
        for index, layer in enumerate(decoder.layers):
            attended = self._attend_to_tokens(index, layer.self_attn, hidden, position, mask)
            hidden = layer.self_attn_layer_norm(hidden + attended)
            attended = self._attend_to_source(index, layer.encoder_attn, hidden)
            hidden = layer.encoder_attn_layer_norm(hidden + attended)
            hidden = layer.final_layer_norm(hidden + layer.fc2(layer.activation_fn(layer.fc1(hidden))))
        return hidden

    def logits(self, token_ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next token, R x V float32. See `__call__` for the arguments."""
        logits: torch.Tensor = self.source.weights.lm_head(self(token_ids, position))
        return logits.float()

    def reorder(self, rows: torch.Tensor) -> None:
        """Let each row continue another one, given R indices: the beams that continue."""
        self.cache.copy_(self.cache.index_select(1, rows))

    def _attend_to_tokens(
        self, index: int, attention: Any, hidden: torch.Tensor, position: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        states = self.source.weights.query_key_value(index, hidden)
        states = states.unflatten(-1, (3, attention.num_heads, -1))[..., None, :]  # R x 3 x heads x 1 x d
        cache = self.cache[index]
        cache.index_copy_(3, position, states[:, 1:])
        output = scaled_dot_product_attention(
            states[:, 0], cache[:, 0], cache[:, 1], attn_mask=mask, scale=attention.scaling
        )
        attended: torch.Tensor = attention.out_proj(output.flatten(1))  # one query: R x heads x 1 x d
        return attended

    def _attend_to_source(self, index: int, attention: Any, hidden: torch.Tensor) -> torch.Tensor:
        query = attention.q_proj(hidden).unflatten(0, (-1, self.num_beams))
        query = query.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # B x heads x b x d
        cache = self.source.cross_cache[index]
        output = scaled_dot_product_attention(
            query, cache[:, 0], cache[:, 1], attn_mask=self.source.mask, scale=attention.scaling
        )
        attended: torch.Tensor = attention.out_proj(output.transpose(1, 2).reshape(hidden.shape))
        return attended


def model_fingerprint(*modules: nn.Module) -> Hashable:
    """Return what a captured graph depends on besides its buffers: the layers, and where their weights are in memory.

    Weights may change in place. A graph reads those that are there when it is replayed.
    """
    parts: list[Any] = []
    for module in modules:
        for layer in module.modules():
            parts.append(id(layer))
            if type(layer).__module__.startswith("peft."):
                parts.append(repr([getattr(layer, name, None) for name in _ADAPTER_STATE]))
        parts += [(parameter.data_ptr(), parameter.dtype) for parameter in module.parameters()]
    return tuple(parts)


_ADAPTER_STATE = ("active_adapters", "active_adapter", "disable_adapters", "merged_adapters", "scaling")
"""Attributes of PEFT's layers on which their operations depend."""


def _is_plain_linear(layer: nn.Module) -> bool:
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return False
    return all(
        type(tensor) in (nn.Parameter, torch.Tensor) for tensor in (layer.weight, layer.bias)
    )  # a bias may be None
