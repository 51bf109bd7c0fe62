"""Batches of rows whose targets have similar lengths, so that less padding is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

_BATCHES_PER_POOL = 16
"""More of them leave less padding, and less chance in what meets in a batch."""


class LengthGroupedSampler(Sampler[int]):
    """Draws rows in a random order in which those of a batch have similar lengths.

    The shuffled rows are divided into pools of 16 batches. Each pool is sorted by length and divided into batches, and the batches
    are shuffled. An epoch depends on the seed and its number only, so that a resumed run sees the same batches.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """
        Args:
            lengths: of the rows.
            batch_size: rows of an optimizer step, in all processes.
            seed: of the order.
        """
        self.lengths, self.batch_size, self.seed = torch.tensor(lengths), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch, from 0. The data loader of `accelerate` calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        batches: list[torch.Tensor] = []
        for pool in order.split(_BATCHES_PER_POOL * self.batch_size):
            batches += pool[self.lengths[pool].argsort(stable=True)].split(self.batch_size)
        # a batch that is not full would move the limits of those after it
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        shuffled = [full[i] for i in torch.randperm(len(full), generator=generator).tolist()]
        for batch in [*shuffled, *rest]:
            yield from batch.tolist()
