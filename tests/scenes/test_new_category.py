"""nano is taught a thing that the cartoon world has not, and forgets little: shortly here, and whole on demand.

pytest -m speed -s tests/test_new_category.py
"""

import itertools
import time

import pandas as pd
import pytest
import torch

from florence_lab import load
from florence_lab.data.datasets import load_examples
from florence_lab.data.validation import RowValidator
from florence_lab.evaluation import evaluate, evaluate_scenes, mean_average_precision
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.lora import merge_lora
from florence_lab.finetuning.run import sft
from florence_lab.scenes import CATEGORIES, HELD_OUT_SEEDS, TRAIN_SEEDS, draw_scene, sprite, write_dataset
from florence_lab.scenes.paint import darker, lighter
from florence_lab.scenes.sprites import SPRITES

NANO = "florence-2-nano"
KINDS = (*CATEGORIES, "rocket")


@pytest.fixture(scope="module", autouse=True)
def _rocket():
    @sprite("rocket", (72, 140), 0.36, {"red": 1, "blue": 1, "green": 1, "gray": 1})
    def draw_rocket(pen, rng, color):
        flame = rng.uniform(124, 138)
        pen.curve([(28, 104), (44, 104), (40, flame - 8), (36, flame), (32, flame - 8)], (255, 176, 60))
        for side in (-1, 1):
            pen.polygon([(36 + side * 14, 70), (36 + side * 32, 108), (36 + side * 14, 102)], darker(color, 0.25))
        pen.curve([(36, 4), (54, 40), (54, 90), (46, 108), (26, 108), (18, 90), (18, 40)], lighter(color, 0.25))
        pen.curve([(36, 4), (49, 30), (36, 34), (23, 30)], color)
        pen.circle(36, 54, 10, (190, 226, 246))
        pen.box(24, 78, 48, 84, color, 2, outline=False)

    yield
    del SPRITES["rocket"]


def seeds_with(wanted, seeds, count: int, categories=CATEGORIES) -> list[int]:
    """The first `count` of the seeds whose scene has a thing that is wanted."""
    found = (seed for seed in seeds if any(map(wanted, draw_scene(seed, 64, categories=categories).objects)))
    return list(itertools.islice(found, count))


def seeds_with_a_rocket(seeds, count: int) -> list[int]:
    return seeds_with(lambda thing: thing.label == "rocket", seeds, count, KINDS)


def precision_of_rockets(predictor, folder) -> float:
    """mAP@0.5 of rockets alone, in scenes of every kind of thing."""
    examples = load_examples([str(folder / "train.jsonl")], RowValidator(predictor.template)).require_valid()
    predictions, ground_truths = evaluate(predictor, examples).for_task("<OD>")
    rockets = ([r[r.labels == "rocket"] for r in results] for results in (predictions, ground_truths))
    return mean_average_precision(*rockets)["mAP@0.5"]


def taught(folder, train: int, **changes):
    """A lesson of `train` scenes with a rocket, twice as many of the world, and as many with words to read.

    Few scenes show words, and reading is what is forgotten first.
    """
    write_dataset(folder / "new", seeds_with_a_rocket(TRAIN_SEEDS[500_000:], train), 384, categories=KINDS)
    signs = seeds_with(lambda thing: thing.text, TRAIN_SEEDS[600_000:], train)
    write_dataset(folder / "words", signs, 384, ["<OCR>", "<OCR_WITH_REGION>"])
    chosen = {
        "dataset": (*(str(folder / name / "train.jsonl") for name in ("new", "words")), f"scenes:{2 * train}"),
        "output_dir": str(folder / "output"),
        "feature_dir": str(folder / "features"),
        "cache_image_features": True,
        "lora_target_modules": ("ALL",),
        "lora_rank": 16,
        "lora_dropout": 0.0,
        "learning_rate": 2e-3,
        "batch_size": 16,
        "device": "cpu",
        "eval_steps": 1000,
    }
    return sft(SftArguments(**(chosen | changes)))


def test_a_short_lesson_is_a_beginning(tmp_path):
    write_dataset(tmp_path / "test", seeds_with_a_rocket(HELD_OUT_SEEDS[50_000:], 16), 384, ["<OD>"], categories=KINDS)
    before = precision_of_rockets(load(NANO), tmp_path / "test")
    after = precision_of_rockets(load(taught(tmp_path, 24, max_steps=60, learning_rate=3e-3)), tmp_path / "test")
    assert before < 0.05
    assert after > 0.2


@pytest.mark.speed
def test_it_learns_a_new_thing_in_ten_minutes_and_forgets_little(tmp_path):
    """The figures of the README: before and after, for the new thing and for every row of the table of the world."""
    torch.set_num_threads(2)
    write_dataset(tmp_path / "test", seeds_with_a_rocket(HELD_OUT_SEEDS[50_000:], 100), 384, ["<OD>"], categories=KINDS)
    start = time.perf_counter()
    checkpoint = taught(tmp_path, 150, max_steps=700, learning_rate=1.3e-3)
    minutes = (time.perf_counter() - start) / 60
    before, after, merged = load(NANO), load(checkpoint), load(merge_lora(checkpoint))
    rockets = [precision_of_rockets(predictor, tmp_path / "test") for predictor in (before, after)]
    tables = [evaluate_scenes(p).to_dataframe().set_index(["task", "metric"]).value for p in (before, after)]
    table = pd.DataFrame({"before": tables[0], "after": tables[1], "change": tables[1] - tables[0]})
    print(
        f"\n{minutes:.1f} minutes; mAP@0.5 of rockets {rockets[0]:.3f} -> {rockets[1]:.3f}\n{table.round(3).to_string()}"
    )
    for seed in HELD_OUT_SEEDS[60_000:60_020]:
        image = draw_scene(seed, categories=KINDS).image
        assert after.predict(image, "<OD>").raw == merged.predict(image, "<OD>").raw
    assert rockets[0] < 0.05
    assert rockets[1] >= 0.80
    assert minutes <= 10
    falls = table.change.drop(index=("<OD>", "ECE"))
    assert falls.min() >= -0.05
