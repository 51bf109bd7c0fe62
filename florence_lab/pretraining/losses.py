"""TODO"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch.nn import functional as F

from ..tasks import TASKS


def _mean_of(losses: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    return (losses * which).sum() / which.sum().clamp(min=1)


def answer_losses(
    hidden: torch.Tensor, targets: torch.Tensor, head: torch.nn.Module, first_location: int, sigma: float
) -> torch.Tensor:
    """The loss of every token of the answers, N of them.

    A location token's neighbours are nearly as right as itself: its target is a Gaussian over them. What is
    unavoidable then, the entropy of the target, is taken off, so that 0 is perfect.

    Args:
        hidden: N x width, the decoder's output.
        targets: N token ids.
        head: from the decoder's output to logits.
        first_location: the id of `<loc_0>`.
        sigma: width of the Gaussian in bins.
    """
    log_p = head(hidden).float().log_softmax(-1)
    losses = F.nll_loss(log_p, targets, reduction="none")

    is_place = (targets >= first_location) & (targets < first_location + 1000)
    places = targets[is_place, None] - first_location
    near = places + torch.arange(-round(3 * sigma), round(3 * sigma) + 1, device=places.device)
    inside = (near >= 0) & (near < 1000)
    share = torch.exp(-0.5 * ((near - places) / sigma) ** 2) * inside
    share = share / share.sum(-1, keepdim=True)
    expected = -(share * log_p[is_place].gather(1, first_location + near.clamp(0, 999))).sum(-1)
    entropy = torch.special.entr(share).sum(-1)
    return losses.masked_scatter(is_place, expected - entropy)


def token_weights(lengths: torch.Tensor, tasks: list[str]) -> torch.Tensor:
    """What the loss of every token of the answers counts for.

    A long answer counts for more than a short one, but not by its whole length: there are thirty corners to an outline and
    one word to a category. Of an outline the first corner, behind `<s>`, says which thing is meant; it counts as a whole
    answer would, or the model outlines well what nobody asked for.

    Args:
        lengths: N int64, the tokens of each answer.
        tasks: N task tokens.

    Returns:
        float32, one for each token of all answers.
    """
    weights = lengths.float().rsqrt().repeat_interleave(lengths)
    outlines = torch.tensor([TASKS[task].result == "polygons" for task in tasks], device=lengths.device)
    first = (lengths.cumsum(0) - lengths)[outlines & (lengths > 2)]
    weights[first + 1] = weights[first + 2] = 1.0
    return weights


def _mean_per_task(losses: torch.Tensor, lengths: torch.Tensor, tasks: list[str]) -> dict[str, float]:
    """The mean loss of the tokens of every task, from the answers' tokens and how many each answer has."""
    of_task = defaultdict(list)
    for answer, task in zip(losses.split(lengths.tolist()), tasks, strict=True):
        of_task[task].append(answer)
    return {task: round(torch.cat(answers).mean().item(), 4) for task, answers in sorted(of_task.items())}
