"""Losses of the answers: cross-entropy with soft targets for locations, and the weight of each token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch.nn import functional as F

from ..tasks import TASKS
from ..template.locations import NUM_BINS


def masked_mean(losses: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the losses where the mask is set; 0 if it is set nowhere."""
    return (losses * mask).sum() / mask.sum().clamp(min=1)


def token_losses(
    hidden: torch.Tensor,
    target_ids: torch.Tensor,
    lm_head: Callable[[torch.Tensor], torch.Tensor],
    first_location_id: int,
    sigma: float,
) -> torch.Tensor:
    """Return the loss of each token of the answers.

    The target of a location token is a Gaussian over its neighbors, since adjacent bins are nearly correct. The entropy
    of the target is subtracted, so that the smallest possible loss is 0.

    Args:
        hidden: N x d_model, the decoder's output.
        target_ids: N token ids.
        lm_head: maps the decoder's output to logits.
        first_location_id: id of `<loc_0>`.
        sigma: standard deviation of the Gaussian in bins.

    Returns:
        N float32.
    """
    log_p = lm_head(hidden).float().log_softmax(-1)
    losses = F.nll_loss(log_p, target_ids, reduction="none")

    is_location = (target_ids >= first_location_id) & (target_ids < first_location_id + NUM_BINS)
    bins = target_ids[is_location, None] - first_location_id
    radius = round(3 * sigma)
    neighbors = bins + torch.arange(-radius, radius + 1, device=bins.device)
    is_bin = (neighbors >= 0) & (neighbors < NUM_BINS)
    target = torch.exp(-0.5 * ((neighbors - bins) / sigma) ** 2) * is_bin
    target = target / target.sum(-1, keepdim=True)
    neighbor_ids = first_location_id + neighbors.clamp(0, NUM_BINS - 1)
    cross_entropy = -(target * log_p[is_location].gather(1, neighbor_ids)).sum(-1)
    entropy = torch.special.entr(target).sum(-1)
    return losses.masked_scatter(is_location, cross_entropy - entropy)


def token_weights(lengths: torch.Tensor, tasks: list[str]) -> torch.Tensor:
    """Return the weight of each token of the answers.

    A token of an answer of n tokens weighs 1 / sqrt(n), so that an outline of sixty tokens does not outweigh a category of
    one sixty times. The two location tokens of the first vertex of an outline, which select the object, weigh 1.

    Args:
        lengths: N int64, the number of tokens of each answer.
        tasks: N task tokens.

    Returns:
        float32, one for each token of all answers.
    """
    weights = lengths.float().rsqrt().repeat_interleave(lengths)
    is_outline = torch.tensor([TASKS[task].result == "polygons" for task in tasks], device=lengths.device)
    starts = (lengths.cumsum(0) - lengths)[is_outline & (lengths > 2)]
    weights[starts + 1] = weights[starts + 2] = 1.0
    return weights


def mean_loss_per_task(losses: torch.Tensor, lengths: torch.Tensor, tasks: list[str]) -> dict[str, float]:
    """Return the mean loss of the tokens of each task.

    Args:
        losses: the losses of the tokens of all answers.
        lengths: N int64, the number of tokens of each answer.
        tasks: N task tokens.
    """
    losses_of: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
    for answer_losses, task in zip(losses.split(lengths.tolist()), tasks, strict=True):
        losses_of[task].append(answer_losses)
    return {task: round(torch.cat(of_task).mean().item(), 4) for task, of_task in sorted(losses_of.items())}
