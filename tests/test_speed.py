"""Measurements at the real base size, with random weights: `pytest -m speed -s`."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import skimage
import torch

from florence_lab.benchmark.models import build_model
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.feature_cache import FeatureCache
from florence_lab.finetuning.run import sft
from florence_lab.loading.checkpoint import load_checkpoint
from florence_lab.predictor import Predictor
from florence_lab.scenes import TRAIN_SEEDS, write_dataset
from florence_lab.tasks import TASKS

pytestmark = pytest.mark.speed

INPUTS = {"none": None, "phrase": "a cat", "region": (100, 50, 300, 250)}


@pytest.fixture(scope="module")
def base_size() -> Predictor:
    """A predictor of florence-2-base's size; weights are random, so the answers mean nothing."""
    torch.set_num_threads(os.cpu_count())  # conftest.py asks for one
    return Predictor(*build_model("florence-2-base"))


def test_asking_15_tasks_of_an_encoded_image(base_size):
    picture = str(Path(skimage.__file__).parent / "data" / "chelsea.png")

    def ask_all(image) -> float:
        started = time.perf_counter()
        for task in TASKS.values():
            base_size.predict(image, task.token, INPUTS[task.input], max_new_tokens=32)
        return time.perf_counter() - started

    base_size.predict(picture, "<OD>", max_new_tokens=2)  # warm-up
    started = time.perf_counter()
    encoded = base_size.encode_image(picture)
    tower = time.perf_counter() - started
    once, each = tower + ask_all(encoded), ask_all(picture)
    print(
        f"\n15 tasks, 32 tokens each: {each:.1f} s without encode_image, {once:.1f} s with it ({each / once:.1f} times)"
    )
    assert once < each


# ---------------------------------------------------------------------- fine-tuning

STEP = """
import resource, sys
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.run import sft

folder, sft_type = sys.argv[1:]
sft(SftArguments(
    model_id_or_path=folder + "/base", dataset=(folder + "/rows/train.jsonl",), output_dir=folder + "/memory",
    sft_type=sft_type, max_steps=1, batch_size=1, eval_steps=5, save_total_limit=1, dataloader_num_workers=0,
))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.fixture(scope="module")
def training_folder(base_size, tmp_path_factory):
    """`base`, a checkpoint of the base size, and `rows/train.jsonl`, a caption of each of 12 pictures."""
    folder = tmp_path_factory.mktemp("training")
    base_size.model.generation_config.update(do_sample=False, early_stopping=False)
    base_size.save(folder / "base")
    write_dataset(folder / "rows", TRAIN_SEEDS[:12], 512, ["<DETAILED_CAPTION>"])
    return folder


def test_epochs_an_hour_with_and_without_image_tokens_on_disk(training_folder):
    def epochs(cached: bool, count: int) -> float:
        """Seconds for so many epochs of LoRA, the reading of the model left out."""
        seconds = []
        arguments = SftArguments(
            model_id_or_path=str(training_folder / "base"),
            dataset=(str(training_folder / "rows" / "train.jsonl"),),
            output_dir=str(training_folder / "output"),
            feature_dir=str(training_folder / "features"),
            cache_image_features=cached,
            num_train_epochs=count,
            logging_steps=3,  # an epoch
            eval_steps=1000,
        )
        sft(arguments, lambda line: seconds.append(time.perf_counter()))
        return (seconds[-1] - seconds[0]) / (count - 1)

    made = time.perf_counter()
    model, processor = load_checkpoint(training_folder / "base")
    cache = FeatureCache(model, processor, torch.bfloat16, training_folder / "features")
    cache.encode_images([training_folder / "rows" / "images" / f"scene_{seed:08d}.png" for seed in TRAIN_SEEDS[:12]])
    made = time.perf_counter() - made
    without, with_ = epochs(False, 3), epochs(True, 5)
    print(
        f"\n12 pictures, LoRA, batch 4: {3600 / without:.0f} epochs an hour without image tokens on disk, "
        f"{3600 / with_:.0f} with them ({without / with_:.1f} times); making them took {made:.1f} s, once"
    )
    assert with_ < without


@pytest.mark.parametrize("sft_type", ["lora", "full"])
def test_memory_of_a_step(training_folder, sft_type):
    done = subprocess.run([sys.executable, "-c", STEP, str(training_folder), sft_type], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"\n{sft_type}, base size, one row a step: {float(done.stdout.split()[-1]):.1f} GB at its peak")
