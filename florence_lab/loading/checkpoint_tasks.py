"""The tasks of a checkpoint: a file beside the weights that lists those of its training data that are not published."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..exceptions import ArgumentError, CheckpointError, shorten, warn
from ..output_files import write_text
from ..tasks import Task, get_task, is_published, register_task
from .files import read_json

TASKS_FILE = "florence_lab_tasks.json"
_ATTRIBUTE = "florence_lab_tasks"


def model_tasks(model: Any) -> tuple[Task, ...]:
    """Return the tasks of a model that are not published: those of the file, and those that it was fine-tuned on."""
    tasks: tuple[Task, ...] = getattr(model, _ATTRIBUTE, ())
    return tasks


def add_model_tasks(model: Any, tasks: Iterable[Task]) -> None:
    """Let a model have further tasks, in place of others of their tokens. Published tasks are left out."""
    by_token = {task.token: task for task in (*model_tasks(model), *tasks) if not is_published(task)}
    setattr(model, _ATTRIBUTE, tuple(by_token.values()))


def write_tasks(folder: Path, tasks: Iterable[Task]) -> None:
    """Write the file of tasks into a folder, unless there are none."""
    written = [{name: value for name, value in asdict(task).items() if value is not None} for task in tasks]
    if written:
        write_text(folder / TASKS_FILE, json.dumps({"tasks": written}, indent=2, ensure_ascii=False) + "\n")


def read_tasks(folder: Path) -> list[Task]:
    """Return the tasks in the file of a folder; none if there is no file.

    Raises:
        CheckpointError: if the file is damaged.
    """
    path = folder / TASKS_FILE
    if not path.is_file():
        return []
    entries = read_json(path).get("tasks")
    if not isinstance(entries, list):
        raise CheckpointError(f"{path} is invalid: tasks must be a list, got {shorten(entries)}")
    return [_parse_task(path, entry) for entry in entries]


def register_tasks(folder: Path) -> list[Task]:
    """Register the tasks of a checkpoint and return them.

    A task that is registered keeps its token: it may be the user's own. A warning says so if its prompts or results differ.

    Raises:
        CheckpointError: as `read_tasks`.
    """
    tasks = read_tasks(folder)
    for task in tasks:
        try:
            register_task(task)
        except ArgumentError:
            known = get_task(task.token)
            if (known.prompt, known.input, known.result) != (task.prompt, task.input, task.result):
                warn(
                    f"{folder} was trained with the task {task}, but {known} is registered, which is used; call "
                    "florence_lab.register_task(task, replace=True) to use the other"
                )
    return tasks


def _parse_task(path: Path, entry: Any) -> Task:
    names = {field.name for field in fields(Task)}
    if not isinstance(entry, dict) or not entry.get("token") or entry.keys() - names:
        raise CheckpointError(
            f"{path} is invalid: expected a task with a token and {', '.join(names)}, got {shorten(entry)}"
        )
    try:
        return Task(**entry)
    except ArgumentError as error:
        raise CheckpointError(f"{path} is invalid: {error}") from error
