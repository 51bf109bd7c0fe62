"""Batch sizes that nobody chose."""

from types import SimpleNamespace

import pytest
import torch

from florence_lab.inference import batch_size
from florence_lab.inference.batch_size import auto_batch_size, num_reader_threads, row_bytes

BASE = SimpleNamespace(decoder_layers=6, d_model=768, encoder_ffn_dim=3072, vocab_size=51289)


def model(device="cpu", num_beams=1, dtype=torch.bfloat16):
    config = SimpleNamespace(text_config=BASE)
    generation_config = SimpleNamespace(num_beams=num_beams)
    return SimpleNamespace(config=config, device=torch.device(device), dtype=dtype, generation_config=generation_config)


@pytest.mark.parametrize(
    ("num_beams", "kwargs", "expected"),
    [
        (1, {}, 16),
        (3, {}, 5),
        (3, {"num_beams": 1}, 16),
        (1, {"num_beams": 2}, 8),
        (None, {}, 16),
        (1, {"num_beams": 99}, 1),
    ],
)
def test_beams_count_as_rows(num_beams, kwargs, expected):
    assert auto_batch_size(model(num_beams=num_beams), kwargs | {"max_new_tokens": 64}, 577) == expected


@pytest.mark.parametrize(
    ("gigabytes", "max_new_tokens", "expected"), [(80, 1024, 128), (2, 1024, 18), (2, 64, 46), (0.01, 64, 1)]
)
def test_a_gpu_takes_what_fits_into_half_of_the_free_memory(monkeypatch, gigabytes, max_new_tokens, expected):
    monkeypatch.setattr(batch_size, "_free_bytes", lambda device: int(gigabytes * 2**30))
    kwargs = {"max_new_tokens": max_new_tokens}
    size = auto_batch_size(model("cuda"), kwargs, 577)
    assert size == expected
    assert size == 1 or size * row_bytes(model(), 577, max_new_tokens) <= gigabytes * 2**29


def test_readers_of_a_gpu_use_all_cores(monkeypatch):
    monkeypatch.setattr(batch_size.os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert num_reader_threads(torch.device("cuda")) == 12
    assert num_reader_threads(torch.device("cpu")) == 2


@pytest.mark.gpu
def test_the_memory_of_a_gpu_is_asked():
    assert 1 <= auto_batch_size(model("cuda"), {"max_new_tokens": 64}, 577) <= 128
