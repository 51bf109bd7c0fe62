"""`florence-lab demo`: every task on the sample pictures, each answer printed, and a gallery of all overlays."""

from __future__ import annotations

from pathlib import Path

from tqdm.auto import tqdm

from .catalog import MODELS
from .draw import gallery
from .predictor import Predictor
from .scenes import sample_path, sample_scene
from .swift import Response
from .tasks import TASKS, Task

PHRASES = {
    "<CAPTION_TO_PHRASE_GROUNDING>": "four sheep standing in a field",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "the cat",
    "<OPEN_VOCABULARY_DETECTION>": "sheep",
}
# most questions are about the sheep; these need something that the sheep have not
PICTURES = {
    "<OCR>": "snow",
    "<OCR_WITH_REGION>": "snow",
    "<REGION_TO_OCR>": "snow",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "street",
    "<REGION_TO_SEGMENTATION>": "street",
    "<REGION_TO_CATEGORY>": "street",
    "<REGION_TO_DESCRIPTION>": "street",
}


def run_demo(predictor: Predictor, folder: str | Path) -> Path:
    """Answers every task, prints the answers, and writes `gallery.png` into a folder; returns its path."""
    if predictor.name in MODELS:
        print(f"{predictor.name}: {MODELS[predictor.name].description}\n")
    encoded = {name: predictor.encode_image(sample_path(name)) for name in {"sheep", *PICTURES.values()}}
    panels = []
    for task in tqdm(TASKS.values(), desc=predictor.name, unit="task"):
        name = PICTURES.get(task.token, "sheep")
        result = predictor.predict(encoded[name], task.token, _input(task, name))
        tqdm.write(f"{task.token} {result.phrase}".rstrip() + f"\n  {Response(result)}")
        panels.append((encoded[name].image, result))

    path = Path(folder) / "gallery.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    gallery(panels).savefig(path)
    print(f"\nAll overlays: {path.resolve()}")
    print("What next: `florence-lab infer` asks about your own pictures, README.md shows the same from Python, and")
    print(
        "`florence-lab infer --model_type florence-2-base-ft` fetches a published model (0.5 GB) that knows photographs."
    )
    return path


def _input(task: Task, name: str) -> str | tuple[float, float, float, float] | None:
    """What the task is asked with: a phrase from the table, or the box of the largest thing (for text: with a word)."""
    if task.input != "region":
        return PHRASES.get(task.token)
    wanted = [o for o in sample_scene(name).objects if task.token != "<REGION_TO_OCR>" or o.text]
    return max(wanted, key=lambda o: (o.box[2] - o.box[0]) * (o.box[3] - o.box[1])).box
