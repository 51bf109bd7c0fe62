"""LoRA adapters, and `load_model`, which loads a checkpoint or an adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import pad
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..exceptions import ArgumentError, CheckpointError, HubError, shorten, summarize_error
from .adapter_names import PREFIX, AdapterKey, Naming, find_naming
from .added_tokens import adopt_tokenizer, has_added_tokens, write_token_rows
from .checkpoint import load_checkpoint
from .checkpoint_tasks import add_model_tasks, register_tasks
from .checks import check_adapter_config
from .files import read_json
from .hub import resolve
from .library import LIBRARY_LOCK, suppress_library_output
from .published import VOCABULARY_MODULES
from .weights import (
    MISMATCHED_SHAPES,
    MISSING_KEYS,
    TensorInfo,
    check_finite,
    check_names,
    check_stored_types,
    read_tensors,
)

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_ADAPTER_FILES = (ADAPTER_WEIGHTS, "adapter_model.bin")

_NO_PLACE = "contains weights that find no place in Florence-2:"

_BASE_HINT = "name its base model with base= (on the command line --model_id_or_path)"

# Part of a tensor's name -> the axis of the vocabulary
_VOCABULARY_AXES = {"": 0, "base_layer.weight": 0, "lora_B.weight": 0, "lora_B.bias": 0, "lora_embedding_A": 1}

_PROJECTION = "model.multi_modal_projector.image_projection"


def load_model(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    hub: str | None = None,
    base: str | Path | None = None,
    processor: str | Path | None = None,
) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """Load the model and processor of a checkpoint folder, or of an adapter together with its base model.

    Args:
        folder: a checkpoint in either layout, or an adapter of PEFT, which may have been trained with the published code.
        dtype: of the weights.
        hub: from which the base model of an adapter is downloaded, see `resolve`.
        base: the base model of an adapter, a name or folder; by default the one that its `adapter_config.json` names, which may be
            a folder of another machine.
        processor: the model whose tokenizer and image settings are used, see `load_checkpoint`.

    Returns:
        The model (in eval mode, on the CPU) and its processor.

    Raises:
        ArgumentError: if `base` is given for a folder that is not an adapter.
        CheckpointError: if the folder is not a complete Florence-2 checkpoint or adapter.
        HubError: if the base model of an adapter is not available.
    """
    folder = Path(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        adapted, loaded_processor = load_adapter(folder, dtype, hub, base, processor)
        model: Any = adapted.get_base_model()  # with the layers of the adapter
        model.config.trained_on = None  # the domain of the base model is not that of the adapter
        return model, loaded_processor
    if base is not None:
        raise ArgumentError(
            f"base {shorten(str(base))} is the base model of an adapter, but {folder} is not one: it has no {ADAPTER_CONFIG}"
        )
    return load_checkpoint(folder, dtype, processor, hub)


def load_adapter(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    hub: str | None = None,
    base: str | Path | None = None,
    processor: str | Path | None = None,
) -> tuple[PeftModel, Florence2Processor]:
    """Load an adapter with its base model, in eval mode, and the processor. Arguments and errors as `load_model`.

    Tokens that were added in training come from the tokenizer of the adapter. Their embeddings are part of the base model then, as
    all others are.
    """
    config = read_adapter_config(folder)
    base_folder = _find_base(folder, config, base, hub)
    weights = next(folder / name for name in _ADAPTER_FILES if (folder / name).is_file())
    described = f"an adapter of {base if base is not None else config['base_model_name_or_path']}"
    tensors = read_tensors(weights, described)
    check_stored_types(folder, {name: TensorInfo.of(tensor) for name, tensor in tensors.items()})
    check_finite(folder, tensors.items())
    model, loaded_processor = load_checkpoint(base_folder, dtype, processor, hub)
    if processor is None and has_added_tokens(model, config, tensors):
        loaded_processor = adopt_tokenizer(folder, model, loaded_processor)
    with LIBRARY_LOCK:
        try:
            adapted = _apply(model, folder, config, tensors)
        except (CheckpointError, MemoryError):
            raise
        except Exception as error:  # a setting that PEFT refuses, or tensors of another shape
            raise CheckpointError(f"cannot read {folder} as {described}: {summarize_error(error)}") from error
    add_model_tasks(adapted.get_base_model(), register_tasks(folder))
    return adapted.to(dtype).eval(), loaded_processor


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Return the `adapter_config.json` of a folder.

    Raises:
        CheckpointError: if there is none, if it is invalid, or if the folder has no weights.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder} is not an adapter: it has no {ADAPTER_CONFIG}")
    config = read_json(path)
    check_adapter_config(path, config)
    if not any((folder / name).is_file() for name in _ADAPTER_FILES):
        raise CheckpointError(f"{folder} has no {' or '.join(_ADAPTER_FILES)}")
    return config


def _find_base(folder: Path, config: Mapping[str, Any], base: str | Path | None, hub: str | None) -> Path:
    """The folder of the base model of an adapter."""
    stored: Any = config.get("base_model_name_or_path")
    if base is None and not stored:
        raise CheckpointError(f"{folder}/{ADAPTER_CONFIG} has no base_model_name_or_path; {_BASE_HINT}")
    try:
        found = resolve(stored if base is None else base, hub)
    except (ArgumentError, HubError) as error:
        if base is not None:
            raise
        kind = HubError if isinstance(error, HubError) else CheckpointError
        raise kind(f"the base model of the adapter {folder} is not available: {error}; {_BASE_HINT}") from error
    if (found / ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            f"{folder} is an adapter of an adapter, {found}, which is not supported: merge that one into its base model, and name "
            "the result with base="
        )
    return found


def _apply(
    model: Florence2ForConditionalGeneration, folder: Path, stored: Mapping[str, Any], tensors: dict[str, torch.Tensor]
) -> PeftModel:
    """Add the layers of an adapter to a model, in place."""
    from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

    tensors = {name: tensor for name, tensor in tensors.items() if ".original_module." not in name}
    naming = find_naming(model, tensors)
    if naming.unknown or not tensors:
        check_names(folder, _NO_PLACE, naming.unknown)
        raise CheckpointError(f"{folder} contains no weights")
    write_token_rows(model, folder, stored.get("trainable_token_indices") or (), naming, tensors)
    config = _translate_config(model, folder, stored, naming, tensors)
    state = {key.name: _fit(model, folder, key, tensors[name], naming) for name, key in naming.keys.items()}
    if naming.is_published:
        _transpose_projection(model, state)
    with suppress_library_output():
        adapted = PeftModel(model, config, autocast_adapter_dtype=False)
        layers = {
            _canonical(name): t for name, t in get_peft_model_state_dict(adapted, save_embedding_layers=False).items()
        }
        check_names(folder, MISSING_KEYS, layers.keys() - {_canonical(name) for name in state})
        known = adapted.state_dict() | layers
        state = {_name_in(known, name): tensor for name, tensor in state.items()}
        check_names(folder, _NO_PLACE, state.keys() - known.keys())
        if config.peft_type != "ADALORA":  # whose ranks differ from those of a new one
            differing = (n for n, tensor in state.items() if tensor.shape != known[n].shape)
            check_names(folder, MISMATCHED_SHAPES, differing)
        result: Any = set_peft_model_state_dict(adapted, state)
    check_names(folder, _NO_PLACE, result.unexpected_keys)
    return adapted


def _translate_config(
    model: nn.Module, folder: Path, stored: Mapping[str, Any], naming: Naming, tensors: Mapping[str, torch.Tensor]
) -> PeftConfig:
    """The configuration with the layers listed by transformers' names, in place of patterns of names."""
    from peft import PeftConfig
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    config: Any = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    config.trainable_token_indices = None  # the rows are part of the model, see `write_token_rows`
    if config.is_prompt_learning or not hasattr(config, "target_modules"):
        raise CheckpointError(
            f"{folder}/{ADAPTER_CONFIG} has peft_type {stored.get('peft_type')!r}, which does not change the layers of a model; "
            "use LoRA"
        )
    adapted = {key.module for key in naming.keys.values() if key.part}
    names = {new: old for old, new in naming.modules.items()}
    saved = config.modules_to_save or []
    config.modules_to_save = [
        new for old, new in naming.modules.items() if any(old.endswith(name) for name in saved) and new not in adapted
    ] or None
    if config.target_modules and config.target_modules != "all-linear":
        selected = {
            new
            for old, new in naming.modules.items()
            if isinstance(model.get_submodule(new), (nn.Linear, nn.Embedding, nn.Conv2d))
            and check_target_module_exists(config, old)
        }
        check_names(folder, f"has target_modules in {ADAPTER_CONFIG}, but no weights, for", selected - adapted)
        check_names(
            folder,
            f"contains weights of layers that target_modules in {ADAPTER_CONFIG} does not name:",
            adapted - selected,
        )
    for name in ("layers_to_transform", "layers_pattern", "exclude_modules"):
        if hasattr(config, name):
            setattr(config, name, None)
    config.target_modules = set(adapted)
    for pattern_field in ("rank_pattern", "alpha_pattern"):
        patterns = getattr(config, pattern_field, None)
        if patterns:
            matches = {name: get_pattern_key(patterns, names[name]) for name in sorted(adapted)}
            setattr(
                config,
                pattern_field,
                {re.escape(name): patterns[key] for name, key in matches.items() if key in patterns},
            )
    _check_ranks(folder, config, naming, tensors)
    return config


