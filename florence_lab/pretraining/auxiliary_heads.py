"""Auxiliary heads: dense supervision of the image tokens, discarded after training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from ..scenes import CATEGORIES
from ..scenes.phrases import COLUMNS
from .dense_targets import CHARACTERS, COLOR_NAMES, MAX_OBJECTS, split_dense_targets
from .losses import masked_mean

NUM_CATEGORIES = 1 + len(CATEGORIES)
NUM_COLORS = 1 + len(COLOR_NAMES)
NUM_LETTERS = 1 + len(CHARACTERS)

ENCODER_OUTPUTS = {
    "category": NUM_CATEGORIES,
    "color": NUM_COLORS,
    "box": 4,
    "letters": 4 * NUM_LETTERS,
    "coverage": 16,
    "category_count": 1 + MAX_OBJECTS,
    "appearance_count": 1 + MAX_OBJECTS,
    "column_count": 1 + MAX_OBJECTS,
    "is_leftmost": 3,
    "column": len(COLUMNS),
    "is_referenced": 1,
}
"""Outputs at the encoder's last layer: name -> width. The fields are those of the dense targets; the three counts are
`group_sizes`, and `is_referenced` is predicted for `PromptBatch.reference_targets`."""

INTERMEDIATE_OUTPUTS = {"category": NUM_CATEGORIES, "is_center": 1}
"""Outputs in the middle of the encoder: name -> width."""

VISION_OUTPUTS = {"letters": NUM_LETTERS, "quadrant_categories": NUM_CATEGORIES}
"""Outputs at the vision tower's second to last stage: name -> width."""


