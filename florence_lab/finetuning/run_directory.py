"""The directory of a fine-tuning run: its arguments, log and checkpoints."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from ..exceptions import TrainingError, shorten, summarize_error, warn
from ..output_files import write_text
from ..visualization.curves import read_log
from .arguments import SftArguments
from .checkpoint_files import COMPLETE_MARKER, check_process_count, read_trainer_state, step_of, verify_checkpoint

ARGUMENTS_FILE = "args.json"
LOG_FILE = "logging.jsonl"
BAD_ROWS_FILE = "bad_rows.txt"

_DECIDED = "cache_image_features"  # without a choice a run decides, and keeps to that when it is resumed
_WITHOUT_EFFECT = ("resume_from_checkpoint", "dataloader_num_workers", "feature_dir")  # on what a run ends with


@dataclass(frozen=True)
class RunDirectory:
    """The directory of a run.

    Attributes:
        path: absolute path, `output_dir/model_type/v<N>-<time>`.
        checkpoint: the checkpoint to resume from; None to start from the beginning.
    """

    path: Path
    checkpoint: Path | None = None

    @classmethod
    def open(cls, arguments: SftArguments, state: PartialState) -> RunDirectory:
        """Create a run, or open the one to resume. The main process decides, the others receive its answer.

        Raises:
            TrainingError: if the run to resume does not exist, is damaged, or has other arguments.
        """
        shared: list[RunDirectory | TrainingError | None] = [None]
        if state.is_main_process:
            try:
                shared = [
                    cls.resume(arguments, state.num_processes) if is_resumed(arguments) else cls.create(arguments)
                ]
            except TrainingError as error:
                shared = [error]  # the other processes would wait for ever
        (run,) = broadcast_object_list(shared)
        if isinstance(run, TrainingError):
            raise run
        assert isinstance(run, RunDirectory)
        return run

    @classmethod
    def create(cls, arguments: SftArguments) -> RunDirectory:
        """Create the directory of a new run, with the next version number, and write its arguments.

        Raises:
            TrainingError: if the arguments cannot be written, as on a full disk.
        """
        parent = runs_folder(arguments)
        while True:
            version = max([-1, *(cls(path).version for path in parent.glob("v*-*"))]) + 1
            path = parent / f"v{version}-{time.strftime('%Y%m%d-%H%M%S')}"
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:  # of a run that started in the same second
                if not path.is_dir():
                    raise
        try:
            write_text(path / ARGUMENTS_FILE, json.dumps(_to_json(arguments), indent=2) + "\n")
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise TrainingError(f"{path} cannot be written: {summarize_error(error)}") from error
        return cls(path.resolve())

    @classmethod
    def resume(cls, arguments: SftArguments, num_processes: int = 1) -> RunDirectory:
        """Open the run that `resume_from_checkpoint` names.

        Of a run that is not finished, incomplete checkpoints and later log lines are removed. If its last checkpoint is
        damaged, it is renamed, and the previous one is chosen. A finished run stays as it is.

        Args:
            arguments: the arguments of the run.
            num_processes: number of processes of training.

        Raises:
            TrainingError: if there is no such run, if it was started with other arguments, or if the named checkpoint, or
                all of its checkpoints, are damaged.
        """
        run = cls._find(arguments)
        run = cls(run.path.resolve(), run.checkpoint.resolve() if run.checkpoint else None)
        run.check_same_arguments(arguments)
        checkpoint, damaged = run._choose_checkpoint()
        chosen = cls(run.path, checkpoint)
        if finished := chosen.finished_checkpoint():
            verify_checkpoint(finished)
        else:
            chosen._clean(damaged)
            if checkpoint:
                check_process_count(checkpoint, num_processes)
        return chosen

    @classmethod
    def _find(cls, arguments: SftArguments) -> RunDirectory:
        value = arguments.resume_from_checkpoint
        if value.lower() == "true":
            runs = [cls(path.parent) for path in runs_folder(arguments).glob(f"*/{ARGUMENTS_FILE}")]
            if not runs:
                raise TrainingError(
                    f"no run of {_model_name(arguments)} in {arguments.output_dir} to resume; "
                    "--resume_from_checkpoint false starts one"
                )
            return max(runs, key=lambda run: (run.version, run.path.name))
        path = Path(value).expanduser()
        run = cls(path.parent, path) if (path.parent / ARGUMENTS_FILE).exists() else cls(path)
        is_run = (run.path / ARGUMENTS_FILE).exists()
        is_complete = run.checkpoint is None or run.checkpoint.resolve() in run.complete_checkpoints()
        if not is_run or not is_complete:
            raise TrainingError(
                f"--resume_from_checkpoint {shorten(value, 300)}: neither a run directory nor a complete checkpoint of one"
            )
        return run

    def _choose_checkpoint(self) -> tuple[Path | None, list[Path]]:
        """Return the checkpoint to resume from, and the damaged ones after it."""
        damaged: list[Path] = []
        candidates = [self.checkpoint] if self.checkpoint else self.complete_checkpoints()[::-1]
        for path in candidates:
            try:
                verify_checkpoint(path)
            except TrainingError as error:
                if path == candidates[-1]:
                    raise
                warn(f"{error}; the run continues from the checkpoint before it")
                damaged.append(path)
            else:
                return path, damaged
        return None, damaged

    def _clean(self, damaged: Sequence[Path]) -> None:
        """Rename damaged checkpoints, and remove incomplete ones and the log lines after `checkpoint`."""
        for path in damaged:
            target = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(target, ignore_errors=True)
            path.rename(target)
        for path in self._checkpoint_folders():
            if not (path / COMPLETE_MARKER).exists():
                shutil.rmtree(path)
        self.truncate_log(step_of(self.checkpoint) if self.checkpoint else 0)

    @property
    def version(self) -> int:
        """The N of `v<N>-<time>`; -1 for a directory with another name."""
        match = re.match(r"v(\d+)-", self.path.name)
        return int(match[1]) if match else -1

    @property
    def log_file(self) -> Path:
        """The log, one JSON object a line."""
        return self.path / LOG_FILE

    def _checkpoint_folders(self) -> list[Path]:
        """Folders named `checkpoint-<step>`, by step. Others, as of a merged adapter, are not the run's."""
        named = [
            path for path in self.path.resolve().glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)
        ]
        return sorted((path for path in named if path.is_dir()), key=step_of)

    def complete_checkpoints(self) -> list[Path]:
        """Return the complete checkpoints, the latest last."""
        return [path for path in self._checkpoint_folders() if (path / COMPLETE_MARKER).is_file()]

    def last_checkpoint(self) -> Path | None:
        """Return the latest complete checkpoint; None if there is none."""
        return next(reversed(self.complete_checkpoints()), None)

    def finished_checkpoint(self) -> Path | None:
        """Return the result of a run whose `checkpoint` is that of its last step, else None.

        The result is the best checkpoint, if the run was validated and kept it, or the last.
        """
        if self.checkpoint is None:
            return None
        state = read_trainer_state(self.checkpoint)
        has_stopped = state["stateful_callbacks"].get("TrainerControl", {}).get("args", {}).get("should_training_stop")
        if not has_stopped and not 0 < state["max_steps"] <= state["global_step"]:
            return None
        best = self.path / Path(state["best_model_checkpoint"] or self.checkpoint).name  # the run may have been moved
        return best if best in self.complete_checkpoints() else self.checkpoint

    def remove_old_checkpoints(self, max_checkpoints: int, best: str | None) -> None:
        """Remove all complete checkpoints but the latest `max_checkpoints` and the best."""
        checkpoints = self.complete_checkpoints()
        kept = [path for path in checkpoints if best and path.name == Path(best).name]
        for path in reversed(checkpoints):
            if path not in kept and (len(kept) < max_checkpoints or path == checkpoints[-1]):
                kept.append(path)
        for path in checkpoints:
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def check_same_arguments(self, arguments: SftArguments) -> None:
        """Verify that the run was started with the same arguments, since it would end differently with others.

        Raises:
            TrainingError: if an argument differs, or if the file with the arguments is damaged.
        """
        path = self.path / ARGUMENTS_FILE
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(before, dict):
                raise ValueError(f"a JSON object is expected, got {shorten(before)}")
        except (OSError, ValueError, RecursionError) as error:
            raise TrainingError(
                f"{path} cannot be read, so the run cannot be resumed: {summarize_error(error)}"
            ) from error
        changed = [
            f"--{name} was {before[name]} and is {value}"
            for name, value in _to_json(arguments).items()
            if name not in _WITHOUT_EFFECT
            and value != before.get(name, value)
            and not (name == _DECIDED and value is None)
        ]
        if changed:
            raise TrainingError(
                f"{self.path} was started with other arguments: {'; '.join(changed)}. "
                "--resume_from_checkpoint false starts a new run"
            )

    def with_decisions(self, arguments: SftArguments) -> SftArguments:
        """Return the arguments of this run, which is resumed, with what it decided when it was started."""
        stored = json.loads((self.path / ARGUMENTS_FILE).read_text(encoding="utf-8"))
        return dataclasses.replace(arguments, **{_DECIDED: stored.get(_DECIDED)})

    def truncate_log(self, step: int) -> None:
        """Remove the log lines after a step, which is repeated, and what a kill left of a line."""
        if self.log_file.exists():
            kept = [entry for entry in read_log(self.log_file) if entry["step"] <= step]
            write_text(self.log_file, "".join(json.dumps(entry) + "\n" for entry in kept))


def is_resumed(arguments: SftArguments) -> bool:
    """Return whether the arguments resume a run."""
    return arguments.resume_from_checkpoint.lower() not in ("false", "")


def _to_json(arguments: SftArguments) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(
        json.dumps(dataclasses.asdict(arguments), default=str)
    )  # paths are written as text
    return values


def runs_folder(arguments: SftArguments) -> Path:
    """Return the folder of all runs of a model, `output_dir/model_type`."""
    return Path(arguments.output_dir).expanduser() / _model_name(arguments)


def _model_name(arguments: SftArguments) -> str:
    path = Path(arguments.model_id_or_path or arguments.model_type)
    return path.name if path.name not in ("", "..") else path.resolve().name or "model"
