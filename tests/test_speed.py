"""Measurements at the size of florence-2-base: `pytest -m speed -s`."""

import os
import subprocess
import sys
import time

import pytest
import torch
from support import PHOTO

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
    """A predictor of the size of florence-2-base, with random weights unless it is cached."""
    torch.set_num_threads(os.cpu_count())  # conftest.py sets one
    return Predictor(*build_model("florence-2-base"))


def test_encoding_an_image_once_is_faster_for_all_tasks(base_size):
    def predict_all(image) -> float:
        started = time.perf_counter()
        for task in TASKS.values():
            base_size.predict(image, task.token, INPUTS[task.input], max_new_tokens=32)
        return time.perf_counter() - started

    base_size.predict(PHOTO, "<OD>", max_new_tokens=2)  # warm-up
    started = time.perf_counter()
    encoded = base_size.encode_image(PHOTO)
    once = time.perf_counter() - started + predict_all(encoded)
    each = predict_all(PHOTO)
    print(
        f"\n{len(TASKS)} tasks, 32 tokens each: {each:.1f} s without encode_image, {once:.1f} s with it "
        f"({each / once:.1f} times)"
    )
    assert once < each


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
    """A folder with the checkpoint `base`, and with captions of 12 images in `rows/train.jsonl`."""
    folder = tmp_path_factory.mktemp("training")
    base_size.model.generation_config.update(do_sample=False, early_stopping=False)
    base_size.save_pretrained(folder / "base")
    write_dataset(folder / "rows", TRAIN_SEEDS[:12], 512, ["<DETAILED_CAPTION>"])
    return folder


def test_cached_image_features_speed_up_training(training_folder):
    def seconds_per_epoch(cached: bool, num_epochs: int) -> float:
        """Train LoRA. The first epoch, before which the model is loaded, does not count."""
        ends = []
        arguments = SftArguments(
            model_id_or_path=str(training_folder / "base"),
            dataset=(str(training_folder / "rows" / "train.jsonl"),),
            output_dir=str(training_folder / "output"),
            feature_dir=str(training_folder / "features"),
            cache_image_features=cached,
            num_train_epochs=num_epochs,
            logging_steps=3,  # one epoch
            eval_steps=1000,
        )
        sft(arguments, lambda _: ends.append(time.perf_counter()))
        return (ends[-1] - ends[0]) / (num_epochs - 1)

    started = time.perf_counter()
    model, processor = load_checkpoint(training_folder / "base")
    cache = FeatureCache(model, processor, torch.bfloat16, training_folder / "features")
    cache.encode_images([training_folder / "rows" / "images" / f"scene_{seed:08d}.png" for seed in TRAIN_SEEDS[:12]])
    encoding = time.perf_counter() - started
    uncached, cached = seconds_per_epoch(False, 3), seconds_per_epoch(True, 5)
    print(
        f"\n12 images, LoRA, batch size 4: {3600 / uncached:.0f} epochs per hour without cached features, "
        f"{3600 / cached:.0f} with them ({uncached / cached:.1f} times); computing them took {encoding:.1f} s"
    )
    assert cached < uncached


@pytest.mark.parametrize("sft_type", ["lora", "full"])
def test_the_memory_of_a_training_step_is_printed(training_folder, sft_type):
    done = subprocess.run([sys.executable, "-c", STEP, str(training_folder), sft_type], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"\n{sft_type}, base size, batch size 1: peak memory {float(done.stdout.split()[-1]):.1f} GB")