class AuxiliaryHeads(torch.nn.Module):
    """Linear heads that predict the dense targets of the image tokens.

    Without them the loss plateaus for about 1,000 steps, because the image encoder and the cross-attention each depend on the
    other; dense supervision of the image tokens removes the plateau. There are three heads:

    - at the encoder's last layer: what each token shows, how many objects of its kind there are, and whether the prompt refers
      to it. A caption states the counts before it mentions any object, and counting is where captions fail most.
    - in the middle of the encoder: which tokens are the center of an object, so that the layers above can count objects of any
      size by one token each.
    - at the vision tower's second to last stage: letters and categories. The map has twice the resolution of the image tokens,
      and letters are learned much faster there.

    Their weights start at zero, so that they do not disturb pretrained weights.
    """

    def __init__(self, d_model: int, vision_width: int) -> None:
        """Make the heads for encoder states of width `d_model` and a vision map with `vision_width` channels."""
        super().__init__()
        # these names are keys of the checkpoints `last.pt`
        self.tokens = torch.nn.Linear(d_model, sum(ENCODER_OUTPUTS.values()))
        self.halfway = torch.nn.Linear(d_model, sum(INTERMEDIATE_OUTPUTS.values()))
        self.fine = torch.nn.Linear(vision_width, sum(VISION_OUTPUTS.values()))
        for layer in (self.tokens, self.halfway, self.fine):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)

    def encoder_loss(
        self, image_states: torch.Tensor, dense_targets: torch.Tensor, reference_targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss at the encoder's last layer: a weighted sum of cross-entropies, and an L1 loss of the boxes.

        Args:
            image_states: N x n x d_model, the encoder's output for the image tokens of each prompt.
            dense_targets: N x n x 39, see `build_dense_targets`.
            reference_targets: N x n, see `PromptBatch`.
        """
        predicted = _split(self.tokens(image_states).float().flatten(0, 1), ENCODER_OUTPUTS)
        target = split_dense_targets(dense_targets.flatten(0, 1))
        category, coverage = target["category"][:, 0].long(), target["coverage"]
        is_object = category > 0
        is_edge = is_object & (coverage.mean(-1) < 1)  # inside an object there is nothing to learn about its outline
        outline = F.binary_cross_entropy_with_logits(predicted["coverage"], coverage, reduction="none").mean(-1)
        is_referenced = reference_targets.flatten()
        reference = F.binary_cross_entropy_with_logits(
            predicted["is_referenced"][:, 0], is_referenced.clamp(min=0), reduction="none"
        )
        return (
            F.cross_entropy(predicted["category"], category)
            + masked_mean(_object_losses(predicted, target), is_object)
            + masked_mean(outline, is_edge)
            + masked_mean(reference, is_referenced >= 0)
            + _letter_loss(predicted["letters"].unflatten(-1, (4, -1)), target["letters"])
        )

    def intermediate_loss(self, image_states: torch.Tensor, dense_targets: torch.Tensor) -> torch.Tensor:
        """Return the loss in the middle of the encoder: cross-entropies of the categories and of the centers of objects.

        Args:
            image_states: N x n x d_model, the states of the image tokens after half of the encoder's layers.
            dense_targets: N x n x 39, see `build_dense_targets`.
        """
        predicted = _split(self.halfway(image_states).float().flatten(0, 1), INTERMEDIATE_OUTPUTS)
        target = split_dense_targets(dense_targets.flatten(0, 1))
        category, is_center = target["category"][:, 0].long(), target["is_center"][:, 0]
        losses = F.binary_cross_entropy_with_logits(predicted["is_center"][:, 0], is_center, reduction="none")
        center = masked_mean(losses, is_center > 0) + masked_mean(losses, (category > 0) & (is_center == 0))
        return F.cross_entropy(predicted["category"], category) + center

    def vision_loss(self, vision_map: torch.Tensor, dense_targets: torch.Tensor) -> torch.Tensor:
        """Return the loss at the vision tower: cross-entropies of letters and categories.

        Args:
            vision_map: B x C x 2s x 2s, the output of the second to last stage.
            dense_targets: B x (s * s) x 39, see `build_dense_targets`.
        """
        quadrants = vision_map.unfold(2, 2, 2).unfold(3, 2, 2)  # B x C x s x s x 2 x 2
        flat = quadrants.permute(0, 2, 3, 4, 5, 1).reshape(-1, vision_map.shape[1])
        predicted = _split(self.fine(flat).float(), VISION_OUTPUTS)
        target = split_dense_targets(dense_targets)
        categories = target["quadrant_categories"].flatten().long()
        letters = _letter_loss(predicted["letters"], target["letters"])
        return letters + F.cross_entropy(predicted["quadrant_categories"], categories)


def _split(outputs: torch.Tensor, widths: Mapping[str, int]) -> dict[str, torch.Tensor]:
    return dict(zip(widths, outputs.split(list(widths.values()), dim=-1), strict=True))


def _object_losses(predicted: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the losses of the attributes of each token's object. They are undefined where there is no object."""
    group_sizes = target["group_sizes"].long()
    counts = [predicted[name] for name in ("category_count", "appearance_count", "column_count")]
    count_losses = [F.cross_entropy(c, group_sizes[:, i], reduction="none") for i, c in enumerate(counts)]
    leftmost = F.binary_cross_entropy_with_logits(predicted["is_leftmost"], target["is_leftmost"], reduction="none")
    return (
        F.cross_entropy(predicted["color"], target["color"][:, 0].long(), reduction="none")
        + 5 * (predicted["box"] - target["box"]).abs().mean(-1)
        + 0.5 * torch.stack(count_losses).sum(0)
        + 0.5 * leftmost.sum(-1)
        + 0.5 * F.cross_entropy(predicted["column"], target["column"][:, 0].long(), reduction="none")
    )


def _letter_loss(logits: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy where there is a letter plus the mean where there is none, since letters are rare."""
    letters = letters.flatten().long()
    losses = F.cross_entropy(logits.reshape(len(letters), -1), letters, reduction="none")
    return masked_mean(losses, letters > 0) + masked_mean(losses, letters == 0)
