"""TODO"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..inference.davit import image_encoder_modules
from ..loading.adapters import load_adapter, read_adapter_config
from ..loading.checkpoint import suppress_library_output

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj", "qkv", "proj")
"""The linear layers of attention: the first four in the language model, the others in the vision tower."""


def freeze_vision(model: Florence2ForConditionalGeneration) -> None:
    """Keep all that makes tokens of a picture as it is: the tower and the projector, which drop nothing any more."""
    for part in image_encoder_modules(model):
        part.requires_grad_(False)
        for module in part.modules():
            # they drop paths in training mode, into which the trainer puts the whole model at every step
            if hasattr(module, "drop_prob"):
                module.drop_prob = 0.0


def linear_layers(model: Florence2ForConditionalGeneration) -> list[str]:
    """The full names of the linear layers whose weights are trained as it stands; not the head, whose are the words'."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head" and module.weight.requires_grad
    ]


def lora_targets(model: Florence2ForConditionalGeneration, chosen: Sequence[str]) -> list[str]:
    """The full names of the layers that get LoRA.

    Args:
        model: the vision tower frozen, if it is to stay so.
        chosen: `("DEFAULT",)` for attention, `("ALL",)` for every linear layer, or last parts of names.

    Raises:
        ValueError: for a name that no trainable linear layer has.
    """
    layers = linear_layers(model)
    last = {name: name.rpartition(".")[2] for name in layers}
    wanted = {("DEFAULT",): ATTENTION, ("ALL",): tuple(last.values())}.get(tuple(chosen), tuple(chosen))
    unknown = [name for name in chosen if wanted == tuple(chosen) and name not in last.values()]
    if unknown or not chosen:
        known = ", ".join(sorted(set(last.values())))
        raise ValueError(f"--lora_target_modules {' '.join(unknown)}: give DEFAULT, ALL, or some of {known}")
    return [name for name in layers if last[name] in wanted]


def add_lora(
    model: Florence2ForConditionalGeneration, chosen: Sequence[str], rank: int, alpha: int, dropout: float
) -> PeftModel:
    """LoRA (Hu et al., 2021) in place; only its matrices are trained from now on. See `lora_targets`."""
    targets = lora_targets(model, chosen)
    with suppress_library_output():
        return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets))


def merge_lora(checkpoint: str | Path, out: str | Path | None = None) -> Path:
    """Add an adapter's matrices to the weights that it stands beside: a checkpoint of its own, in transformers' layout.

    Args:
        checkpoint: the folder of an adapter.
        out: the new folder; by default the same name with `-merged` behind.

    Raises:
        CheckpointError: if the folder holds no adapter, or the model that it belongs to can't be had.
    """
    checkpoint = Path(checkpoint)
    read_adapter_config(checkpoint)
    adapted, processor = load_adapter(checkpoint)
    out = Path(out) if out else checkpoint.with_name(f"{checkpoint.name}-merged")
    save(adapted.merge_and_unload(), processor, out)
    return out


def save(model: Florence2ForConditionalGeneration, processor: Florence2Processor, folder: Path) -> None:
    """Write transformers' layout."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
