"""The number of processes that load images, and that rows reach processes of any start method."""

import pickle
from collections import namedtuple

import pytest
import torch
from torch.utils.data import DataLoader

from florence_lab.data.examples import Example, SceneReference
from florence_lab.finetuning import workers
from florence_lab.finetuning.collator import Florence2DataCollator, TrainingRow
from florence_lab.finetuning.workers import choose_num_workers
from florence_lab.template.prompts import Prompt

MB = 2**20
Usage = namedtuple("Usage", "free")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Set the number of cores and the free shared memory."""

    def use(cores=16, free=2**40, processes=1):
        monkeypatch.setattr(workers, "count_cores", lambda: cores)
        monkeypatch.setattr(workers, "_SHARED_MEMORY", tmp_path)
        monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: Usage(free))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        monkeypatch.setattr(workers.multiprocessing, "get_start_method", lambda allow_none: "fork")

    return use


@pytest.mark.parametrize(
    ("settings", "rows", "device", "expected"),
    [
        ({}, 10_000, "cuda", 8),
        ({"cores": 4}, 10_000, "cuda", 3),
        ({"cores": 1}, 10_000, "cuda", 1),
        ({"processes": 8}, 10_000, "cuda", 1),
        ({"cores": 64, "processes": 8}, 10_000, "cuda", 7),
        ({}, 10_000, "cpu", 1),
        ({}, 63, "cuda", 0),
        ({}, 200, "cuda", 3),
        ({"free": 64 * MB}, 10_000, "cuda", 0),  # a container with the shared memory that Docker gives by default
        ({"free": 500 * MB}, 10_000, "cuda", 2),
        ({"free": 500 * MB, "processes": 2}, 10_000, "cuda", 1),
    ],
)
def test_workers_suit_the_machine_and_the_dataset(machine, settings, rows, device, expected):
    machine(**settings)
    assert choose_num_workers(rows, batch_size=8, bytes_per_row=7 * MB, device_type=device) == expected


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_there_are_none_where_a_script_would_be_run_anew(machine, monkeypatch, method):
    machine()
    monkeypatch.setattr(workers.multiprocessing, "get_start_method", lambda allow_none: method)
    assert choose_num_workers(10_000, 8, 7 * MB, "cuda") == 0


def test_a_machine_without_shared_memory_has_no_limit_of_it(machine, monkeypatch, tmp_path):
    machine(free=0)
    monkeypatch.setattr(workers, "_SHARED_MEMORY", tmp_path / "nowhere")
    assert choose_num_workers(10_000, 8, 7 * MB, "cuda") == 8


@pytest.fixture
def rows():
    return [
        TrainingRow(Example(SceneReference(seed, 64), Prompt.from_task("<CAPTION>"), "a cat", "", (64, 64)))
        for seed in range(4)
    ]


def test_rows_and_collator_can_be_sent_to_a_process(small, rows):
    """As where processes are spawned: on Windows and macOS, and from Python 3.14 on."""
    collate = Florence2DataCollator(small.processor)
    sent_rows, sent = pickle.loads(pickle.dumps((rows, collate)))
    a, b = collate(rows), sent(sent_rows)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_give_the_batches_of_the_main_process(small, rows, method):
    collate = Florence2DataCollator(small.processor)
    loader = DataLoader(rows, batch_size=2, collate_fn=collate, num_workers=1, multiprocessing_context=method)
    for found, expected in zip(loader, (collate(rows[:2]), collate(rows[2:])), strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in expected)
