"""The weights that a run trains: frozen parts, LoRA, modules that are trained whole; and merging an adapter."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import Florence2ForConditionalGeneration

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, CheckpointError, shorten, unknown_name, warn
from ..inference.davit import image_encoder_modules
from ..loading.adapters import load_adapter, read_adapter_config
from ..loading.library import suppress_library_output
from ..loading.saving import merge_layers, save_model
from ..output_files import prepare_output_folder
from .arguments import SftArguments

ATTENTION_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "qkv", "proj")
"""The linear layers of attention: the first four in the language model, the others in the image encoder."""


def freeze_parts(model: Florence2ForConditionalGeneration, arguments: SftArguments) -> None:
    """Freeze the image encoder, the projector and the language model as the arguments say.

    Raises:
        ArgumentError: if `cache_image_features` is set and a module to save is part of the image encoder or its projector.
    """
    image_encoder, projector = image_encoder_modules(model)
    for part, is_frozen in (
        (image_encoder, arguments.is_image_encoder_frozen),
        (projector, arguments.is_projector_frozen),
        (model.model.language_model, arguments.freeze_llm),
    ):
        if is_frozen:
            freeze(part)
    if arguments.cache_image_features and (name := find_saved_vision_module(model, arguments.modules_to_save)):
        raise ArgumentError(
            f"--modules_to_save {name} changes the image features, which --cache_image_features true computes once"
        )


def find_saved_vision_module(model: Florence2ForConditionalGeneration, modules: Sequence[str]) -> str:
    """Return the first of `modules_to_save` that is part of the image encoder or its projector; "" if none is."""
    vision = {id(module) for part in image_encoder_modules(model) for module in part.modules()}
    for name in resolve_modules_to_save(model, modules):
        if any(id(module) in vision for module in model.get_submodule(name).modules()):
            return name
    return ""


def freeze_image_encoder(model: Florence2ForConditionalGeneration) -> None:
    """Freeze the image encoder and projector, and disable their stochastic depth."""
    for part in image_encoder_modules(model):
        freeze(part)


def freeze(part: nn.Module) -> None:
    """Freeze the weights of a part of a model, and disable its stochastic depth."""
    part.requires_grad_(False)
    for module in part.modules():
        # the trainer puts the whole model into training mode, where stochastic depth is active
        if hasattr(module, "drop_prob"):
            setattr(module, "drop_prob", 0.0)  # noqa: B010 (an attribute of some modules only)


def find_linear_layers(model: Florence2ForConditionalGeneration) -> list[str]:
    """Return the names of all trainable `nn.Linear` modules except `lm_head`, whose weight is tied to the embeddings."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head" and module.weight.requires_grad
    ]


def resolve_target_modules(
    model: Florence2ForConditionalGeneration, target_modules: Sequence[str], target_regex: str = ""
) -> list[str]:
    """Return the full names of the layers that get LoRA.

    Args:
        model: with frozen weights where no layer gets LoRA.
        target_modules: `("DEFAULT",)` for attention, `("ALL",)` for every linear layer, or last parts of layer names.
        target_regex: a regular expression that the whole name of a layer matches, instead of `target_modules`. The `model.`
            that all names begin with may be left out.

    Raises:
        ArgumentError: for a name or pattern that no trainable linear layer has; the message lists the names.
    """
    layers = find_linear_layers(model)
    if target_regex:
        return _match_layers(layers, target_regex)
    short_names = {name: name.rpartition(".")[2] for name in layers}
    known = sorted(set(short_names.values()))
    groups: dict[tuple[str, ...], Sequence[str]] = {("DEFAULT",): ATTENTION_LAYERS, ("ALL",): known}
    wanted = groups.get(tuple(target_modules), target_modules)
    unknown = [] if wanted is not target_modules else [name for name in target_modules if name not in known]
    found = [name for name in layers if short_names[name] in wanted]
    if unknown or not found:
        given = " ".join(unknown or target_modules) or "is empty"
        raise ArgumentError(
            f"--lora_target_modules {given}: must be DEFAULT, ALL, or some of {', '.join(known) or '(all layers are frozen)'}"
        )
    return found


