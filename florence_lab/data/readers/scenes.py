"""Cartoon scenes as a dataset, drawn on demand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

from tqdm.auto import tqdm

from ...exceptions import DatasetError, shorten
from ...scenes import HELD_OUT_SEEDS, TRAIN_SEEDS, draw_scene
from ...scenes.export import scene_rows
from ...tasks import TASKS
from ..examples import SceneReference
from ..rows import TextRow
from ..spec import DatasetSpec
from .base import choose

DEFAULT_SCENE_COUNT = 500
DEFAULT_SCENE_SIZE = 384

MAX_SCENE_COUNT = 100_000
"""Largest number of scenes. All of them are drawn once before the first row, some milliseconds each."""

SPLITS = ("train", "held_out")


class ScenesReader:
    """All tasks about the scenes of `scenes:COUNT`.

    The split `train` takes the last training seeds, because florence-2-nano was trained on the first ones. The split
    `held_out` takes the first held-out seeds, which no training uses.
    """

    options: ClassVar[Mapping[str, str]] = {"split": "train or held_out"}

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec

    def check(self) -> None:
        """Verify the count and the split."""
        _ = self.seeds

    @property
    def seeds(self) -> range:
        """The seeds of the scenes.

        Raises:
            DatasetError: for an unknown split, or a count out of range.
        """
        split = choose(self.spec, "split", SPLITS)
        available = TRAIN_SEEDS if split == "train" else HELD_OUT_SEEDS
        count = self.spec.location or str(DEFAULT_SCENE_COUNT)
        largest = min(len(available), MAX_SCENE_COUNT)
        if not count.isdecimal() or len(count) > 9 or not 0 < int(count) <= largest:
            raise DatasetError(
                f"{self.spec.name[:80]}: the number of scenes must be 1 to {largest}, as in scenes:500, not {shorten(count)}"
            )
        return available[-int(count) :] if split == "train" else available[: int(count)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> TextRow:
        return self._rows[index]

    @cached_property
    def _rows(self) -> list[TextRow]:
        rows = []
        for seed in tqdm(self.seeds, desc=f"drawing {self.spec.name}", unit="scene"):
            scene, image = draw_scene(seed, DEFAULT_SCENE_SIZE), SceneReference(seed, DEFAULT_SCENE_SIZE)
            for row in scene_rows(scene, "", tuple(TASKS)):
                rows.append(TextRow(image, row["query"], row["response"], f"scene {seed}"))
        return rows
