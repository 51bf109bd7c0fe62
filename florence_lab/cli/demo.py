"""`florence-lab demo`: every task on the sample pictures, each answer printed, and a gallery of all overlays."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tqdm.auto import tqdm

from ..loading.registry import MODELS
from ..predictor import Predictor
from ..scenes import sample_path, sample_scene
from ..swift import Response
from ..tasks import TASKS
from ..visualization.gallery import gallery

# most questions are about the sheep; the others need something that the sheep have not
ASKED = {
    "<OCR>": ("snow", None),
    "<OCR_WITH_REGION>": ("snow", None),
    "<CAPTION_TO_PHRASE_GROUNDING>": ("sheep", "Four sheep standing in a field."),
    "<REFERRING_EXPRESSION_SEGMENTATION>": ("street", "the ball"),
    "<OPEN_VOCABULARY_DETECTION>": ("sheep", "sheep"),
    "<REGION_TO_SEGMENTATION>": ("street", "ball"),
    "<REGION_TO_CATEGORY>": ("street", "balloon"),
    "<REGION_TO_DESCRIPTION>": ("street", "balloon"),
    "<REGION_TO_OCR>": ("snow", "sign"),
}
"""Task -> the sample picture, and the phrase, or the thing whose box is the region."""


def run_demo(predictor: Predictor, folder: str | Path) -> Path:
    """Answers every task, prints the answers, and writes `gallery.png` into a folder; returns its path."""
    if predictor.name in MODELS:
        print(f"{predictor.name}: {MODELS[predictor.name].description}\n")
    about = defaultdict(list)
    for task in TASKS:
        name, text = question(task)
        about[name].append((task, text))
    answers = {}
    for name, questions in tqdm(about.items(), desc=predictor.name, unit="picture"):
        results = predictor.predict_tasks(sample_path(name), questions)
        answers |= {task: result for (task, _), result in zip(questions, results, strict=True)}
    for task in TASKS:
        print(f"{task} {answers[task].phrase}".rstrip() + f"\n  {Response(answers[task])}")
    panels = [(answers[task].image, answers[task]) for task in TASKS]

    path = Path(folder) / "gallery.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    gallery(panels).savefig(path)
    print(f"\nAll overlays: {path.resolve()}")
    print("What next: `florence-lab infer` asks about your own pictures, README.md shows the same from Python, and")
    print(
        "`florence-lab infer --model_type florence-2-base-ft` fetches a published model (0.5 GB) that knows photographs."
    )
    return path


def question(task: str) -> tuple[str, str | tuple[float, float, float, float] | None]:
    """What a task token is demonstrated with: the name of a sample picture, and the input of a task that takes one."""
    name, text = ASKED.get(task, ("sheep", None))
    if TASKS[task].input == "region":
        return name, next(thing.box for thing in sample_scene(name).objects if thing.label == text)
    return name, text
