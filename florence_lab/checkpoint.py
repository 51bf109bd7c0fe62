"""A folder, in the published or in transformers' layout -> model and processor. Reads data; runs no code from the folder.

The published layout is that of `AI-ModelScope/Florence-2-*` and `microsoft/Florence-2-*`: the names and the config
fields of the modelling code that lies beside them, which transformers' own Florence-2 cannot read. We map config, weights
and tokenizer onto transformers' classes and leave that code alone.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    BartConfig,
    BartTokenizer,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GenerationConfig,
)
from transformers.models.clip import CLIPImageProcessorPil

from .layout import (
    ADDED_TOKENS,
    EMBEDDINGS,
    GENERATION_FIELDS,
    LOGITS_BIAS,
    ONLY_KNOWN,
    POST_PROCESSOR_CONFIG,
    TEXT_FIELDS,
    TIED,
    VISION_FIELDS,
    published_name,
)
from .vision import DAVIT_ATTENTION

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


class CheckpointError(ValueError):
    """A folder that can't be loaded as Florence-2: what is missing in it, or strange."""


def load_checkpoint(
    folder: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """The model (in eval mode, on the CPU) and the processor of a checkpoint folder in either layout.

    The published layout gives what its authors' code gives: the same pixels, the same logits, the same tokens. Weights
    are read from `model.safetensors` (sharded too), or from `pytorch_model.bin` with `torch.load(weights_only=True)`.

    Raises:
        CheckpointError: if the folder lacks something, holds half a download or another model, or a pickle with code.
    """
    folder = Path(folder)
    config = read_config(folder)
    weights = weight_files(folder)
    load = _load_published if is_published_layout(config) else _load_transformers
    try:
        model, processor = load(folder, config, weights, dtype)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{folder} holds a pickle with more in it than weights, which could run code when loaded; it was refused "
            f"(torch.load with weights_only=True): {_first_line(error)}"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} can't be read as Florence-2: {_first_line(error)}") from error
    model.set_attn_implementation({"vision_config": DAVIT_ATTENTION})
    return model.eval(), processor


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`, known to be that of a Florence-2."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json, so it is no checkpoint folder")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not whole: {error}") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type != "florence2":
        raise CheckpointError(f"{folder} holds a model of type {model_type!r}; only 'florence2' can be loaded")
    return config


def is_published_layout(config: dict[str, Any]) -> bool:
    """Whether a config is in the published layout: its vision tower says `dim_embed`, transformers' `embed_dim`."""
    return "dim_embed" in config.get("vision_config", {})


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights, the shards where there are several.

    Raises:
        CheckpointError: if there are none, or if shards that the index names are missing.
    """
    for name in WEIGHT_FILES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as error:
                raise CheckpointError(f"{index} is not whole: {error}") from error
            missing = [shard for shard in shards if not (folder / shard).is_file()]
            if missing:
                raise CheckpointError(
                    f"{folder} lacks {', '.join(missing)}, which {index.name} names: half a download?"
                )
            return [folder / shard for shard in shards]
        if (folder / name).is_file():
            return [folder / name]
    raise CheckpointError(f"{folder} has no weights: none of {', '.join(WEIGHT_FILES)} (nor an .index.json of one)")


# ---------------------------------------------------------------------- transformers' layout


def _load_transformers(
    folder: Path, config: dict[str, Any], weights: list[Path], dtype: torch.dtype
) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    try:
        model, report = Florence2ForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        # the Pillow backend resizes as the published code does, transformers' default one differs a little
        processor = Florence2Processor.from_pretrained(folder, backend="pil", local_files_only=True)
    except ValueError as error:
        raise CheckpointError(f"{folder} can't be read as Florence-2: {_first_line(error)}") from error
    _refuse_names(folder, "lacks the weights", report["missing_keys"])
    _refuse_names(folder, "holds weights that Florence-2 has no place for:", report["unexpected_keys"])
    _refuse_names(folder, "holds weights of another shape:", [row[0] for row in report["mismatched_keys"]])
    return model, processor


# ---------------------------------------------------------------------- the published layout


def _load_published(
    folder: Path, config: dict[str, Any], weights: list[Path], dtype: torch.dtype
) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    processor = _published_processor(folder)
    image_token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    # <image> marks the place of the image tokens in the prompt; the published vocabulary has no such row
    vocab_size = max(config["text_config"]["vocab_size"], image_token_id + 1)
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(_published_config(folder, config, vocab_size, image_token_id))
    model.load_state_dict(_published_state(folder, weights, model, dtype), strict=True, assign=True)
    model.tie_weights()
    model.generation_config = _published_generation_config(folder, config, image_token_id)
    return model, processor


def _published_config(folder: Path, config: dict[str, Any], vocab_size: int, image_token_id: int) -> Florence2Config:
    for path, known in ONLY_KNOWN.items():
        value: Any = config
        for key in path:
            value = value.get(key, known) if isinstance(value, dict) else known
        if value != known:
            raise CheckpointError(f"{folder}/config.json has {'.'.join(path)} = {value!r}; only {known!r} is known")
    vision, text = config["vision_config"], config["text_config"]
    return Florence2Config(
        vision_config={name: vision[name] for name in VISION_FIELDS if name in vision}
        | {
            "embed_dim": vision["dim_embed"],
            "max_temporal_embeddings": vision["visual_temporal_embedding"]["max_temporal_embeddings"],
            "max_position_embeddings": vision["image_pos_embed"]["max_pos_embeddings"],
        },
        text_config=BartConfig(
            **{name: text[name] for name in TEXT_FIELDS if name in text}, vocab_size=vocab_size
        ).to_dict(),
        image_token_id=image_token_id,
        bos_token_id=config.get("bos_token_id", 0),
        eos_token_id=config.get("eos_token_id", 2),
        pad_token_id=config.get("pad_token_id", 1),
    )


def _published_state(
    folder: Path, weights: list[Path], model: Florence2ForConditionalGeneration, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The weights under transformers' names. `model` tells which there are; it may be on the meta device."""
    wanted = {published_name(name): name for name in model.state_dict()}
    state: dict[str, torch.Tensor] = {}
    strange = []
    for name, tensor in _read_weights(weights):
        if name in EMBEDDINGS:
            if EMBEDDINGS[0] not in state or name == EMBEDDINGS[0]:
                state[EMBEDDINGS[0]] = tensor.to(dtype, copy=True)
        elif name in wanted:
            state[name] = tensor.to(dtype, copy=True)
        elif name != LOGITS_BIAS or tensor.any():  # the published models' is all zeros, and transformers has none
            strange.append(name)
    _refuse_names(folder, "holds weights that Florence-2 has no place for:", strange)
    _refuse_names(folder, "lacks the weights", [n for n in wanted if n not in state and n not in EMBEDDINGS[1:]])

    state["image_projection"] = state["image_projection"].T.contiguous()  # stored transposed to a Linear's weight
    table = state[EMBEDDINGS[0]]
    rows = model.config.text_config.vocab_size - len(table)
    state[EMBEDDINGS[0]] = torch.cat([table, table.new_zeros(rows, table.shape[1])]) if rows > 0 else table
    renamed = {wanted[name]: tensor for name, tensor in state.items()}
    return renamed | dict.fromkeys((*TIED, "lm_head.weight"), state[EMBEDDINGS[0]])


def _read_weights(weights: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor, one by one; a tensor is good until the next is asked for."""
    for path in weights:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                names = list(file.keys())
            # what was read of a mapped file counts as memory until the file is closed, so close it now and then
            for start in range(0, len(names), 16):
                with safe_open(path, "pt") as file:
                    for name in names[start : start + 16]:
                        yield name, file.get_tensor(name)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
            while tensors:
                yield tensors.popitem()


def _published_generation_config(folder: Path, config: dict[str, Any], image_token_id: int) -> GenerationConfig:
    path = folder / "generation_config.json"
    # checkpoints saved before transformers had that file kept the settings in the config of the language model
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else config["text_config"]
    settings = {name: stored[name] for name in GENERATION_FIELDS if name in stored}
    return GenerationConfig(**settings, suppress_tokens=[image_token_id])


def _published_processor(folder: Path) -> Florence2Processor:
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise CheckpointError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json and merges.txt")
    tokenizer = BartTokenizer.from_pretrained(folder, local_files_only=True)
    add_florence_tokens(tokenizer)
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no preprocessor_config.json")
    settings = json.loads(path.read_text(encoding="utf-8"))
    known = ("size", "resample", "do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    image_processor = CLIPImageProcessorPil(
        **{name: settings[name] for name in known if name in settings},
        do_center_crop=settings.get("do_center_crop", False),
        image_seq_length=settings["image_seq_length"],
    )
    return Florence2Processor(
        image_processor=image_processor, tokenizer=tokenizer, post_processor_config=POST_PROCESSOR_CONFIG
    )


def add_florence_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives a BART tokenizer the 1,024 tokens of Florence-2 and `<image>`, in place, where it lacks them."""
    tokenizer.add_tokens([*ADDED_TOKENS, "<image>"], special_tokens=True)
    # The public way to name an image token adds it in front of the others. This names the one that is there.
    tokenizer._set_model_specific_special_tokens({"image_token": "<image>"})


def _refuse_names(folder: Path, complaint: str, names: list[str] | set[str]) -> None:
    names = sorted(names)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise CheckpointError(f"{folder} {complaint} {', '.join(names[:3])}{more}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
