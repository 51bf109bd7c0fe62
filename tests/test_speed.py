"""Measurements at the real base size, with random weights: `pytest -m speed -s`."""

import os
import time
from pathlib import Path

import pytest
import skimage
import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration

from florence_lab.checkpoint import load_checkpoint
from florence_lab.predictor import Predictor
from florence_lab.tasks import TASKS
from florence_lab.vision import DAVIT_ATTENTION

pytestmark = pytest.mark.speed

TINY = Path(__file__).parent / "data" / "tiny-original"
INPUTS = {"none": None, "phrase": "a cat", "region": (100, 50, 300, 250)}


@pytest.fixture(scope="module")
def base_size() -> Predictor:
    """A predictor of florence-2-base's size; weights and words are random, so the answers mean nothing."""
    _, processor = load_checkpoint(TINY)
    config = Florence2Config(
        vision_config={"projection_dim": 768},
        text_config={"vocab_size": 51290, "d_model": 768, "encoder_layers": 6, "decoder_layers": 6}
        | {"encoder_attention_heads": 12, "decoder_attention_heads": 12}
        | {"encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072},
        image_token_id=51289,
    )
    torch.set_num_threads(os.cpu_count())  # conftest.py asks for one
    torch.manual_seed(0)
    model = Florence2ForConditionalGeneration(config).eval()
    model.set_attn_implementation({"vision_config": DAVIT_ATTENTION})
    model.generation_config.update(num_beams=1, decoder_start_token_id=2, forced_eos_token_id=None, eos_token_id=None)
    return Predictor(model, processor)


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
