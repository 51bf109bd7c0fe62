"""Fine-tuning on a category that a user draws: florence-2-nano learns it and forgets little.

The short test is `slow`; the full one prints the figures of the README: pytest -m speed -s tests/scenes/test_new_category.py
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
WITH_ROCKET = (*CATEGORIES, "rocket")


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


def seeds_with(is_wanted, seeds, count, categories=CATEGORIES):
    """Return the first `count` seeds whose scene has an object that is wanted."""
    found = (seed for seed in seeds if any(map(is_wanted, draw_scene(seed, 64, categories=categories).objects)))
    return list(itertools.islice(found, count))


def seeds_with_a_rocket(seeds, count):
    return seeds_with(lambda o: o.label == "rocket", seeds, count, WITH_ROCKET)


def rocket_precision(predictor, folder):
    """Return mAP@0.5 of rockets alone, in scenes of all categories."""
    examples = load_examples([str(folder / "train.jsonl")], RowValidator(predictor.template)).require_valid()
    predictions, ground_truths = evaluate(predictor, examples).for_task("<OD>")
    rockets = ([r[r.labels == "rocket"] for r in results] for results in (predictions, ground_truths))
    return mean_average_precision(*rockets)["mAP@0.5"]


def finetune(folder, scenes, **changes):
    """Fine-tune on scenes with a rocket, twice as many ordinary scenes, and as many with text.

    Few ordinary scenes contain text, and OCR is forgotten first.
    """
    write_dataset(folder / "new", seeds_with_a_rocket(TRAIN_SEEDS[500_000:], scenes), 384, categories=WITH_ROCKET)
    signs = seeds_with(lambda o: o.text, TRAIN_SEEDS[600_000:], scenes)
    write_dataset(folder / "text", signs, 384, ["<OCR>", "<OCR_WITH_REGION>"])
    defaults = {
        "dataset": (*(str(folder / name / "train.jsonl") for name in ("new", "text")), f"scenes:{2 * scenes}"),
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
    return sft(SftArguments(**(defaults | changes)))


@pytest.mark.slow
def test_sixty_steps_teach_the_beginnings_of_a_new_category(tmp_path):
    seeds = seeds_with_a_rocket(HELD_OUT_SEEDS[50_000:], 16)
    write_dataset(tmp_path / "test", seeds, 384, ["<OD>"], categories=WITH_ROCKET)
    before = rocket_precision(load(NANO), tmp_path / "test")
    after = rocket_precision(load(finetune(tmp_path, 24, max_steps=60, learning_rate=3e-3)), tmp_path / "test")
    assert before < 0.05
    assert after > 0.2


@pytest.mark.speed
def test_ten_minutes_teach_a_new_category_and_cost_less_than_five_points_elsewhere(tmp_path):
    torch.set_num_threads(2)
    seeds = seeds_with_a_rocket(HELD_OUT_SEEDS[50_000:], 100)
    write_dataset(tmp_path / "test", seeds, 384, ["<OD>"], categories=WITH_ROCKET)
    start = time.perf_counter()
    checkpoint = finetune(tmp_path, 150, max_steps=700, learning_rate=1.3e-3)
    minutes = (time.perf_counter() - start) / 60
    before, after, merged = load(NANO), load(checkpoint), load(merge_lora(checkpoint))
    rockets = [rocket_precision(predictor, tmp_path / "test") for predictor in (before, after)]
    tables = [evaluate_scenes(p).to_dataframe().set_index(["task", "metric"]).value for p in (before, after)]
    table = pd.DataFrame({"before": tables[0], "after": tables[1], "change": tables[1] - tables[0]})
    print(
        f"\n{minutes:.1f} minutes; mAP@0.5 of rockets {rockets[0]:.3f} -> {rockets[1]:.3f}\n{table.round(3).to_string()}"
    )
    for seed in HELD_OUT_SEEDS[60_000:60_020]:
        image = draw_scene(seed, categories=WITH_ROCKET).image
        assert after.predict(image, "<OD>").raw == merged.predict(image, "<OD>").raw
    assert rockets[0] < 0.05
    assert rockets[1] >= 0.80
    assert minutes <= 10
    assert table.change.drop(index=("<OD>", "ECE")).min() >= -0.05
