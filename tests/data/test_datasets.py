"""Loading and checking several datasets."""

import pytest

from florence_lab.data.datasets import check_datasets, check_disjoint_scenes, load_examples, parse_datasets, sample_rows
from florence_lab.data.readers import READERS
from florence_lab.data.spec import DatasetSpec
from florence_lab.exceptions import DatasetError
from florence_lab.tasks import TASKS, Task, register_task


@pytest.fixture
def captions(write_rows):
    rows = [{"query": "<CAPTION>", "response": f"cat {i}", "images": ["a.png"]} for i in range(20)]
    return write_rows("captions.jsonl", *rows)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("gone.jsonl", "gone.jsonl"),
        ("gone.json", "gone.json"),
        ("coco:gone.json", "gone.json"),
        ("scenes:many", "'many'"),
        ("scenes:0", "'0'"),
        ("scenes:3?size=9", "unknown option 'size'"),
        ("hf:gone/gone?picture=1", "unknown option 'picture'"),
        ("rows.csv", r"unknown dataset 'rows.csv': .*\.jsonl or \.json, .*coco:, scenes:"),
        ("yolo:folder", "unknown dataset 'yolo:folder'"),
    ],
)
def test_a_dataset_that_cannot_be_read_is_refused_by_the_check(dataset, message):
    with pytest.raises(DatasetError, match=message):
        check_datasets([dataset])


def test_every_reader_explains_its_options():
    assert all(help_text for reader in READERS.values() for help_text in reader.options.values())


def test_datasets_are_read_in_their_order_and_sampled(captions, read):
    examples, _ = read(f"{captions}#5", "scenes:1#3")
    assert len(examples) == 8
    numbers = [int(example.target.split()[1]) for example in examples[:5]]
    assert numbers == sorted(set(numbers))
    assert all("scene" in example.source for example in examples[5:])


def test_a_sample_depends_on_the_seed_only(captions, read):
    first, again, other = (read(f"{captions}#5", seed=seed).examples for seed in (1, 1, 2))
    assert first == again != other


def test_a_sample_reads_no_other_rows(captions, validator, monkeypatch):
    read_rows = []
    reader = READERS["jsonl"]
    original = reader.__getitem__
    monkeypatch.setattr(reader, "__getitem__", lambda self, index: read_rows.append(index) or original(self, index))
    load_examples([f"{captions}#2"], validator)
    assert sorted(read_rows) == sample_rows(20, 2, 42)


def test_a_sample_larger_than_the_dataset_takes_all_rows():
    assert list(sample_rows(3, 50, 1)) == [0, 1, 2]


def test_scenes_are_held_out_for_evaluation_unless_stated():
    assert parse_datasets(["scenes:9"], "held_out") == [DatasetSpec("scenes", "9", {"split": "held_out"})]
    assert parse_datasets(["scenes:9?split=train"], "held_out") == [DatasetSpec("scenes", "9", {"split": "train"})]
    assert parse_datasets(["scenes:9", "rows.jsonl"], "train") == [
        DatasetSpec("scenes", "9"),
        DatasetSpec("jsonl", "rows.jsonl"),
    ]


def test_scenes_for_training_and_validation_must_not_overlap():
    check_disjoint_scenes(["scenes:2000"], ["scenes:200"])
    with pytest.raises(DatasetError, match=r"scenes:200\?split=train .*scenes:2000"):
        check_disjoint_scenes(["scenes:2000"], ["scenes:200?split=train"])
    with pytest.raises(DatasetError, match="held_out"):
        check_disjoint_scenes(["scenes:20?split=held_out"], ["scenes:200"])


def test_invalid_rows_can_be_made_an_error(write_rows, read):
    good = {"query": "<CAPTION>", "response": "a cat", "images": ["a.png"]}
    assert len(read(write_rows("rows.jsonl", good)).require_valid()) == 1
    with pytest.raises(DatasetError, match=r"1 invalid rows:\n1 x empty target"):
        read(write_rows("rows.jsonl", good, good | {"response": ""})).require_valid()


def test_a_registered_task_is_read_from_json_lines(write_rows, read):
    task = register_task(Task("<LOCATE_ANIMALS>", "Locate the animals.", "none", "boxes", "animals"))
    try:
        rows = [
            {"query": task.token, "response": target, "images": ["a.png"]}
            for target in ("cat<loc_0><loc_0><loc_9><loc_9>", "cat<loc_0>")
        ]
        (example,), (error,) = read(write_rows("rows.jsonl", *rows))
    finally:
        del TASKS[task.token]
    assert example.prompt.prompt == "Locate the animals."
    assert error.kind == "target does not fit the task"