def _match_layers(layers: Sequence[str], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ArgumentError(f"--target_regex {pattern!r} is not a regular expression: {error}") from error
    found = [name for name in layers if compiled.fullmatch(name) or compiled.fullmatch(name.removeprefix("model."))]
    if not found:
        example = f"; a name is {layers[-1]}" if layers else ""
        raise ArgumentError(f"--target_regex {pattern!r} matches the whole name of no trainable linear layer{example}")
    return found


def resolve_modules_to_save(model: Florence2ForConditionalGeneration, modules: Sequence[str]) -> list[str]:
    """Return the full names of the modules that are trained whole beside LoRA.

    Args:
        model: the model.
        modules: full names, or last parts of them.

    Raises:
        ArgumentError: for a name that no module with weights has (the message names the closest one), and for a module with
            the word embeddings: encoder, decoder and output layer share them, and PEFT would train a copy for each.
    """
    embeddings = model.get_input_embeddings().weight
    names = [name for name, module in model.named_modules() if name and next(module.parameters(), None) is not None]
    resolved = []
    for wanted in modules:
        found = [name for name in names if name == wanted or name.endswith(f".{wanted}")]
        if not found:
            raise ArgumentError(unknown_name("--modules_to_save", wanted, _last_parts(names)))
        if any(weight is embeddings for name in found for weight in model.get_submodule(name).parameters()):
            raise ArgumentError(
                f"--modules_to_save {wanted}: contains the word embeddings, which encoder, decoder and output layer share and "
                "LoRA cannot train; use --sft_type full --freeze_vision true"
            )
        resolved += found
    return list(dict.fromkeys(resolved))


def _last_parts(names: Collection[str]) -> list[str]:
    parts = dict.fromkeys(name.rpartition(".")[2] for name in names)
    return [part for part in parts if not part.isdigit()]


def add_lora(
    model: Florence2ForConditionalGeneration, arguments: SftArguments, token_ids: Sequence[int] = ()
) -> PeftModel:
    """Add LoRA (Hu et al., 2021) to a model in place, and freeze all other weights except those of `modules_to_save`.

    Args:
        model: with frozen weights where no layer gets LoRA, see `freeze_parts`.
        token_ids: tokens whose embeddings are trained, in the table that encoder, decoder and output layer share.
        arguments: `lora_target_modules` or `target_regex`, `lora_rank`, `lora_alpha`, `lora_dropout`, `modules_to_save`,
            `use_dora` and `use_rslora`.

    Raises:
        ArgumentError: as `resolve_target_modules` and `resolve_modules_to_save`.
    """
    saved = resolve_modules_to_save(model, arguments.modules_to_save)
    layers = resolve_target_modules(model, arguments.lora_target_modules, arguments.target_regex)
    adapted = [name for name in layers if not any(_is_within(name, module) for module in saved)]
    if not adapted:
        raise ArgumentError(f"--modules_to_save {' '.join(arguments.modules_to_save)} contains all layers of LoRA")
    for option, choice, part in (
        ("freeze_vit", arguments.freeze_vit, "model.vision_tower"),
        ("freeze_aligner", arguments.freeze_aligner, "model.multi_modal_projector"),
    ):
        if choice is False and not any(_is_within(name, part) for name in [*adapted, *saved]):
            warn(
                f"--{option} false has no effect: LoRA is in no layer of {part}; --lora_target_modules ALL selects all layers"
            )
    config = LoraConfig(
        r=arguments.lora_rank,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=adapted,
        modules_to_save=saved or None,
        use_dora=arguments.use_dora,
        use_rslora=arguments.use_rslora,
        trainable_token_indices={_embeddings_name(model): sorted(token_ids)} if token_ids else None,
    )
    with suppress_library_output():
        return get_peft_model(model, config)


def _embeddings_name(model: nn.Module) -> str:
    embeddings = model.get_input_embeddings()  # type: ignore[operator]  # of transformers
    return next(name for name, module in model.named_modules() if module is embeddings)


def _is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


@validate_arguments
def merge_lora(
    checkpoint: str | Path, out: str | Path | None = None, base: str | Path | None = None, hub: str | None = None
) -> Path:
    """Merge a LoRA adapter into its base model and save the result as a checkpoint in transformers' layout.

    Args:
        checkpoint: the folder of the adapter.
        out: the new folder; by default the name of the adapter with `-merged` appended.
        base: the base model, a name or folder; by default the one that the adapter names.
        hub: from which the base model is downloaded, see `load`.

    Returns:
        The new folder.

    Raises:
        ArgumentError: if the new folder cannot be written to.
        CheckpointError: if the folder is not an adapter.
        HubError: if its base model is not available.
    """
    checkpoint = Path(checkpoint)
    if not os.path.isdir(checkpoint):  # Path.is_dir raises for a name that is too long
        raise CheckpointError(f"{shorten(str(checkpoint), 300)} is not a folder")
    read_adapter_config(checkpoint)
    folder = prepare_output_folder("out", out or checkpoint.with_name(f"{checkpoint.name}-merged"))
    adapted, processor = load_adapter(checkpoint, hub=hub, base=base)
    model = merge_layers(adapted.get_base_model())
    model.config.trained_on = None  # the adapter may cover another domain than the base model
    save_model(model, processor, folder)
    return folder
