"""The folders of YOLO, as ultralytics reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from ...output_files import write_text
from ..records import LabelledObject
from .base import Entry, Writer


class YoloWriter(Writer):
    """`data.yaml`, `images/SPLIT/NAME.jpg` and `labels/SPLIT/NAME.txt`.

    A line is class, center, width and height as fractions of the image; with masks, class and the vertices of one outline. The
    format has no place for scores: `labels.jsonl` has them.
    """

    @classmethod
    def top_level(cls, splits: Sequence[str]) -> tuple[str, ...]:
        """Return the names in the folder."""
        return ("data.yaml", "images", "labels")

    def start(self) -> None:
        """Create the folders."""
        for split in self.splits:
            (self.folder / "images" / split).mkdir(parents=True)
            (self.folder / "labels" / split).mkdir(parents=True)

    def add(self, entry: Entry) -> str:
        """Write the label file; an image without objects has an empty one."""
        lines = [self._to_line(item, entry.image.size) for item in entry.image.objects]
        stem = PurePosixPath(entry.name).stem
        (self.folder / "labels" / entry.split / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")
        return self.place_image(entry, f"images/{entry.split}/{entry.name}")

    def close(self) -> None:
        """Write `data.yaml`. Trainers need `val`, which is the training split if there is no other."""
        import yaml

        content = {split: f"images/{split}" for split in self.splits}
        content = {"train": content["train"], "val": content.get("val", content["train"]), **content}
        content |= {"nc": len(self.ontology), "names": dict(enumerate(self.ontology.names))}  # type: ignore[dict-item]
        write_text(self.folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def _to_line(self, item: LabelledObject, size: tuple[int, int]) -> str:
        x0, y0, x1, y1 = item.box
        if self.has_masks:  # a file with outlines and boxes would be read as boxes only
            polygons = item.polygons or ((x0, y0, x1, y0, x1, y1, x0, y1),)
            numbers = (join_polygons([np.array(p).reshape(-1, 2) for p in polygons]) / size).ravel().tolist()
        else:
            width, height = size
            numbers = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
        return f"{item.class_id} {' '.join(f'{min(max(number, 0), 1):.8f}' for number in numbers)}\n"


def join_polygons(polygons: list[np.ndarray]) -> np.ndarray:
    """Return one outline of several polygons, joined by lines without width between their nearest vertices.

    YOLO has one outline for each object, also if another object covers its middle.

    Args:
        polygons: at least one, K x 2 each.
    """
    joined = polygons[0]
    for polygon in polygons[1:]:
        distances = np.linalg.norm(joined[:, None] - polygon[None], axis=-1)
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        loop = np.roll(polygon, -int(j), axis=0)
        joined = np.concatenate([joined[: i + 1], loop, loop[:1], joined[i:]])
    return joined
