"""Scenes as a dataset on disk: pictures, COCO annotations, and the JSON lines that fine-tuning reads."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..tasks import TASKS
from .layout import CATEGORIES
from .rendering import save_picture
from .scene import Scene, draw_scene
from .types import SceneObject


def write_dataset(
    folder: str | Path,
    seeds: Sequence[int],
    size: int | tuple[int, int] = 512,
    tasks: Sequence[str] | None = None,
    max_objects: int = 6,
    categories: Sequence[str] = CATEGORIES,
) -> Path:
    """Draw scenes into a folder, with everything true about them.

    Writes `images/scene_<seed>.png`; `annotations.json` in COCO's form (boxes, segmentation of what is visible,
    and beyond COCO each thing's `color` and `text`); `train.jsonl` with a row `{"query", "response", "images"}`
    for each scene and each task that has an answer there, paths relative to the folder.

    Args:
        folder: made if it isn't there.
        seeds: one scene each; take them from `TRAIN_SEEDS` or `HELD_OUT_SEEDS`.
        size: pixels, a number or (width, height).
        tasks: task tokens to write rows for; all by default.
        max_objects: at most this many things in a scene.
        categories: which kinds of things, see `draw_scene`.

    Returns:
        The folder.
    """
    from tqdm.auto import tqdm

    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    coco = {"images": [], "annotations": [], "categories": coco_categories(categories)}
    with (folder / "train.jsonl").open("w", encoding="utf-8") as lines:
        for image_id, seed in enumerate(tqdm(seeds, desc="drawing scenes", unit="scene"), start=1):
            scene = draw_scene(seed, size, max_objects, categories)
            name = f"images/scene_{seed:08d}.png"
            save_picture(scene, folder / name)
            width, height = scene.size
            coco["images"].append({"id": image_id, "file_name": name, "width": width, "height": height})
            for thing in scene.objects:
                record = {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": image_id,
                    **coco_annotation(thing, categories),
                }
                coco["annotations"].append(record)
            for row in rows(scene, name, tasks or tuple(TASKS)):
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    (folder / "annotations.json").write_text(json.dumps(coco), encoding="utf-8")
    return folder


def rows(scene: Scene, image: str, tasks: Sequence[str]) -> Iterator[dict]:
    """A fine-tuning row for each task that has an answer here; phrasings and inputs vary with the seed.

    Where nothing is written there is nothing to read: an empty answer teaches nothing, and fine-tuning takes it for a fault.
    """
    rng = random.Random(scene.seed)
    for task in tasks:
        asked, variant = scene.queries(task, rng), int(rng.random() * 6)
        response = scene.answer(task, asked[0], variant).raw if asked else ""
        if response:
            yield {"query": task + (asked[0] or ""), "response": response, "images": [image]}


def coco_categories(categories: Sequence[str] = CATEGORIES) -> list[dict]:
    return [{"id": i, "name": name, "supercategory": "cartoon"} for i, name in enumerate(categories, start=1)]


def coco_annotation(thing: SceneObject, categories: Sequence[str] = CATEGORIES) -> dict:
    """A thing as COCO has it, but for the ids: box as (x, y, width, height), polygons as flat lists, pixels."""
    x0, y0, x1, y1 = thing.box
    record = {
        "category_id": categories.index(thing.label) + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(thing.attributes["area"]),
        "segmentation": [[round(float(v), 2) for v in polygon.ravel()] for polygon in thing.polygons],
        "iscrowd": 0,
        "color": thing.color,
        "text": thing.text,
    }
    if thing.quad is not None:
        record["quad"] = [round(float(v), 2) for v in thing.quad.ravel()]
    return record
