"""A folder, in the published or in transformers' layout -> model and processor. Reads data; runs no code from the folder.

The published layout is that of `AI-ModelScope/Florence-2-*` and `microsoft/Florence-2-*`: the names and the config
fields of the modelling code that lies beside them, which transformers' own Florence-2 cannot read. We map config, weights
and tokenizer onto transformers' classes and leave that code alone.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch.nn.functional import pad
from transformers import (
    BartConfig,
    BartTokenizer,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GenerationConfig,
)
from transformers.models.clip import CLIPImageProcessorPil
from transformers.utils import logging

from .decoding import LANGUAGE_ATTENTION
from .hub import resolve
from .layout import (
    ADDED_TOKENS,
    EMBEDDINGS,
    GENERATION_FIELDS,
    LOGITS_BIAS,
    ONLY_KNOWN,
    POST_PROCESSOR_CONFIG,
    REQUIRED,
    TEXT_FIELDS,
    TIED,
    VISION_FIELDS,
    published_name,
)
from .vision import DAVIT_ATTENTION

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
JSON_FILES = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
)
IMAGE_SETTINGS = (
    *("size", "resample", "do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    *("do_center_crop", "crop_size", "image_seq_length"),
)
LACKS = "lacks the weights"
NO_PLACE = "holds weights that Florence-2 has no place for:"
OTHER_SHAPE = "holds weights of another shape:"


class CheckpointError(ValueError):
    """A folder that can't be loaded as Florence-2: what is missing in it, or strange."""


