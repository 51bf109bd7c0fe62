"""Runs that have ended and are resumed: they return their checkpoint."""

import json
from pathlib import Path

import pytest

from florence_lab.exceptions import TrainingError
from florence_lab.finetuning import run as run_module
from florence_lab.finetuning.run import sft
from florence_lab.finetuning.trainer import Florence2Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def snapshot(folder):
    """Every file with its size and time of change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"max_steps": 1, "batch_size": 1}, 1),  # within an epoch of 8 steps
        pytest.param({"max_steps": 3, "batch_size": 1}, 3, marks=pytest.mark.slow),
        pytest.param({"max_steps": -1, "num_train_epochs": 0.5, "eval_steps": 100}, 2, marks=pytest.mark.slow),
        pytest.param({"max_steps": -1, "num_train_epochs": 2, "batch_size": 8}, 2, marks=pytest.mark.slow),
        # beyond an epoch, and not a multiple of eval_steps
        pytest.param({"max_steps": 3, "batch_size": 4, "eval_steps": 2}, 3, marks=pytest.mark.slow),
    ],
)
def test_a_finished_run_stays_as_it_is(arguments, changes, step, monkeypatch):
    first = sft(arguments(**changes))
    assert first.name == f"checkpoint-{step}"
    before = snapshot(first.parent)
    monkeypatch.setattr(run_module, "load_checkpoint", None)  # nothing is loaded
    for _ in range(2):
        assert sft(arguments(**changes, resume_from_checkpoint=True)) == first
    assert sft(arguments(**changes, resume_from_checkpoint=str(first))) == first
    assert snapshot(first.parent) == before


@pytest.mark.slow
def test_a_run_that_stopped_early_returns_its_best_checkpoint(arguments, rows_folder, monkeypatch):
    values = iter([0.9, 0.2, 0.1, 0.1])
    monkeypatch.setattr(Florence2Trainer, "compute_generation_metrics", lambda self: {"OD/mAP@0.5": next(values)})
    changes = {
        "val_dataset": str(rows_folder / "val.jsonl"),
        "metric_for_best_model": "OD/mAP@0.5",
        "max_steps": 9,
        "early_stopping_patience": 2,
        "save_total_limit": 1,
    }
    best = sft(arguments(**changes))
    before = snapshot(best.parent)
    assert best.name == "checkpoint-1"
    assert sft(arguments(**changes, resume_from_checkpoint=True)) == best
    assert snapshot(best.parent) == before


@pytest.mark.slow
def test_early_stopping_counts_on_after_an_interruption(arguments, rows_folder, interrupt_run, monkeypatch):
    """Otherwise the run would stop later than one that was not interrupted."""

    values = iter([0.9, 0.2, 0.1, 0.1, 0.1])
    monkeypatch.setattr(Florence2Trainer, "compute_generation_metrics", lambda self: {"OD/mAP@0.5": next(values)})
    changes = {
        "val_dataset": str(rows_folder / "val.jsonl"),
        "metric_for_best_model": "OD/mAP@0.5",
        "max_steps": 9,
        "early_stopping_patience": 2,
    }
    interrupt_run(arguments(**changes), 2)
    best = sft(arguments(**changes, resume_from_checkpoint=True))
    assert best.name == "checkpoint-1"
    assert max(path.name for path in best.parent.glob("checkpoint-*")) == "checkpoint-3"


@pytest.mark.slow
def test_a_run_that_was_killed_at_its_last_checkpoint_is_continued(arguments):
    first = sft(arguments(max_steps=2))
    (first / "complete").unlink()
    resumed = sft(arguments(max_steps=2, resume_from_checkpoint=True))
    assert (resumed, (resumed / "complete").exists()) == (first, True)


def test_a_finished_run_with_other_arguments_is_refused(arguments):
    sft(arguments(max_steps=1))
    with pytest.raises(TrainingError, match=r"--max_steps was 1 and is 2.*starts a new run"):
        sft(arguments(max_steps=2, resume_from_checkpoint=True))


@pytest.mark.slow
def test_a_damaged_result_is_not_returned(arguments):
    first = sft(arguments(max_steps=1))
    (first / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"adapter_model\.safetensors is damaged"):
        sft(arguments(max_steps=1, resume_from_checkpoint=True))


@pytest.mark.slow
def test_what_others_put_beside_the_checkpoints_stays(arguments, interrupt_run):
    """A merged adapter is written to `checkpoint-<step>-merged` by default."""

    interrupt_run(arguments(max_steps=3), 1)
    (run,) = Path(arguments().output_dir).glob("tiny/v0-*")
    for name in ("checkpoint-1-merged", "checkpoint-old"):
        (run / name).mkdir()
        (run / name / "complete").touch()
        (run / name / "mine.txt").write_text("mine")
    last = sft(arguments(max_steps=3, save_total_limit=2, resume_from_checkpoint=True))
    assert last.name == "checkpoint-3"
    assert json.loads((last / "trainer_state.json").read_text())["global_step"] == 3
    for name in ("checkpoint-1-merged", "checkpoint-old"):
        assert (run / name / "mine.txt").read_text() == "mine"
