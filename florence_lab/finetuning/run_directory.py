"""TODO"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from ..exceptions import TrainingError
from .arguments import SftArguments

ARGUMENTS = "args.json"

LOG = "logging.jsonl"

COMPLETE = "complete"
"""The empty file that is written into a checkpoint when all else is."""


def last_checkpoint(run: Path) -> Path | None:
    """The latest checkpoint of a run that was written to its end."""
    whole = [path.parent for path in run.glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _run_folder(arguments: SftArguments, state: PartialState) -> tuple[Path, Path | None]:
    """Where this run is kept, the same for every process, and the checkpoint to go on from."""
    found: list[Any] = [None]
    if state.is_main_process:
        found = [_resumed_run(arguments) or (_new_run(arguments), None)]
    return broadcast_object_list(found)[0]


def _new_run(arguments: SftArguments) -> Path:
    runs = Path(arguments.output_dir).expanduser() / _name(arguments)
    number = max([-1, *(_number(path) for path in runs.glob("v*-*"))]) + 1
    run = runs / f"v{number}-{time.strftime('%Y%m%d-%H%M%S')}"
    run.mkdir(parents=True)
    (run / ARGUMENTS).write_text(json.dumps(dataclasses.asdict(arguments), indent=2) + "\n", encoding="utf-8")
    return run.resolve()


def _name(arguments: SftArguments) -> str:
    return Path(arguments.model_id_or_path).name or arguments.model_type


def _number(run: Path) -> int:
    match = re.match(r"v(\d+)-", run.name)
    return int(match[1]) if match else -1


def _resumed_run(arguments: SftArguments) -> tuple[Path, Path | None] | None:
    """The run to go on with and its checkpoint, None for its beginning; None if a new one is asked for."""
    asked = arguments.resume_from_checkpoint
    if asked.lower() in ("false", ""):
        return None
    if asked.lower() == "true":
        runs = [
            path.parent for path in (Path(arguments.output_dir).expanduser() / _name(arguments)).glob(f"*/{ARGUMENTS}")
        ]
        if not runs:
            raise TrainingError(f"there is no run of {_name(arguments)} in {arguments.output_dir} to go on with")
        run, checkpoint = max(runs, key=_number), None
    else:
        path = Path(asked).expanduser()
        run, checkpoint = (path.parent, path) if (path.parent / ARGUMENTS).exists() else (path, None)
        if not (run / ARGUMENTS).exists() or (checkpoint and not (checkpoint / COMPLETE).exists()):
            raise TrainingError(f"{asked} is neither the folder of a run nor a whole checkpoint of one")
    _compare(arguments, run)
    for half in run.glob("checkpoint-*"):
        if not (half / COMPLETE).exists():
            shutil.rmtree(half)  # it was being written when the run was killed
    checkpoint = checkpoint or last_checkpoint(run)
    _forget_after(run / LOG, int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
    return run.resolve(), checkpoint.resolve() if checkpoint else None


def _compare(arguments: SftArguments, run: Path) -> None:
    """A run goes on as it began, or it would not end where it would have ended."""
    then = json.loads((run / ARGUMENTS).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(dataclasses.asdict(arguments)))
    different = [n for n in now if n != "resume_from_checkpoint" and now[n] != then.get(n, now[n])]
    if different:
        said = "; ".join(f"--{name} was {then[name]} and is {now[name]}" for name in different)
        raise TrainingError(f"{run} was begun with other arguments: {said}")


def _forget_after(log: Path, step: int) -> None:
    """What the log says of steps that are done again."""
    if log.exists():
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
