"""Run directories: versions, checkpoints and resuming."""

import json
import time
from pathlib import Path

import pytest

from florence_lab.exceptions import FlorenceLabWarning, TrainingError
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.checkpoint_files import COMPLETE_MARKER
from florence_lab.finetuning.run_directory import RunDirectory


def make_arguments(tmp_path, **changes):
    return SftArguments(output_dir=str(tmp_path), dataset="train.jsonl", **changes)


@pytest.fixture
def run(tmp_path, write_checkpoint):
    """A run with two complete checkpoints, an incomplete one, and a log of seven steps."""
    run = RunDirectory.create(make_arguments(tmp_path))
    for step in (2, 10, 12):
        write_checkpoint(run.path, step)
    (run.path / "checkpoint-12" / COMPLETE_MARKER).unlink()
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


def test_runs_that_start_in_the_same_second_have_their_own_directories(tmp_path, monkeypatch):
    """Both look for the next version before either has created its directory."""
    monkeypatch.setattr(time, "strftime", lambda _: "20260101-000000")
    first = RunDirectory.create(make_arguments(tmp_path))
    glob, calls = Path.glob, []

    def look_too_early(self, pattern):
        calls.append(pattern)
        return iter(()) if len(calls) == 1 else glob(self, pattern)

    monkeypatch.setattr(Path, "glob", look_too_early)
    second = RunDirectory.create(make_arguments(tmp_path))
    assert (first.version, second.version) == (0, 1)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"model_type": "org/model"}, "model"),
        ({"model_id_or_path": "/models/mine"}, "mine"),
        ({"model_id_or_path": "{cwd}/a/.."}, "cwd"),
        ({"model_type": "/models/mine"}, "mine"),
    ],
)
def test_runs_stay_in_the_output_folder(tmp_path, source, name):
    (tmp_path / "cwd" / "a").mkdir(parents=True)
    source = {key: value.format(cwd=tmp_path / "cwd") for key, value in source.items()}
    run = RunDirectory.create(make_arguments(tmp_path / "out", **source))
    assert run.path.parent == tmp_path / "out" / name


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(run, tmp_path):
    (run.path / "checkpoint-10" / "adapter_model.safetensors").write_bytes(b"half")
    arguments = make_arguments(tmp_path, resume_from_checkpoint=True)
    with pytest.warns(FlorenceLabWarning, match=r"checkpoint-10/adapter_model\.safetensors is damaged"):
        resumed = RunDirectory.resume(arguments)
    assert resumed.checkpoint == run.path / "checkpoint-2"
    assert sorted(path.name for path in run.path.glob("*checkpoint-*")) == ["checkpoint-2", "damaged-checkpoint-10"]
    assert steps_of(run) == [1, 2]


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_stays(run, tmp_path):
    for step in (2, 10):
        (run.path / f"checkpoint-{step}" / "optimizer.pt").unlink()
    with (
        pytest.warns(FlorenceLabWarning, match="checkpoint-10"),
        pytest.raises(TrainingError, match=r"checkpoint-2/optimizer\.pt is missing"),
    ):
        RunDirectory.resume(make_arguments(tmp_path, resume_from_checkpoint=True))
    assert len(list(run.path.glob("checkpoint-*"))) == 3


def test_a_damaged_checkpoint_that_is_named_is_refused(run, tmp_path):
    (run.path / "checkpoint-10" / "trainer_state.json").write_text("{")
    arguments = make_arguments(tmp_path, resume_from_checkpoint=str(run.path / "checkpoint-10"))
    with pytest.raises(TrainingError, match=r"checkpoint-10/trainer_state\.json is damaged"):
        RunDirectory.resume(arguments)


@pytest.mark.parametrize(
    "tail", ['{"step": 11, "lo', "\0\0\0\0", '{"step": 10}{"step": 11}\n', "[1]\n", '{"loss": 1}\n', "\xff\n"]
)
def test_what_a_kill_left_in_the_log_is_dropped(run, tmp_path, tail):
    with run.log_file.open("ab") as file:
        file.write(tail.encode("latin-1"))
    RunDirectory.resume(make_arguments(tmp_path, resume_from_checkpoint=True))
    assert steps_of(run) == [1, 2, 3, 9, 10]


@pytest.mark.parametrize("text", ["", "{", "[1]", "5", "[" * 100_000, "\0"])
def test_damaged_arguments_are_named(run, tmp_path, text):
    (run.path / "args.json").write_text(text)
    with pytest.raises(TrainingError, match=r"args\.json cannot be read"):
        RunDirectory.resume(make_arguments(tmp_path, resume_from_checkpoint=True))


@pytest.mark.parametrize("name", ["checkpoint-old", "checkpoint-11-merged", "checkpoint-", "checkpoint-1e3"])
def test_other_folders_are_no_checkpoints(run, tmp_path, name):
    (run.path / name).mkdir()
    (run.path / name / COMPLETE_MARKER).touch()
    resumed = RunDirectory.resume(make_arguments(tmp_path, resume_from_checkpoint=True))
    assert resumed.checkpoint == run.path / "checkpoint-10"
    run.remove_old_checkpoints(1, None)
    assert (run.path / name).is_dir()


@pytest.mark.parametrize(
    ("max_checkpoints", "best", "kept"),
    [(1, None, [6]), (1, 2, [2, 6]), (2, None, [4, 6]), (2, 2, [2, 6]), (3, 2, [2, 4, 6]), (9, None, [1, 2, 4, 6])],
)
def test_the_latest_and_the_best_checkpoints_are_kept(tmp_path, write_checkpoint, max_checkpoints, best, kept):
    run = RunDirectory(tmp_path)
    for step in (1, 2, 4, 6):
        write_checkpoint(tmp_path, step)
    run.remove_old_checkpoints(max_checkpoints, best and str(tmp_path / f"checkpoint-{best}"))
    assert [path.name for path in run.complete_checkpoints()] == [f"checkpoint-{step}" for step in kept]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"max_steps": 20}, None),
        ({"max_steps": 10}, 10),
        ({"max_steps": 8}, 10),
        ({"max_steps": 20, "stateful_callbacks": {"TrainerControl": {"args": {"should_training_stop": True}}}}, 10),
        ({"max_steps": 10, "best_model_checkpoint": "/moved/run/checkpoint-2"}, 2),
        ({"max_steps": 10, "best_model_checkpoint": "/moved/run/checkpoint-3"}, 10),
    ],
)
def test_a_run_is_finished_at_its_last_step(tmp_path, write_checkpoint, state, expected):
    write_checkpoint(tmp_path, 2)
    run = RunDirectory(tmp_path, write_checkpoint(tmp_path, 10, **state))
    assert run.finished_checkpoint() == (expected and tmp_path / f"checkpoint-{expected}")


def test_what_changes_nothing_in_the_result_may_change_when_a_run_is_resumed(tmp_path):
    """Runs of earlier releases stored 1 worker, which was the default."""
    run = RunDirectory.create(make_arguments(tmp_path, dataloader_num_workers=1, cache_image_features=False))
    resumed = make_arguments(tmp_path, resume_from_checkpoint=True, feature_dir=str(tmp_path))
    assert RunDirectory.resume(resumed).path == run.path
