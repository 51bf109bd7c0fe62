"""Cross-entropy of the output layer in chunks, so that the logits of all tokens never exist at once.

The logits of 8 targets of 256 tokens take 420 MB in float32 for a vocabulary of 51,290, their gradient as much again. Here a
chunk of them exists at a time: its gradients with respect to hidden states and weight are computed with its loss.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from transformers import Florence2ForConditionalGeneration
from transformers.models.florence2.modeling_florence2 import Florence2Seq2SeqLMOutput, shift_tokens_right

IGNORE_INDEX = -100
"""The label of padding, which cross-entropy ignores."""

_CHUNK_BYTES = 2**26
"""Of the float32 logits of a chunk: 327 tokens for a vocabulary of 51,290, enough to occupy a GPU."""


@torch.compiler.disable
def linear_cross_entropy(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    num_items: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = IGNORE_INDEX,
) -> torch.Tensor:
    """Return `cross_entropy(hidden_states @ weight.T, labels)`, with the logits of a few hundred tokens in memory at a time.

    Under autocast the matrix products are computed in its number format, as those of `nn.Linear`; the loss in float32.

    Args:
        hidden_states: ... x d.
        weight: V x d, of a linear layer without bias.
        labels: ... int64, in 0 ... V - 1 or `ignore_index`.
        num_items: divides the sum of the losses; by default the number of labels that are not ignored.
        label_smoothing: share of the target probability that is spread over the whole vocabulary.
        ignore_index: label that does not count.
    """
    hidden_states, labels = hidden_states.flatten(0, -2), labels.flatten()
    is_counted: torch.Tensor | None = labels != ignore_index
    if num_items is None:
        num_items = (labels != ignore_index).sum()
    if hidden_states.device.type == "cpu":  # on a GPU, the number of rows is known only after it has finished
        hidden_states, labels, is_counted = hidden_states[is_counted], labels[is_counted], None
    kind = hidden_states.device.type
    if torch.is_autocast_enabled(kind):
        hidden_states = hidden_states.to(torch.get_autocast_dtype(kind))
    with torch.autocast(kind, enabled=False):
        total: torch.Tensor = _SumOfLosses.apply(hidden_states, weight, labels, is_counted, label_smoothing)
    return total / num_items


class _SumOfLosses(torch.autograd.Function):
    """Sum of the losses of n tokens. The gradients are computed in the forward pass, and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        is_counted: torch.Tensor | None,
        label_smoothing: float,
    ) -> torch.Tensor:
        needs_hidden, needs_weight, *_ = ctx.needs_input_grad
        cast_weight = weight.to(hidden_states.dtype)
        hidden_gradient = torch.empty_like(hidden_states) if needs_hidden else None
        weight_gradient = torch.zeros_like(weight) if needs_weight else None
        total = torch.zeros((), device=hidden_states.device)
        size = max(1, _CHUNK_BYTES // (4 * len(weight)))
        for start in range(0, len(hidden_states), size):
            rows = slice(start, start + size)
            mask = None if is_counted is None else is_counted[rows]
            logits = (hidden_states[rows] @ cast_weight.T).float()
            loss, gradient = _differentiate(logits, labels[rows], mask, label_smoothing)
            total += loss
            gradient = gradient.to(hidden_states.dtype)
            if hidden_gradient is not None:
                torch.mm(gradient, cast_weight, out=hidden_gradient[rows])
            if weight_gradient is not None and weight_gradient.dtype == gradient.dtype:
                weight_gradient.addmm_(gradient.T, hidden_states[rows])
            elif weight_gradient is not None:
                weight_gradient += gradient.T @ hidden_states[rows]
        ctx.gradients = hidden_gradient, weight_gradient
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: torch.Tensor) -> Any:
        hidden_gradient, weight_gradient = (
            # in float32: the scale of a loss in fp16 may exceed fp16
            None if gradient is None else gradient.float().mul_(scale).to(gradient.dtype)
            for gradient in ctx.gradients
        )
        del ctx.gradients  # a second backward pass would scale them again
        return hidden_gradient, weight_gradient, None, None, None


def _differentiate(
    logits: torch.Tensor, labels: torch.Tensor, is_counted: torch.Tensor | None, label_smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the losses of n tokens, and its gradient with respect to the logits (n x V float32), which it overwrites."""
    targets = labels[:, None] if is_counted is None else labels[:, None].clamp(min=0)
    log_sums = logits.logsumexp(dim=-1)
    losses = log_sums - (1 - label_smoothing) * logits.gather(1, targets)[:, 0]
    if label_smoothing:
        losses = losses - label_smoothing * logits.mean(dim=-1)
    gradient = logits.sub_(log_sums[:, None]).exp_()  # the probabilities
    if label_smoothing:
        gradient -= label_smoothing / logits.shape[1]
    gradient.scatter_add_(1, targets, torch.full_like(targets, label_smoothing - 1, dtype=gradient.dtype))
    if is_counted is not None:
        losses, gradient = losses * is_counted, gradient.mul_(is_counted[:, None])
    return losses.sum(), gradient


class _ChunkedLossModel(Florence2ForConditionalGeneration):
    """A model that computes its loss in chunks.

    A class, and not a function that takes the place of `forward`: that would stay with the first model when a model is copied, as
    for each GPU of a process.
    """

    def forward(
        self, *args: Any, labels: torch.Tensor | None = None, num_items_in_batch: Any = None, **inputs: Any
    ) -> Any:
        if labels is None:
            return super().forward(*args, **inputs)
        text_config: Any = self.config.text_config
        inputs.setdefault(
            "decoder_input_ids",
            shift_tokens_right(labels, text_config.pad_token_id, text_config.decoder_start_token_id),
        )
        outputs = self.model(*args, **{"use_cache": False, **inputs})
        loss = linear_cross_entropy(outputs.last_hidden_state, self.lm_head.weight, labels, num_items_in_batch)
        return Florence2Seq2SeqLMOutput(loss=loss)


# checkpoints and adapters name the class of the model, and the trainer reads the arguments that it takes
for _name in ("__name__", "__qualname__", "__module__", "__doc__"):
    setattr(_ChunkedLossModel, _name, getattr(Florence2ForConditionalGeneration, _name))
setattr(_ChunkedLossModel.forward, "__signature__", inspect.signature(Florence2ForConditionalGeneration.forward))  # noqa: B010


def use_chunked_loss(model: Florence2ForConditionalGeneration) -> None:
    """Let a model compute its loss in chunks, in place: given `labels`, its output has the loss only, and no logits.

    Without `labels`, as in generation, it stays as it is.
    """
    model.__class__ = _ChunkedLossModel
