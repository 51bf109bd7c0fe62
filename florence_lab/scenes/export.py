"""Write scenes as a dataset: images, COCO annotations, and JSON lines for fine-tuning."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..argument_validation import validate_arguments
from ..output_files import replace_file, write_text
from ..tasks import TASKS, get_task
from .layout import CATEGORIES
from .rendering import save_image
from .scene import Scene, check_size, draw_scene
from .types import SceneObject


@validate_arguments
def write_dataset(
    folder: str | Path,
    seeds: Sequence[int],
    size: int | tuple[int, int] = 512,
    tasks: Sequence[str] | None = None,
    max_objects: int = 6,
    categories: Sequence[str] = CATEGORIES,
) -> Path:
    """Draw scenes into a folder, with their annotations.

    Writes `images/scene_<seed>.png`; `annotations.json` in COCO's format (boxes and polygons of the visible parts, and beyond
    COCO the `color` and `text` of each object, and the `quad` of its text); and `train.jsonl`, see `scene_rows`, with paths
    relative to the folder.

    Args:
        folder: created if it does not exist.
        seeds: one scene each, from `TRAIN_SEEDS` or `HELD_OUT_SEEDS`.
        size: side of square images in pixels, or (width, height).
        tasks: tasks of the rows, `"<OD>"` or `"OD"`; all registered tasks by default.
        max_objects: largest number of objects in a scene, see `draw_scene`.
        categories: categories to choose from, see `draw_scene`.

    Returns:
        The folder.

    Raises:
        ValueError: for an unknown category or task, and a size that `check_size` refuses; before a file is written.
    """
    from tqdm.auto import tqdm

    check_size(size)
    categories = categories or CATEGORIES
    tokens = [get_task(task).token for task in tasks or TASKS]
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with replace_file(folder / "train.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        for image_id, seed in enumerate(tqdm(seeds, desc="drawing scenes", unit="scene"), start=1):
            scene = draw_scene(seed, size, max_objects, categories)
            name = f"images/scene_{seed:08d}.png"
            save_image(scene, folder / name)
            width, height = scene.size
            images.append({"id": image_id, "file_name": name, "width": width, "height": height})
            for scene_object in scene.objects:
                ids = {"id": len(annotations) + 1, "image_id": image_id}
                annotations.append(ids | coco_annotation(scene_object, categories))
            for row in scene_rows(scene, name, tokens):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    coco = {"images": images, "annotations": annotations, "categories": coco_categories(categories)}
    write_text(folder / "annotations.json", json.dumps(coco))
    return folder


def scene_rows(scene: Scene, image: str, tasks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row `{"query", "response", "images"}` for each task that has an answer in a scene.

    Inputs and wordings vary with the seed of the scene. Tasks without ground truth are skipped, and so are empty answers (the
    text of a scene without any).

    Args:
        scene: the scene.
        image: its path, as it is written into the rows.
        tasks: task tokens.
    """
    rng = random.Random(scene.seed)
    for task in tasks:
        inputs, phrasing = scene.sample_inputs(task, rng), int(rng.random() * 6)
        response = scene.answer(task, inputs[0], phrasing).raw if inputs else ""
        if response:
            yield {"query": task + (inputs[0] or ""), "response": response, "images": [image]}


def coco_categories(categories: Sequence[str] = CATEGORIES) -> list[dict[str, Any]]:
    """Return the `categories` of a COCO file; ids count from 1."""
    return [{"id": i, "name": name, "supercategory": "cartoon"} for i, name in enumerate(categories, start=1)]


def coco_annotation(scene_object: SceneObject, categories: Sequence[str] = CATEGORIES) -> dict[str, Any]:
    """Return an object as a COCO annotation without ids: `bbox` as (x, y, width, height), flat polygons, in pixels."""
    x0, y0, x1, y1 = scene_object.box
    annotation = {
        "category_id": categories.index(scene_object.label) + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": scene_object.area,
        "segmentation": [[round(float(v), 2) for v in polygon.ravel()] for polygon in scene_object.polygons],
        "iscrowd": 0,
        "color": scene_object.color,
        "text": scene_object.text,
    }
    if scene_object.quad is not None:
        annotation["quad"] = [round(float(v), 2) for v in scene_object.quad.ravel()]
    return annotation