def load_checkpoint(
    folder: str | Path, dtype: torch.dtype = torch.float32, hub: str | None = None
) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """The model (in eval mode, on the CPU) and the processor of a checkpoint folder in either layout, or of an adapter.

    The published layout gives what its authors' code gives: the same pixels, the same logits, the same tokens. Weights
    are read from `model.safetensors` (sharded too), or from `pytorch_model.bin` with `torch.load(weights_only=True)`.
    An adapter of fine-tuning works beside the weights of the model that it belongs to, which `hub` is asked for.

    Raises:
        CheckpointError: if the folder lacks something, holds half a download or another model, or a pickle with code.
        HubError: if the model of an adapter can't be had.
    """
    folder = Path(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        adapted, processor = load_adapter(folder, dtype, hub)
        return adapted.get_base_model(), processor  # with the adapter's layers in it
    config = read_config(folder)
    weights = weight_files(folder)
    for name in JSON_FILES:
        if (folder / name).is_file():
            _read_json(folder / name)  # transformers passes over some that are broken
    try:
        processor = _load_processor(folder)
        if is_published_layout(config):
            model = _load_published(folder, config, weights, processor.image_token_id, dtype)
        else:
            model = _load_transformers(folder, dtype)
    except (CheckpointError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        asked_for = re.search(r"GLOBAL (\S+)", str(error))  # the rest of the message tells how to run it all the same
        raise CheckpointError(
            f"{folder} holds a pickle with more in it than weights{f' ({asked_for[1]})' if asked_for else ''}, which "
            "could run code when loaded; it was refused (torch.load with weights_only=True)"
        ) from error
    except Exception as error:  # broken files make the libraries below raise nearly anything
        raise CheckpointError(f"{folder} can't be read as Florence-2: {_first_line(error)}") from error
    model.set_attn_implementation({"vision_config": DAVIT_ATTENTION, "text_config": LANGUAGE_ATTENTION})
    return model.eval(), processor


def load_adapter(
    folder: Path, dtype: torch.dtype = torch.float32, hub: str | None = None
) -> tuple[PeftModel, Florence2Processor]:
    """An adapter beside the weights that it belongs to, in eval mode, and their processor. Raises as `load_checkpoint`."""
    from peft import PeftModel

    base = read_adapter_config(folder)["base_model_name_or_path"]
    model, processor = load_checkpoint(resolve(base, hub), dtype)
    try:
        with quiet():
            adapted = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)
    except Exception as error:  # a broken file, or layers that the model has not
        raise CheckpointError(f"{folder} can't be read as an adapter of {base}: {_first_line(error)}") from error
    return adapted.to(dtype).eval(), processor


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The folder's `adapter_config.json`, which names the model that the adapter belongs to.

    Raises:
        CheckpointError: if there is none, or no weights beside it.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"{folder} holds no adapter: it has no {ADAPTER_CONFIG}")
    config = _read_json(folder / ADAPTER_CONFIG)
    if not config.get("base_model_name_or_path"):
        raise CheckpointError(f"{folder}/{ADAPTER_CONFIG} names no base_model_name_or_path")
    if not (folder / ADAPTER_WEIGHTS).is_file():  # a pickle of weights, as PEFT once wrote, is not read
        raise CheckpointError(f"{folder} has no {ADAPTER_WEIGHTS}")
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`, known to be that of a Florence-2."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json, so it is no checkpoint folder")
    config = _read_json(path)
    if config.get("model_type") != "florence2":
        raise CheckpointError(
            f"{folder} holds a model of type {config.get('model_type')!r}; only 'florence2' can be loaded"
        )
    for part in ("vision_config", "text_config"):
        if not isinstance(config.get(part), dict):
            raise CheckpointError(f"{path} has no {part}")
    return config


def is_published_layout(config: dict[str, Any]) -> bool:
    """Whether a config is in the published layout: its vision tower says `dim_embed`, transformers' `embed_dim`."""
    return "dim_embed" in config["vision_config"]


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights, the shards where there are several.

    Raises:
        CheckpointError: if there are none, or if shards that the index names are missing.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            weight_map = _read_json(index).get("weight_map")
            shards = set(weight_map.values()) if isinstance(weight_map, dict) else set()
            if not shards or not all(isinstance(shard, str) for shard in shards):
                raise CheckpointError(f"{index} names no files with weights")
            missing = sorted(shard for shard in shards if not (folder / shard).is_file())
            if missing:
                raise CheckpointError(
                    f"{folder} lacks {', '.join(missing)}, which {index.name} names: half a download?"
                )
            return [folder / shard for shard in sorted(shards)]
    raise CheckpointError(f"{folder} has no weights: none of {', '.join(WEIGHT_FILES)} (nor an .index.json of one)")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not whole: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object, but {type(content).__name__}")
    return content


# ---------------------------------------------------------------------- either layout: words and pixels


def _load_processor(folder: Path) -> Florence2Processor:
    """Built from data by named classes: transformers' automatic ones offer to run a folder's own code."""
    if not (folder / "tokenizer.json").is_file() and not all(
        (folder / name).is_file() for name in ("vocab.json", "merges.txt")
    ):
        raise CheckpointError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json and merges.txt")
    tokenizer = BartTokenizer.from_pretrained(folder, local_files_only=True)
    add_florence_tokens(tokenizer)
    return Florence2Processor(
        # the Pillow backend resizes as the published code does, transformers' default one differs a little
        image_processor=CLIPImageProcessorPil(**_image_settings(folder)),
        tokenizer=tokenizer,
        post_processor_config=POST_PROCESSOR_CONFIG,
    )


def _image_settings(folder: Path) -> dict[str, Any]:
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = folder / name
        stored = _read_json(path) if path.is_file() else {}
        stored = stored.get("image_processor", stored)  # where newer releases of transformers keep it
        if "image_seq_length" in stored:
            return {"do_center_crop": False} | {name: stored[name] for name in IMAGE_SETTINGS if name in stored}
    raise CheckpointError(
        f"{folder} has no settings for images (with image_seq_length): no preprocessor_config.json, "
        "nor a processor_config.json that holds them"
    )


def add_florence_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives a BART tokenizer the 1,024 tokens of Florence-2 and `<image>`, in place, where it lacks them."""
    tokenizer.add_tokens([*ADDED_TOKENS, "<image>"], special_tokens=True)
    # The public way to name an image token adds it in front of the others. This names the one that is there.
    tokenizer._set_model_specific_special_tokens({"image_token": "<image>"})


# ---------------------------------------------------------------------- transformers' layout


def _load_transformers(folder: Path, dtype: torch.dtype) -> Florence2ForConditionalGeneration:
    with quiet():
        model, report = Florence2ForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, local_files_only=True, ignore_mismatched_sizes=True, output_loading_info=True
        )
    _refuse_names(folder, LACKS, report["missing_keys"])
    _refuse_names(folder, NO_PLACE, report["unexpected_keys"])
    _refuse_names(folder, OTHER_SHAPE, [row[0] for row in report["mismatched_keys"]])
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """transformers' own report and progress bar say what our errors say, in many lines; what PEFT uses of it is renamed."""
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


# ---------------------------------------------------------------------- the published layout


def _load_published(
    folder: Path, config: dict[str, Any], weights: list[Path], image_token_id: int, dtype: torch.dtype
) -> Florence2ForConditionalGeneration:
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(_published_config(folder, config, image_token_id))
    state = _published_state(folder, weights, model, config["text_config"]["vocab_size"], dtype)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.generation_config = _published_generation_config(folder, config, image_token_id)
    return model


def _published_config(folder: Path, config: dict[str, Any], image_token_id: int) -> Florence2Config:
    for part, names in REQUIRED.items():
        missing = [name for name in names if name not in config[part]]
        if missing:
            raise CheckpointError(f"{folder}/config.json lacks {', '.join(f'{part}.{name}' for name in missing)}")
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
            **{name: text[name] for name in TEXT_FIELDS if name in text},
            # <image> marks the place of the image tokens in the prompt; the published vocabulary has no such row
            vocab_size=max(text["vocab_size"], image_token_id + 1),
        ).to_dict(),
        image_token_id=image_token_id,
        bos_token_id=config.get("bos_token_id", 0),
        eos_token_id=config.get("eos_token_id", 2),
        pad_token_id=config.get("pad_token_id", 1),
    )


def _published_state(
    folder: Path, weights: list[Path], model: Florence2ForConditionalGeneration, words: int, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The weights under transformers' names. `model` tells which there are and their shapes; it may be on the meta device.

    `words` is how many the stored vocabulary has.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    wanted = {published_name(name): name for name in shapes}
    rows = model.config.text_config.vocab_size - words
    state: dict[str, torch.Tensor] = {}
    strange = []
    for name, tensor in _read_weights(weights):
        if name in EMBEDDINGS:
            if EMBEDDINGS[0] not in state or name == EMBEDDINGS[0]:
                state[EMBEDDINGS[0]] = pad(tensor.to(dtype), (0, 0, 0, rows))  # always a copy
        elif name in wanted:
            state[name] = tensor.to(dtype, copy=True)
        elif name != LOGITS_BIAS or tensor.any():  # the published models' is all zeros, and transformers has none
            strange.append(name)
    _refuse_names(folder, NO_PLACE, strange)
    _refuse_names(folder, LACKS, [n for n in wanted if n not in state and n not in EMBEDDINGS[1:]])

    state["image_projection"] = state["image_projection"].T.contiguous()  # stored transposed to a Linear's weight
    _refuse_names(folder, OTHER_SHAPE, [n for n, tensor in state.items() if tensor.shape != shapes[wanted[n]]])
    renamed = {wanted[name]: tensor for name, tensor in state.items()}
    return renamed | dict.fromkeys((*TIED, "lm_head.weight"), state[EMBEDDINGS[0]])


def _read_weights(weights: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor, one by one; a tensor is good until the next is asked for."""
    for path in weights:
        names: list[str] | None = None
        while names is None or names:
            known, take, at_once = _open_weights(path)
            if names is None:
                # the words first: their table is the largest, and it is copied while little else is in memory
                names = sorted(known, key=lambda name: name not in EMBEDDINGS)
            read = 0
            while names and read <= at_once:
                name = names.pop(0)
                tensor = take(name)
                read += tensor.nbytes
                yield name, tensor


def _open_weights(path: Path) -> tuple[list[str], Callable[[str], torch.Tensor], float]:
    """The names in a file, how to get a tensor, and how many bytes to read before the file had better be opened anew.

    What was read of a mapped file counts as memory until the file is closed.
    """
    part = path.stat().st_size / 16
    if path.suffix == ".safetensors":
        file = safe_open(path, "pt")
        return list(file.keys()), file.get_tensor, part
    is_mapped = zipfile.is_zipfile(path)  # as torch.save has written them since 1.6
    tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    return list(tensors), tensors.pop, part if is_mapped else math.inf


def _published_generation_config(folder: Path, config: dict[str, Any], image_token_id: int) -> GenerationConfig:
    path = folder / "generation_config.json"
    # checkpoints saved before transformers had that file kept the settings in the config of the language model
    stored = _read_json(path) if path.is_file() else config["text_config"]
    settings = {name: stored[name] for name in GENERATION_FIELDS if name in stored}
    return GenerationConfig(**settings, suppress_tokens=[image_token_id])


def _refuse_names(folder: Path, complaint: str, names: list[str] | set[str]) -> None:
    names = sorted(names)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise CheckpointError(f"{folder} {complaint} {', '.join(names[:3])}{more}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
