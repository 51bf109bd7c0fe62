"""Saving a model, with the layers of an adapter merged into it."""

from __future__ import annotations

import copy
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from ..exceptions import CheckpointError, summarize_error
from .checkpoint_tasks import TASKS_FILE, model_tasks, write_tasks
from .library import LIBRARY_LOCK
from .published import VOCABULARY_MODULES


def save_model(model: Any, processor: Any, folder: str | Path) -> None:
    """Save a model or an adapter with its processor in transformers' layout, whole or not at all.

    The files are written into a temporary folder inside `folder` first. Other files of an existing folder stay; those of the same
    names, weights in other shards, and the tasks of another model are replaced.

    Args:
        model: a model of transformers, with or without the layers of an adapter, which are merged into it; or a model of PEFT, whose
            adapter alone is saved.
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
            if not _is_peft_model(model) and _find_layers(model):
                model = merge_layers(copy.deepcopy(model))
            model.save_pretrained(temporary)
            if processor is not None:
                processor.save_pretrained(temporary)
        write_tasks(temporary, model_tasks(model))
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


def merge_layers(model: Any) -> Any:
    """Merge the layers of an adapter into a model, in place, and return the model.

    Raises:
        CheckpointError: if the adapter changes an embedding table or `lm_head`. Checkpoints store the tables once, so the change of
            one would become that of all.
    """
    layers = _find_layers(model)
    for name in sorted(layers):
        if name in VOCABULARY_MODULES:
            raise CheckpointError(
                f"the adapter changes {name}, which shares its weight with other layers; it cannot be merged into its base model"
            )
    for name, module in layers.items():
        parent, _, child = name.rpartition(".")
        if hasattr(module, "modules_to_save"):
            merged = module.modules_to_save[module.active_adapter]
        else:
            module.merge()
            merged = module.get_base_layer()
        setattr(model.get_submodule(parent), child, merged)
    model.__dict__.pop("peft_config", None)
    return model


def _is_peft_model(model: Any) -> bool:
    return "peft" in sys.modules and isinstance(model, sys.modules["peft"].PeftModel)


def _find_layers(model: Any) -> dict[str, Any]:
    """The layers of an adapter in a model, by name."""
    if "peft" not in sys.modules or not isinstance(model, nn.Module):
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper))
    }


def _move_files(source: Path, target: Path) -> None:
    new = {path.name for path in source.iterdir()}
    if any(name.startswith("model") for name in new):  # otherwise the old weights would be read with the new shards
        for path in target.glob("model*.safetensors*"):
            if path.name not in new:
                path.unlink()
    (target / TASKS_FILE).unlink(missing_ok=True)
    for name in sorted(new):
        (source / name).replace(target / name)
    source.rmdir()
