"""Measure `Predictor.detect` on held-out scenes: `python tests/measure_detection.py --scenes 500`.

Each scene is asked for 8 classes, of which at most 4 are in it; in every third scene one is a name outside of the scenes' world.
Prints a Markdown table with a row for each strategy, plain, verified and calibrated:

- precision and recall at IoU 0.5, labels included,
- the share of absent classes that got no box,
- the answers decoded for an image, the prompts read besides (by verification), and the seconds taken.

`--calibrate 40` fits a calibration to 40 other scenes, asked for all categories. `--model` measures another checkpoint, `--random
florence-2-base` random weights of a published size, whose answers are noise: only their time says something.
"""

import argparse
import random
import time
from contextlib import contextmanager

import torch

from florence_lab import load
from florence_lab.benchmark.models import build_model
from florence_lab.detection.strategies import STRATEGIES
from florence_lab.evaluation.calibration import calibrate
from florence_lab.evaluation.matching import match_instances
from florence_lab.predictor import Predictor
from florence_lab.results import Boxes
from florence_lab.scenes import CATEGORIES, HELD_OUT_SEEDS, draw_scene

NUM_CLASSES, MAX_PRESENT = 8, 4
OUTSIDERS = ("giraffe", "rocket", "piano", "traffic light", "laptop", "pizza")
"""Names that no scene and no answer of florence-2-nano knows."""

COLUMNS = ("P", "R", "absent empty", "decoded", "read", "s / image")


def classes_of(scene):
    """Return the classes that a scene is asked for, in random order."""
    rng = random.Random(scene.seed)
    present = sorted({o.label for o in scene.objects})
    asked = rng.sample(present, min(MAX_PRESENT, len(present)))
    if scene.seed % 3 == 0:
        asked.append(rng.choice(OUTSIDERS))
    absent = [name for name in CATEGORIES if name not in present]
    asked += rng.sample(absent, NUM_CLASSES - len(asked))
    rng.shuffle(asked)
    return asked


def ground_truth(scene, classes):
    """Return the objects of a scene that are of one of the classes."""
    objects = [o for o in scene.objects if o.label in classes]
    return Boxes(
        raw="",
        image_size=scene.size,
        labels=[o.label for o in objects],
        boxes=[o.box for o in objects],
    )


@contextmanager
def counted(predictor):
    """Count the answers decoded, and all prompts that the text encoder reads."""
    counts = {"decoded": 0, "read": 0}
    predict_prompts = predictor.predict_prompts

    def counting(images, prompts, *args, **kwargs):
        counts["decoded"] += len(prompts)
        return predict_prompts(images, prompts, *args, **kwargs)

    def count_rows(module, args, kwargs, output):
        counts["read"] += len(output.last_hidden_state)

    hook = predictor.model.get_encoder().register_forward_hook(count_rows, with_kwargs=True)
    predictor.predict_prompts = counting
    try:
        yield counts
    finally:
        del predictor.predict_prompts
        hook.remove()


def measure(predictor, scenes, **options):
    """Return a row of the table: the values of `COLUMNS`."""
    right = predicted = true = empty = absent = 0
    start = time.perf_counter()
    with counted(predictor) as counts:
        results = [predictor.detect(scene.image, classes_of(scene), **options) for scene in scenes]
    seconds = time.perf_counter() - start
    for scene, result in zip(scenes, results, strict=True):
        truth = ground_truth(scene, result.classes)
        right += int((match_instances(result, truth) >= 0).sum())
        predicted += len(result)
        true += len(truth)
        missing = set(result.classes) - set(truth.labels.tolist())
        absent += len(missing)
        empty += len(missing - set(result.labels.tolist()))
    n = len(scenes)
    decoded, read = counts["decoded"] / n, (counts["read"] - counts["decoded"]) / n
    return right / max(1, predicted), right / true, empty / absent, decoded, read, seconds / n


def calibration(predictor, count):
    """Calibrate on scenes that are measured by nobody, and print the report."""
    scenes = [draw_scene(seed) for seed in HELD_OUT_SEEDS[-count:]]
    pairs = [(scene.image, ground_truth(scene, CATEGORIES)) for scene in scenes]
    report = calibrate(predictor, pairs, classes=CATEGORIES)
    print(f"{report}\n")
    return report.calibration


def load_model(arguments):
    if arguments.random is None:
        return load(arguments.model, device="cpu")
    model, processor = build_model(arguments.random)
    return Predictor(model, processor, f"random weights of the size of {arguments.random}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="florence-2-nano", help="name or folder")
    parser.add_argument("--random", metavar="SIZE", help="random weights of a published size instead")
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="first held-out seed")
    parser.add_argument("--strategies", nargs="*", default=["auto", *STRATEGIES], help="names, several joined by +")
    parser.add_argument(
        "--calibrate", type=int, default=0, metavar="N", help="scenes to calibrate on; adds calibrated rows"
    )
    parser.add_argument(
        "--max_new_tokens", type=int, default=1024, help="limit for random weights, whose answers do not end"
    )
    parser.add_argument("--nms_iou", type=float)
    parser.add_argument("--threshold", type=float)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    predictor = load_model(arguments)
    scenes = [draw_scene(seed) for seed in HELD_OUT_SEEDS[arguments.first : arguments.first + arguments.scenes]]
    ways = {"plain": {"verify": False}, "verified": {"verify": True}}
    if arguments.calibrate:
        ways["calibrated"] = {"verify": True, "calibration": calibration(predictor, arguments.calibrate)}
    common = {"max_new_tokens": arguments.max_new_tokens}
    common |= {
        name: getattr(arguments, name) for name in ("nms_iou", "threshold") if getattr(arguments, name) is not None
    }
    print(f"{predictor.name}: {len(scenes)} scenes from {arguments.first}, {NUM_CLASSES} classes each\n")
    print(f"| strategy | boxes | {' | '.join(COLUMNS)} |\n| --- | --- |{' ---: |' * len(COLUMNS)}")
    for strategy in arguments.strategies:
        names = strategy.split("+") if "+" in strategy else strategy
        for way, options in ways.items():
            if way == "plain" and "regions" in names:  # they have no class without verification
                continue
            row = measure(predictor, scenes, strategy=names, **options, **common)
            cells = [f"{value:.3f}" for value in row[:3]] + [f"{value:.1f}" for value in row[3:5]] + [f"{row[5]:.2f}"]
            print(f"| {strategy} | {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
