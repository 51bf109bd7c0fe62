"""The directory of a fine-tuning run: its arguments, log and checkpoints."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from ..exceptions import TrainingError
from .arguments import SftArguments

ARGUMENTS_FILE = "args.json"
LOG_FILE = "logging.jsonl"
BAD_ROWS_FILE = "bad_rows.txt"

COMPLETE_MARKER = "complete"
"""The empty file that is written into a checkpoint last. A checkpoint without it was interrupted."""


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
            TrainingError: if the run to resume does not exist or has other arguments.
        """
        shared: list[RunDirectory | None] = [None]
        if state.is_main_process:
            is_new = arguments.resume_from_checkpoint.lower() in ("false", "")
            shared = [cls.create(arguments) if is_new else cls.resume(arguments)]
        (run,) = broadcast_object_list(shared)
        assert isinstance(run, RunDirectory)
        return run

    @classmethod
    def create(cls, arguments: SftArguments) -> RunDirectory:
        """Create the directory of a new run, with the next version number, and write its arguments."""
        parent = _parent(arguments)
        version = max([-1, *(cls(path).version for path in parent.glob("v*-*"))]) + 1
        path = parent / f"v{version}-{time.strftime('%Y%m%d-%H%M%S')}"
        path.mkdir(parents=True)
        text = json.dumps(dataclasses.asdict(arguments), indent=2) + "\n"
        (path / ARGUMENTS_FILE).write_text(text, encoding="utf-8")
        return cls(path.resolve())

    @classmethod
    def resume(cls, arguments: SftArguments) -> RunDirectory:
        """Open the run that `resume_from_checkpoint` names, and remove incomplete checkpoints and later log lines from it.

        Raises:
            TrainingError: if there is no such run, or if it was started with other arguments.
        """
        run = cls._find(arguments)
        run.check_same_arguments(arguments)
        for path in run.path.glob("checkpoint-*"):
            if not (path / COMPLETE_MARKER).exists():
                shutil.rmtree(path)
        checkpoint = run.checkpoint or run.last_checkpoint()
        run.truncate_log(_step(checkpoint) if checkpoint else 0)
        return cls(run.path.resolve(), checkpoint.resolve() if checkpoint else None)

    @classmethod
    def _find(cls, arguments: SftArguments) -> RunDirectory:
        value = arguments.resume_from_checkpoint
        if value.lower() == "true":
            runs = [cls(path.parent) for path in _parent(arguments).glob(f"*/{ARGUMENTS_FILE}")]
            if not runs:
                raise TrainingError(f"no run of {_model_name(arguments)} in {arguments.output_dir} to resume")
            return max(runs, key=lambda run: run.version)
        path = Path(value).expanduser()
        run = cls(path.parent, path) if (path.parent / ARGUMENTS_FILE).exists() else cls(path)
        is_run = (run.path / ARGUMENTS_FILE).exists()
        if not is_run or (run.checkpoint and not (run.checkpoint / COMPLETE_MARKER).exists()):
            raise TrainingError(
                f"--resume_from_checkpoint {value}: neither a run directory nor a complete checkpoint of one"
            )
        return run

    @property
    def version(self) -> int:
        """The N of `v<N>-<time>`; -1 for a directory with another name."""
        match = re.match(r"v(\d+)-", self.path.name)
        return int(match[1]) if match else -1

    @property
    def log_file(self) -> Path:
        """The log, one JSON object a line."""
        return self.path / LOG_FILE

    def last_checkpoint(self) -> Path | None:
        """Return the latest complete checkpoint; None if there is none."""
        complete = [path.parent for path in self.path.glob(f"checkpoint-*/{COMPLETE_MARKER}")]
        return max(complete, key=_step, default=None)

    def check_same_arguments(self, arguments: SftArguments) -> None:
        """Verify that the run was started with the same arguments, since it would end differently with others.

        Raises:
            TrainingError: if an argument differs.
        """
        before = json.loads((self.path / ARGUMENTS_FILE).read_text(encoding="utf-8"))
        now = json.loads(json.dumps(dataclasses.asdict(arguments)))
        changed = [
            f"--{name} was {before[name]} and is {value}"
            for name, value in now.items()
            if name != "resume_from_checkpoint" and value != before.get(name, value)
        ]
        if changed:
            raise TrainingError(f"{self.path} was started with other arguments: {'; '.join(changed)}")

    def truncate_log(self, step: int) -> None:
        """Remove the log lines after a step, which is repeated."""
        if self.log_file.exists():
            lines = self.log_file.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            self.log_file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _parent(arguments: SftArguments) -> Path:
    """The folder of all runs of a model."""
    return Path(arguments.output_dir).expanduser() / _model_name(arguments)


def _model_name(arguments: SftArguments) -> str:
    return Path(arguments.model_id_or_path).name or arguments.model_type


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
