"""A stand-in for the model of `florence_lab.label`, whose labels depend on the pixels of an image."""

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from florence_lab.labeling.labeler import Labels
from florence_lab.labeling.records import LabelledAnswer, LabelledObject

NAMES = ("sign", "dog", "boat", "rocket")


@dataclass
class StandIn:
    """Gives each image up to three objects of the first three classes. It counts the images that it is asked about.

    With a `gate` it stops after its first batch, until there is a file of this name.
    """

    masks: bool = False
    seconds: float = 0.0
    pid_file: str = ""
    gate: str = ""
    asked: int = 0
    calls: list = field(default_factory=list)

    def __post_init__(self):
        if self.pid_file:
            with Path(self.pid_file).open("a", encoding="utf-8") as file:
                file.write(f"{os.getpid()}\n")

    def describe(self):
        return {"model": "stand-in", "masks": self.masks}

    def label(self, images):
        while self.gate and self.calls and not Path(self.gate).exists():
            time.sleep(0.02)
        self.asked += len(images)
        self.calls.append(len(images))
        time.sleep(self.seconds * len(images))
        return [labels_of(image, self.masks) for image in images]


def labels_of(image, masks=False):
    """The labels of an image: its first pixel (r, g, b) gives r % 4 objects, with classes and places by g and b."""
    r, g, b = image.getpixel((0, 0))
    width, height = image.size
    objects = []
    for i in range(r % 4):
        x0, y0 = width * (0.01 + 0.1234567 * i), height * (0.02 + b / 1000)
        x1, y1 = x0 + width * 0.31415926, y0 + height * 0.2718281
        box = tuple(round(v, 3) for v in (x0, y0, x1, y1))
        polygon = tuple(round(v, 3) for v in (x0, y0, x1, y0, x1, y1, (x0 + x1) / 2, y1))
        label = (g + i) % 3
        polygons = (polygon,) if masks else ()
        objects.append(LabelledObject(label, NAMES[label], box, round(0.95 - 0.2 * i, 6), "regions", polygons))
    answers = {"<CAPTION>": LabelledAnswer(f"{len(objects)} objects", f"{len(objects)} objects")}
    return Labels(image.size, tuple(objects), answers)


def draw_images(folder, count, size=(40, 30), first=0):
    """Write images of one color each, in which the stand-in finds 0 to 3 objects."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        Image.fromarray(np.full((*size[::-1], 3), (i % 256, i // 3 % 256, i % 100), np.uint8)).save(
            folder / f"{i:05d}.png", compress_level=1
        )
    return folder


def main(images, out, seconds, batch_size):
    """Label a folder with the stand-in in this process, for tests that kill it."""
    from florence_lab.detection.ontology import Ontology
    from florence_lab.labeling.assembly import DatasetLayout
    from florence_lab.labeling.labelling import label_sources
    from florence_lab.labeling.sources import list_label_sources

    layout = DatasetLayout("coco", Ontology.from_classes(NAMES))
    model = StandIn(seconds=float(seconds))
    print(label_sources(lambda: model, list_label_sources(images), out, layout, int(batch_size)))


if __name__ == "__main__":
    main(*sys.argv[1:])
