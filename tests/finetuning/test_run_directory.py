"""Run directories: versions, checkpoints and resuming."""

import json

import pytest

from florence_lab.exceptions import TrainingError
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.run_directory import COMPLETE_MARKER, RunDirectory


def make_arguments(tmp_path, **changes):
    return SftArguments(output_dir=str(tmp_path), dataset="train.jsonl", **changes)


@pytest.fixture
def run(tmp_path):
    """A run with two complete checkpoints, an incomplete one, and a log of seven steps."""
    run = RunDirectory.create(make_arguments(tmp_path))
    for step, is_complete in ((2, True), (10, True), (12, False)):
        (run.path / f"checkpoint-{step}").mkdir()
        if is_complete:
            (run.path / f"checkpoint-{step}" / COMPLETE_MARKER).touch()
    run.log_file.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3, 9, 10, 11, 12)))
    return run


def steps_of(run):
    return [json.loads(line)["step"] for line in run.log_file.read_text().splitlines()]


def test_a_new_run_gets_the_next_version(tmp_path):
    runs = [RunDirectory.create(make_arguments(tmp_path)) for _ in range(11)]
    assert [run.version for run in runs] == list(range(11))
    assert runs[0].path.parent == tmp_path / "florence-2-nano"
    assert json.loads((runs[0].path / "args.json").read_text())["dataset"] == ["train.jsonl"]


def test_the_last_checkpoint_is_the_latest_complete_one(run):
    assert run.last_checkpoint() == run.path / "checkpoint-10"


@pytest.mark.parametrize("value", ["true", True, "{run}", "{run}/checkpoint-10"])
def test_a_run_is_resumed_from_its_last_complete_checkpoint(run, tmp_path, value):
    value = value.format(run=run.path) if isinstance(value, str) else value
    resumed = RunDirectory.resume(make_arguments(tmp_path, resume_from_checkpoint=value))
    assert (resumed.path, resumed.checkpoint) == (run.path, run.path / "checkpoint-10")
    assert not (run.path / "checkpoint-12").exists()
    assert steps_of(run) == [1, 2, 3, 9, 10]


def test_an_earlier_checkpoint_can_be_resumed(run, tmp_path):
    resumed = RunDirectory.resume(make_arguments(tmp_path, resume_from_checkpoint=str(run.path / "checkpoint-2")))
    assert resumed.checkpoint == run.path / "checkpoint-2"
    assert steps_of(run) == [1, 2]


def test_a_run_without_checkpoints_starts_again(tmp_path):
    run = RunDirectory.create(make_arguments(tmp_path))
    assert RunDirectory.resume(make_arguments(tmp_path, resume_from_checkpoint=True)).checkpoint is None
    assert not run.log_file.exists()


def test_other_arguments_are_refused(run, tmp_path):
    with pytest.raises(TrainingError, match=r"--learning_rate was None and is 0\.1; --seed was 42 and is 1"):
        RunDirectory.resume(make_arguments(tmp_path, resume_from_checkpoint=True, learning_rate=0.1, seed=1))


@pytest.mark.parametrize("value", ["elsewhere", "{run}/checkpoint-12", "{run}/checkpoint-99"])
def test_a_path_that_is_no_run_is_refused(run, tmp_path, value):
    with pytest.raises(TrainingError, match="neither a run directory nor a complete checkpoint"):
        RunDirectory.resume(make_arguments(tmp_path, resume_from_checkpoint=value.format(run=run.path)))


def test_there_must_be_a_run_to_resume(tmp_path):
    with pytest.raises(TrainingError, match="no run of florence-2-nano"):
        RunDirectory.resume(make_arguments(tmp_path, resume_from_checkpoint=True))
