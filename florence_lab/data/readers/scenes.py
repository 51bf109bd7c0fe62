"""TODO"""

from __future__ import annotations

from collections.abc import Iterator

from tqdm.auto import tqdm

from ...exceptions import DatasetError
from ...scenes import TRAIN_SEEDS, draw_scene
from ...scenes.export import scene_rows
from ...tasks import TASKS
from ..examples import ScenePicture
from ..rows import Record

SCENE_SIZE = 384


def _read_scenes(count: str, options: dict[str, str]) -> Iterator[Record]:
    if not count.isdecimal() or int(count) == 0:
        raise DatasetError(f"scenes:{count} is no dataset: give how many, as in scenes:500")
    # from the far end: florence-2-nano was trained on those in front
    for seed in tqdm(TRAIN_SEEDS[-int(count) :], desc=f"drawing scenes:{count}", unit="scene"):
        scene, picture = draw_scene(seed, SCENE_SIZE), ScenePicture(seed, SCENE_SIZE)
        for row in scene_rows(scene, "", tuple(TASKS)):
            yield Record(picture, row["query"], row["response"])
