"""Images per second, and the share of time spent waiting for data."""

import json

import pytest

from florence_lab.finetuning import throughput
from florence_lab.finetuning.run import sft
from florence_lab.finetuning.throughput import ThroughputMeter


@pytest.fixture
def clock(monkeypatch):
    """Let a test move the time on."""
    now = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def run_step(meter, clock, images, waiting, computing):
    with meter.waiting_for_data():
        clock(waiting)
    meter.count_images(images)
    clock(computing)
    meter.on_step_end()


def test_a_window_covers_the_steps_since_the_last_and_no_validation(clock):
    meter = ThroughputMeter()
    run_step(meter, clock, images=8, waiting=1, computing=3)
    clock(100)  # validation
    run_step(meter, clock, images=4, waiting=0, computing=2)
    assert meter.take_recent() == {"images_per_second": 2.0, "data_wait": round(1 / 6, 4)}
    assert meter.take_recent() == {}
    run_step(meter, clock, images=8, waiting=2, computing=2)
    assert meter.take_recent() == {"images_per_second": 2.0, "data_wait": 0.5}
    assert meter.describe_run() == {"images_per_second": 2.0, "data_wait": 0.3}


@pytest.mark.usefixtures("one_thread")
def test_a_run_logs_it_beside_each_loss_and_at_its_end(arguments):
    checkpoint = sft(arguments(gradient_accumulation_steps=2))
    lines = [json.loads(line) for line in (checkpoint.parent / "logging.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "loss" in line or "train_runtime" in line]
    assert len(measured) == 3
    for line in measured:
        assert line["images_per_second"] > 0
        assert 0 < line["data_wait"] < 1
