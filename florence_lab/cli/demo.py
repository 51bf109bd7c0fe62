"""`florence-lab demo`: run every task on a sample image, print the answers, and draw all results into one image."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from ..loading.registry import MODELS
from ..output_files import replace_file
from ..predictor import Predictor
from ..results import Result
from ..scenes import sample_path, sample_scene
from ..swift import Response
from ..tasks import TASKS, Task
from ..template.locations import Region
from ..visualization.gallery import gallery

_NEXT_STEPS = """\
Next: `florence-lab infer` answers prompts about other images, README.md shows the same in Python, and
`florence-lab infer --model_type florence-2-base-ft` downloads a published model (0.5 GB) that was trained on photographs."""


class DemoInput(NamedTuple):
    """What a task is demonstrated with.

    Attributes:
        sample: the name of a sample image.
        text: the phrase, if the task takes one.
        region_of: the category of the object whose box is the region, if the task takes one.
    """

    sample: str
    text: str | None = None
    region_of: str | None = None


DEMO_INPUTS = {
    "<OCR>": DemoInput("snow"),
    "<OCR_WITH_REGION>": DemoInput("snow"),
    "<CAPTION_TO_PHRASE_GROUNDING>": DemoInput("sheep", "Four sheep standing in a field."),
    "<REFERRING_EXPRESSION_SEGMENTATION>": DemoInput("street", "the ball"),
    "<OPEN_VOCABULARY_DETECTION>": DemoInput("sheep", "sheep"),
    "<REGION_TO_SEGMENTATION>": DemoInput("street", region_of="ball"),
    "<REGION_TO_CATEGORY>": DemoInput("street", region_of="balloon"),
    "<REGION_TO_DESCRIPTION>": DemoInput("street", region_of="balloon"),
    "<REGION_TO_OCR>": DemoInput("snow", region_of="sign"),
}
"""Task token -> input. Any other task is run on the image "sheep" with `Task.example`."""


def run_demo(predictor: Predictor, folder: str | Path) -> Path:
    """Run every task, print the answers, write `gallery.png` into a folder, and return its path.

    Registered tasks are included, except those that take an input and have no `Task.example`.
    """
    if predictor.name in MODELS:
        print(f"{predictor.name}: {MODELS[predictor.name].description}\n")
    results = predict_demo(predictor)
    for result in results:
        print(f"{result.task} {result.phrase}".rstrip() + f"\n  {Response(result)}")

    path = Path(folder) / "gallery.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = gallery([(result.image, result) for result in results])
    with replace_file(path) as temporary:
        figure.savefig(temporary)
    print(f"\nAll results: {path.resolve()}\n{_NEXT_STEPS}")
    return path


def predict_demo(predictor: Predictor) -> list[Result]:
    """Return the result of every task, in the order of `TASKS`."""
    prompts_by_sample = defaultdict(list)
    for task in TASKS.values():
        sample, text = demo_input(task)
        if task.input == "none" or text is not None:
            prompts_by_sample[sample].append((task.token, text))
    results: dict[str, Result] = {}
    for sample, prompts in tqdm(prompts_by_sample.items(), desc=predictor.name, unit="image"):
        results |= {r.task: r for r in predictor.predict_tasks(sample_path(sample), prompts)}
    return [results[token] for token in TASKS if token in results]


def demo_input(task: Task) -> tuple[str, str | Region | None]:
    """Return the name of the sample image and the input that demonstrate a task."""
    sample, text, region_of = DEMO_INPUTS.get(task.token, DemoInput("sheep", task.example))
    if region_of is not None:
        return sample, next(item.box for item in sample_scene(sample).objects if item.label == region_of)
    return sample, text
