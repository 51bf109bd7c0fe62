"""`losses`: soft targets of locations, and the weights of tokens."""

import pytest
import torch

from florence_lab.pretraining.losses import masked_mean, mean_loss_per_task, token_losses, token_weights

FIRST_LOCATION, VOCABULARY, SIGMA = 10, 1020, 3.0
TARGETS = torch.tensor([0, FIRST_LOCATION, FIRST_LOCATION + 500, FIRST_LOCATION + 999, 2])


def ideal_logits():
    """Logits of the target distributions: one-hot for text, a Gaussian for locations."""
    bins, logits = torch.arange(1000), torch.full((len(TARGETS), VOCABULARY), -1e4)
    for row, target in enumerate(TARGETS.tolist()):
        logits[row, target] = 0
        if FIRST_LOCATION <= target < FIRST_LOCATION + 1000:
            offset = bins - (target - FIRST_LOCATION)
            gaussian = torch.where(offset.abs() <= 9, -0.5 * (offset / SIGMA) ** 2, -1e4)
            logits[row, FIRST_LOCATION : FIRST_LOCATION + 1000] = gaussian
    return logits


def losses_of(targets):
    return token_losses(torch.zeros(len(targets), 4), targets, lambda hidden: ideal_logits(), FIRST_LOCATION, SIGMA)


def test_the_target_distribution_has_no_loss():
    assert losses_of(TARGETS).abs().max() < 1e-4


def test_a_distant_location_has_a_loss():
    wrong = TARGETS.clone()
    wrong[1] += 30
    assert (losses_of(wrong) > 1).tolist() == [False, True, False, False, False]


def test_a_neighboring_location_has_a_smaller_loss_than_a_distant_one():
    near, far = TARGETS.clone(), TARGETS.clone()
    near[2] += 2
    far[2] += 6
    assert 0 < losses_of(near)[2] < losses_of(far)[2]


def test_the_first_vertex_of_an_outline_weighs_as_much_as_an_answer():
    tasks = ["<CAPTION>", "<REGION_TO_SEGMENTATION>", "<REFERRING_EXPRESSION_SEGMENTATION>"]
    weights = token_weights(torch.tensor([4, 9, 16]), tasks)
    assert weights.tolist() == pytest.approx([0.5] * 4 + [1 / 3, 1, 1] + [1 / 3] * 6 + [0.25, 1, 1] + [0.25] * 13)


def test_losses_are_averaged_over_the_tokens_of_each_task():
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 8.0])
    means = mean_loss_per_task(losses, torch.tensor([2, 2, 1]), ["<OD>", "<CAPTION>", "<OD>"])
    assert means == {"<CAPTION>": 3.5, "<OD>": pytest.approx(11 / 3, abs=1e-4)}


def test_the_mean_over_an_empty_mask_is_zero():
    losses = torch.tensor([1.0, 3.0])
    assert masked_mean(losses, torch.tensor([True, False])) == 1
    assert masked_mean(losses, torch.tensor([False, False])) == 0
