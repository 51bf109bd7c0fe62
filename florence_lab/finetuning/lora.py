"""LoRA: selecting the target layers, adding an adapter, and merging it into its base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import Florence2ForConditionalGeneration

from ..inference.davit import image_encoder_modules
from ..loading.adapters import load_adapter, read_adapter_config
from ..loading.library import suppress_library_output
from ..loading.saving import merge_layers, save_model

ATTENTION_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "qkv", "proj")
"""The linear layers of attention: the first four in the language model, the others in the image encoder."""


def freeze_image_encoder(model: Florence2ForConditionalGeneration) -> None:
    """Freeze the image encoder and projector, and disable their stochastic depth."""
    for part in image_encoder_modules(model):
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


def resolve_target_modules(model: Florence2ForConditionalGeneration, target_modules: Sequence[str]) -> list[str]:
    """Return the full names of the layers that get LoRA.

    Args:
        model: with a frozen image encoder if that gets none.
        target_modules: `("DEFAULT",)` for attention, `("ALL",)` for every linear layer, or last parts of layer names.

    Raises:
        ValueError: for a name that no trainable linear layer has; the message lists the names.
    """
    layers = find_linear_layers(model)
    short_names = {name: name.rpartition(".")[2] for name in layers}
    known = sorted(set(short_names.values()))
    groups: dict[tuple[str, ...], Sequence[str]] = {("DEFAULT",): ATTENTION_LAYERS, ("ALL",): known}
    wanted = groups.get(tuple(target_modules))
    if wanted is None:
        wanted = target_modules
        unknown = [name for name in target_modules if name not in known]
        if unknown or not target_modules:
            given = " ".join(unknown) or "is empty"
            raise ValueError(f"--lora_target_modules {given}: must be DEFAULT, ALL, or some of {', '.join(known)}")
    return [name for name in layers if short_names[name] in wanted]


def add_lora(
    model: Florence2ForConditionalGeneration, target_modules: Sequence[str], rank: int, alpha: int, dropout: float
) -> PeftModel:
    """Add LoRA (Hu et al., 2021) to a model in place, and freeze all other weights.

    Args:
        model: the model.
        target_modules: see `resolve_target_modules`.
        rank: rank of the matrices.
        alpha: the update is multiplied by alpha / rank.
        dropout: dropout before the matrices.
    """
    layers = resolve_target_modules(model, target_modules)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=layers)
    with suppress_library_output():
        return get_peft_model(model, config)


def merge_lora(checkpoint: str | Path, out: str | Path | None = None) -> Path:
    """Merge a LoRA adapter into its base model and save the result as a checkpoint in transformers' layout.

    Args:
        checkpoint: the folder of the adapter.
        out: the new folder; by default the name of the adapter with `-merged` appended.

    Returns:
        The new folder.

    Raises:
        CheckpointError: if the folder is not an adapter.
        HubError: if its base model is not available.
    """
    checkpoint = Path(checkpoint)
    read_adapter_config(checkpoint)
    adapted, processor = load_adapter(checkpoint)
    folder = Path(out) if out else checkpoint.with_name(f"{checkpoint.name}-merged")
    model = merge_layers(adapted.get_base_model())
    model.config.trained_on = None  # the adapter may cover another domain than the base model
    save_model(model, processor, folder)
    return folder