def _check_ranks(folder: Path, config: Any, naming: Naming, tensors: Mapping[str, torch.Tensor]) -> None:
    """Compare the ranks in the configuration with the weights. A wrong one may take all memory."""
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        return
    for name, key in naming.keys.items():
        if key.part in ("lora_A.weight", "lora_embedding_A"):
            rank, found = config.rank_pattern.get(re.escape(key.module), config.r), tensors[name].shape[0]
            if rank != found:
                raise CheckpointError(
                    f"{folder}/{ADAPTER_CONFIG} gives {key.module} the rank {rank}, but {name} has {found}"
                )


def _fit(model: nn.Module, folder: Path, key: AdapterKey, tensor: torch.Tensor, naming: Naming) -> torch.Tensor:
    """A tensor in transformers' layout, as `conversion` does for a whole checkpoint."""
    if not naming.is_published:
        return tensor
    module = key.module if key.part else key.module.rpartition(".")[0]
    rows = model.state_dict()["lm_head.weight"].shape[0]
    if module in VOCABULARY_MODULES:
        axis = _VOCABULARY_AXES.get(key.part)
        if axis is not None and tensor.shape[axis] == rows - 1:  # without a row for <image>
            return pad(tensor, (0, 0, 0, 1) if axis == 0 and tensor.ndim == 2 else (0, 1))
        if axis is None and key.part.startswith("lora_magnitude_vector") and rows - 1 in tensor.shape:
            raise CheckpointError(
                f"{folder} contains a DoRA of {key.module}, whose table has no row for <image>; this is not supported"
            )
    if module == _PROJECTION and not key.part and tensor.ndim == 2:
        return tensor.T.contiguous()
    return tensor


def _transpose_projection(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Transpose the update of the projector, in place: the published code has the transposed matrix, as a bare parameter."""
    first, second = (f"{PREFIX}{_PROJECTION}.lora_{letter}.weight" for letter in "AB")
    shape = model.state_dict()[f"{_PROJECTION}.weight"].shape
    if first in state and second in state and (state[first].shape[-1], state[second].shape[0]) == tuple(shape):
        state[first], state[second] = state[second].T.contiguous(), state[first].T.contiguous()


def _canonical(name: str) -> str:
    """PEFT names the magnitudes of DoRA with and without `.weight`."""
    return re.sub(r"(lora_magnitude_vector)\.weight$", r"\1", name)


def _name_in(known: Mapping[str, Any], name: str) -> str:
    """The name of a tensor in a PEFT model: the whole weight of a layer with an adapter is that of its base layer."""
    module, _, end = name.removesuffix(".base_layer").rpartition(".")
    module = module.removesuffix(".base_layer")
    candidates = (_canonical(name), f"{module}.base_layer.{end}", f"{module}.{end}")
    return next((candidate for candidate in candidates if candidate in known), name)
