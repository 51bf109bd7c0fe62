"""Loading and checking several datasets."""

from pathlib import Path

import pytest

from florence_lab.data.datasets import check_datasets, check_disjoint_scenes, load_examples, parse_datasets, sample_rows
from florence_lab.data.readers import READERS
from florence_lab.data.spec import DatasetSpec
from florence_lab.data.validation import RowValidator
from florence_lab.evaluation import predict_dataset
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
        ("rows.xyz", r"unknown dataset .rows.xyz.: .*\.jsonl.*coco:.*scenes:"),
        ("voodoo:folder", "unknown dataset 'voodoo:folder'"),
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


GOOD = {"query": "<CAPTION>", "response": "a cat", "images": ["a.png"]}
BAD = [
    GOOD | {"query": None},
    GOOD | {"query": 5},
    GOOD | {"query": "is this <image> good"},
    GOOD | {"query": "half \ud800"},
    GOOD | {"response": {"a": 1}},
    GOOD | {"response": True},
    GOOD | {"response": ["a", 5]},
    GOOD | {"response": "half \ud800"},
    GOOD | {"query": "<OD>", "response": "sheep 10 20 30 40"},
    GOOD | {"query": "<OD>", "response": "sheep<loc_0010><loc_2><loc_3><loc_4>"},
    GOOD | {"images": ["~nouser/x"]},
    GOOD | {"images": 5},
    GOOD | {"images": None},
    GOOD | {"objects": 5},
    GOOD | {"objects": ["a"]},
    GOOD | {"objects": {"a": 1}},
    GOOD | {"query": "w " * 3000},
]


def test_every_fault_names_its_row_and_can_be_skipped(write_rows, tiny):
    name = write_rows("rows.jsonl", GOOD, *BAD, GOOD)
    validator = RowValidator.for_model(tiny.model, tiny.processor)
    examples, errors = load_examples(name, validator, skip_bad_rows=True)
    assert [example.source for example in examples] == [f"{name}, row 1", f"{name}, row {len(BAD) + 2}"]
    assert [error.source for error in errors] == [f"{name}, row {i}" for i in range(2, len(BAD) + 2)]


def test_a_prediction_of_a_dataset_names_the_invalid_row_before_the_model_runs(write_rows, tiny, tmp_path):
    name = write_rows("rows.jsonl", GOOD, GOOD | {"query": "w " * 3000})
    with pytest.raises(DatasetError, match=r"row 2: query too long: 3002 tokens"):
        predict_dataset(tiny, [name], tmp_path / "answers")
    assert not (tmp_path / "answers" / "answers.jsonl").exists()


def test_invalid_rows_can_be_made_an_error(write_rows, read):
    assert len(read(write_rows("rows.jsonl", GOOD)).require_valid()) == 1
    with pytest.raises(DatasetError, match=r"1 invalid rows:\n1 x invalid query"):
        read(write_rows("rows.jsonl", GOOD, GOOD | {"query": 5})).require_valid()


def test_an_empty_answer_is_a_target(write_rows, read):
    rows = [
        {"query": task, "response": empty, "images": ["a.png"]}
        for task in ("<OD>", "<CAPTION>")
        for empty in ("", None)
    ]
    examples = read(write_rows("rows.jsonl", *rows)).require_valid()
    assert [example.target for example in examples] == [""] * 4
    assert len(examples[0].ground_truth) == 0
    assert examples[2].ground_truth.text == ""


@pytest.mark.parametrize("lines", [[], ["", "  ", ""]])
def test_a_dataset_without_rows_is_an_error(write_rows, read, lines):
    name = write_rows("rows.jsonl", *lines)
    good = write_rows("good.jsonl", GOOD)
    with pytest.raises(DatasetError, match=r"rows\.jsonl (has no rows|is empty)"):
        read(good, name)


def test_a_dataset_without_valid_rows_is_an_error_if_bad_rows_are_skipped(write_rows, validator):
    names = [write_rows("good.jsonl", GOOD), write_rows("rows.jsonl", GOOD | {"query": 5})]
    assert len(load_examples(names, validator).errors) == 1
    with pytest.raises(DatasetError, match=r"rows.jsonl has no valid rows:\n1 x invalid query"):
        load_examples(names, validator, skip_bad_rows=True)


def test_what_a_reader_does_not_foresee_is_a_row_error(write_rows, read, monkeypatch):
    def fail(self, index):
        raise KeyError("width")

    name = write_rows("rows.jsonl", GOOD)
    monkeypatch.setattr(READERS["jsonl"], "__getitem__", fail)
    examples, (error,) = read(name)
    assert examples == []
    assert str(error) == f"{name}, row 1: cannot be read: KeyError: 'width'"


def test_a_reader_that_cannot_count_its_rows_is_a_dataset_error(write_rows, read, monkeypatch):
    def fail(self):
        raise KeyError("width")

    name = write_rows("rows.jsonl", GOOD)
    monkeypatch.setattr(READERS["jsonl"], "__len__", fail)
    with pytest.raises(DatasetError, match=r"rows\.jsonl cannot be read: KeyError"):
        read(name)


@pytest.mark.parametrize("one", [str, Path, lambda name: [name], lambda name: (Path(name),), DatasetSpec.parse])
def test_a_dataset_is_a_name_a_path_or_a_spec_and_may_stand_alone(write_rows, validator, one):
    datasets = one(write_rows("rows.jsonl", GOOD))
    check_datasets(datasets)
    check_disjoint_scenes(datasets, datasets)
    assert len(load_examples(datasets, validator).examples) == 1


@pytest.mark.parametrize("dataset", ["", " ", b"rows.jsonl", 5, None, ["rows.jsonl"], object()])
@pytest.mark.parametrize("in_a_list", [True, False])
def test_what_is_no_name_of_a_dataset_is_refused(dataset, in_a_list):
    if isinstance(dataset, list) and not in_a_list:
        return
    with pytest.raises(DatasetError):
        parse_datasets([dataset] if in_a_list else dataset)


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
