"""Access to the process-wide state of transformers: one lock around loading and saving, and its output."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any

from transformers.utils import logging

from ..exceptions import CheckpointError, summarize_error

LIBRARY_LOCK = RLock()
"""Held while a model is loaded or saved.

transformers replaces process-wide state meanwhile (torch's default dtype, `PreTrainedModel.tie_weights`, the level of its logs) and
restores what it found. Two threads at once would restore the replacement of the other, and break all later loading.
"""


@contextmanager
def suppress_library_output() -> Iterator[None]:
    """Suppress the reports, progress bars and FutureWarnings of transformers; errors of this package state the same.

    `LIBRARY_LOCK` is held meanwhile.
    """
    with LIBRARY_LOCK:
        verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                yield
        finally:
            logging.set_verbosity(verbosity)
            if has_bars:
                logging.enable_progress_bar()


def save_model(model: Any, processor: Any, folder: str | Path) -> None:
    """Save a model or an adapter with its processor in transformers' layout, whole or not at all.

    The files are written into a temporary folder inside `folder` first. Other files of an existing folder stay; those of the same
    names, and weights in other shards, are replaced.

    Args:
        model: a model of transformers or PEFT.
        processor: its processor, or None.
        folder: the folder. It is created.

    Raises:
        CheckpointError: if the folder cannot be written, as on a full disk; it is then as it was before.
    """
    folder = Path(folder)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
        with LIBRARY_LOCK:
            model.save_pretrained(temporary)
            if processor is not None:
                processor.save_pretrained(temporary)
        _move_files(temporary, folder)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            for path in created:
                path.rmdir()
        if not isinstance(error, Exception):  # KeyboardInterrupt
            raise
        # SafetensorError, for one, is a plain Exception
        raise CheckpointError(f"cannot save a model in {folder}: {summarize_error(error)}") from error


def _move_files(source: Path, target: Path) -> None:
    new = {path.name for path in source.iterdir()}
    if any(name.startswith("model") for name in new):  # otherwise the old weights would be read with the new shards
        for path in target.glob("model*.safetensors*"):
            if path.name not in new:
                path.unlink()
    for name in sorted(new):
        (source / name).replace(target / name)
    source.rmdir()
