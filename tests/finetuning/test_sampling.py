"""Batches of rows of similar lengths."""

import random

import pytest

from florence_lab.finetuning.run import sft
from florence_lab.finetuning.sampling import LengthGroupedSampler


def draw_lengths(count):
    return [random.Random(0).choice([3, 8, 20, 60, 200]) + i % 5 for i in range(count)]


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 4), (8, 2), (100, 8), (1000, 8), (77, 1)])
def test_each_row_is_drawn_once_an_epoch(rows, batch_size):
    sampler = LengthGroupedSampler(list(range(rows)), batch_size, seed=1)
    assert len(sampler) == rows
    assert sorted(sampler) == list(range(rows))


def test_the_order_depends_on_seed_and_epoch_only():
    def draw(seed, epoch):
        sampler = LengthGroupedSampler(draw_lengths(100), 4, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert draw(1, 0) == draw(1, 0)
    assert draw(1, 0) != draw(1, 1)
    assert draw(1, 1) != draw(2, 1)


def test_batches_have_less_padding():
    generator = random.Random(0)
    lengths = [generator.choice([4, 10, 30, 150]) + generator.randrange(4) for _ in range(999)]

    def padded(order):
        batches = [order[i : i + 8] for i in range(0, len(order), 8)]
        return sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)

    grouped = padded(list(LengthGroupedSampler(lengths, 8, seed=0)))
    assert grouped < 1.15 * sum(lengths) < 0.7 * padded(list(range(999)))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.slow
def test_a_resumed_run_sees_the_same_batches(arguments, interrupt_run, tmp_path):
    changes = {"max_steps": 7, "eval_steps": 5, "group_by_length": True}  # 4 steps an epoch
    whole = sft(arguments(**changes, output_dir=tmp_path / "whole"))
    interrupt_run(arguments(**changes), steps=6)
    resumed = sft(arguments(**changes, resume_from_checkpoint=True))
    a, b = ((path / "adapter_model.safetensors").read_bytes() for path in (whole, resumed))
    assert a == b
