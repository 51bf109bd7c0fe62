"""TODO"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..scenes import CATEGORIES
from ..scenes.phrases import COLUMNS
from .dense_targets import COLORS, LETTERS, MOST, split_dense_targets
from .losses import _mean_of


class AuxiliaryHeads(torch.nn.Module):
    """What a part of the picture shows, read off by linear layers that are thrown away in the end.

    From answers alone the model learns for a thousand steps nothing but what is frequent: the tower isn't told what to
    see before the decoder knows where to look, and the other way round. A task of their own for the encoder's image
    tokens cuts that knot. Letters and categories are told twice, first by the tower's last but one map, which is twice as
    fine: there each letter has a place of its own, and is learnt much faster. Which part of a token's square
    its thing fills is what outlines are made of.

    The rest is what takes more than one place to tell, and what answers go wrong by: how many of a kind there are and where
    the first of them is, which a caption says in one word, before it has named any of them; and whether the
    question means what is here. To count things, large and small, each must count once: halfway through the encoder
    tokens are asked whether they are the middle of their thing, so that the layers behind have one token of each to look at.
    """

    # category, colour, box, letters, outline; how many of a category, of its colour too, and in its column too; first of
    # each of these; column; meant
    PARTS = (1 + len(CATEGORIES), 1 + len(COLORS), 4, 4 * (1 + len(LETTERS)), 16, *[1 + MOST] * 3, 3, len(COLUMNS), 1)
    FINE_PARTS = (1 + len(LETTERS), 1 + len(CATEGORIES))
    HALFWAY_PARTS = (1 + len(CATEGORIES), 1)  # category, middle

    def __init__(self, width: int, fine_width: int):
        super().__init__()
        self.tokens = torch.nn.Linear(width, sum(self.PARTS))
        self.halfway = torch.nn.Linear(width, sum(self.HALFWAY_PARTS))
        self.fine = torch.nn.Linear(fine_width, sum(self.FINE_PARTS))
        for layer in (self.tokens, self.halfway, self.fine):
            # a model that knows something already would pay for what a helper that knows nothing makes of it
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)

    def loss(self, tokens: torch.Tensor, cells: torch.Tensor, referenced_objects: torch.Tensor) -> torch.Tensor:
        """Cross-entropies, some with a weight, and five times the mean error of the box's sides.

        Args:
            tokens: N x n x width, the encoder's output for the image tokens.
            cells: N x n x 39, see `build_dense_targets`.
            meant: N x n, see `Questions`.
        """
        said = self.tokens(tokens).float().flatten(0, 1).split(self.PARTS, dim=-1)
        label, color, box, letters, own, *counts, first, column, asked = said
        true = split_dense_targets(cells.flatten(0, 1))
        kind, filled, alike = true["kind"][:, 0].long(), true["filled"], true["alike"].long()
        thing = kind > 0
        edge = thing & (filled.mean(-1) < 1)  # within a thing there is nothing to learn of its outline
        outline = F.binary_cross_entropy_with_logits(own, filled, reduction="none").mean(-1)
        # where there is no thing, its colour would be the category over again
        of_things = (
            F.cross_entropy(color, true["color"][:, 0].long(), reduction="none")
            + 5 * (box - true["box"]).abs().mean(-1)
            + 0.5 * sum(F.cross_entropy(count, alike[:, i], reduction="none") for i, count in enumerate(counts))
            + 0.5 * F.binary_cross_entropy_with_logits(first, true["first"], reduction="none").sum(-1)
            + 0.5 * F.cross_entropy(column, true["column"][:, 0].long(), reduction="none")
        )
        referenced_objects = referenced_objects.flatten()
        right = F.binary_cross_entropy_with_logits(asked[:, 0], referenced_objects.clamp(min=0), reduction="none")
        return (
            F.cross_entropy(label, kind)
            + _mean_of(of_things, thing)
            + _mean_of(outline, edge)
            + _mean_of(right, referenced_objects >= 0)
            + _letters_loss(letters.unflatten(-1, (4, -1)), true["letters"])
        )

    def halfway_loss(self, tokens: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Cross-entropies of categories and of middles, these where there is a thing.

        Args:
            tokens: N x n x width, what the encoder makes of the image tokens halfway through.
            cells: N x n x 39, see `build_dense_targets`.
        """
        label, middle = self.halfway(tokens).float().flatten(0, 1).split(self.HALFWAY_PARTS, dim=-1)
        true = split_dense_targets(cells.flatten(0, 1))
        kind, middles = true["kind"][:, 0].long(), true["middle"][:, 0]
        losses = F.binary_cross_entropy_with_logits(middle[:, 0], middles, reduction="none")
        right = _mean_of(losses, middles > 0) + _mean_of(losses, (kind > 0) & (middles == 0))
        return F.cross_entropy(label, kind) + right

    def fine_loss(self, maps: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Cross-entropies of letters and categories.

        Args:
            maps: B x width x 2s x 2s, the tower's last but one map.
            cells: B x s*s x 39, see `build_dense_targets`.
        """
        fine = maps.unfold(2, 2, 2).unfold(3, 2, 2)  # B x width x s x s x 2 x 2: the quarters of the tokens
        read = self.fine(fine.permute(0, 2, 3, 4, 5, 1).reshape(-1, maps.shape[1])).float()
        letters, kinds = read.split(self.FINE_PARTS, dim=-1)
        true = split_dense_targets(cells)
        return _letters_loss(letters, true["letters"]) + F.cross_entropy(kinds, true["kinds"].flatten().long())


def _letters_loss(logits: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, its mean where there is a letter and its mean where there is none: there are few letters."""
    letters = letters.flatten().long()
    losses = F.cross_entropy(logits.reshape(len(letters), -1), letters, reduction="none")
    return sum(_mean_of(losses, there) for there in (letters > 0, letters == 0))
