"""From a checkpoint folder to a model and its processor."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, cast

import torch
from transformers import BartTokenizer, Florence2ForConditionalGeneration, Florence2Processor, PreTrainedTokenizerBase
from transformers.models.clip import CLIPImageProcessorPil

from ..exceptions import CheckpointError, summarize_error
from ..template.vocabulary import ADDED_TOKENS
from .conversion import (
    MISMATCHED_SHAPES,
    MISSING_KEYS,
    UNEXPECTED_KEYS,
    check_names,
    is_published_layout,
    load_published,
)
from .files import JSON_FILES, find_weight_files, read_json
from .library import LIBRARY_LOCK, suppress_library_output
from .published import POST_PROCESSOR_CONFIG

_IMAGE_SETTINGS = (
    *("size", "resample", "do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    *("do_center_crop", "crop_size", "image_seq_length"),
)

# Mean and standard deviation of ImageNet, used by the published processor.
_IMAGE_MEAN, _IMAGE_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def load_checkpoint(
    folder: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[Florence2ForConditionalGeneration, Florence2Processor]:
    """Load a checkpoint folder in the published or in transformers' layout.

    The published layout gives what the published code gives: the same pixel values, logits and tokens. Weights are read from
    `model.safetensors`, or from `pytorch_model.bin` with `torch.load(weights_only=True)`, sharded or not.

    Args:
        folder: the checkpoint. See `load_model` for adapters.
        dtype: of the weights.

    Returns:
        The model (in eval mode, on the CPU) and its processor.

    Raises:
        CheckpointError: if a file is missing, incomplete, of another model, or a pickle that contains code.
    """
    folder = Path(folder)
    config = read_config(folder)
    weights = find_weight_files(folder)
    for name in JSON_FILES:
        if (folder / name).is_file():
            read_json(folder / name)  # transformers ignores some files that are invalid
    try:
        processor = _load_processor(folder)
        if is_published_layout(config):
            model = load_published(folder, config, weights, processor.image_token_id, dtype)
        else:
            model = _load_transformers(folder, dtype)
    except (CheckpointError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))  # the rest of the message explains how to run it nevertheless
        raise CheckpointError(
            f"{folder} contains a pickle with more than weights{f' ({found[1]})' if found else ''}, which could run code when "
            "loaded; it was refused (torch.load with weights_only=True)"
        ) from error
    except Exception as error:  # invalid files make the libraries raise nearly anything
        raise CheckpointError(f"cannot read {folder} as Florence-2: {summarize_error(error)}") from error
    return model.eval(), processor


def read_config(folder: Path) -> dict[str, Any]:
    """Return the `config.json` of a Florence-2 checkpoint.

    Raises:
        CheckpointError: if there is none, or if it belongs to another model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint folder: it has no config.json")
    config = read_json(path)
    if config.get("model_type") != "florence2":
        raise CheckpointError(
            f"{folder} contains a model of type {config.get('model_type')!r}; only 'florence2' is supported"
        )
    for part in ("vision_config", "text_config"):
        if not isinstance(config.get(part), dict):
            raise CheckpointError(f"{path} has no {part}")
    return config


def add_florence_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Add the 1,024 tokens of Florence-2 and `<image>` to a BART tokenizer, in place, unless it has them."""
    tokenizer.add_tokens([*ADDED_TOKENS, "<image>"], special_tokens=True)
    # The public way to set an image token adds it before the others; this one uses the token that exists.
    tokenizer._set_model_specific_special_tokens({"image_token": "<image>"})


def build_processor(tokenizer: BartTokenizer, image_size: int) -> Florence2Processor:
    """Return a processor for square images, with the published resampling (bicubic, Pillow) and normalization.

    Args:
        tokenizer: with the tokens of Florence-2.
        image_size: width and height in pixels of the model's input, a multiple of 16.
    """
    side = {"height": image_size, "width": image_size}
    image_processor: Any = CLIPImageProcessorPil(
        size=side, crop_size=side, do_center_crop=False, image_mean=_IMAGE_MEAN, image_std=_IMAGE_STD
    )
    # one token for 16 x 16 pixels (transformers' example processors assume 32), and one for their mean
    image_processor.image_seq_length = (image_size // 16) ** 2 + 1
    return Florence2Processor(
        image_processor, tokenizer, num_additional_image_tokens=0, post_processor_config=POST_PROCESSOR_CONFIG
    )


def _load_processor(folder: Path) -> Florence2Processor:
    """Build the processor from data with named classes. transformers' automatic classes can run a folder's own code."""
    has_vocabulary = all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))
    if not (folder / "tokenizer.json").is_file() and not has_vocabulary:
        raise CheckpointError(f"{folder} has no tokenizer: neither tokenizer.json, nor vocab.json and merges.txt")
    tokenizer = BartTokenizer.from_pretrained(folder, local_files_only=True)
    add_florence_tokens(tokenizer)
    return Florence2Processor(
        # Pillow resizes as the published code does; transformers' default backend differs slightly
        image_processor=CLIPImageProcessorPil(**_image_settings(folder)),
        tokenizer=tokenizer,
        post_processor_config=POST_PROCESSOR_CONFIG,
    )


def _image_settings(folder: Path) -> dict[str, Any]:
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = folder / name
        stored = read_json(path) if path.is_file() else {}
        stored = stored.get("image_processor", stored)  # newer releases of transformers nest it
        if "image_seq_length" in stored:
            return {"do_center_crop": False} | {name: stored[name] for name in _IMAGE_SETTINGS if name in stored}
    raise CheckpointError(
        f"{folder} has no image settings with image_seq_length: neither in preprocessor_config.json nor in "
        "processor_config.json"
    )


def _load_transformers(folder: Path, dtype: torch.dtype) -> Florence2ForConditionalGeneration:
    with suppress_library_output():
        loaded: Any = Florence2ForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, local_files_only=True, ignore_mismatched_sizes=True, output_loading_info=True
        )
    model, report = loaded
    check_names(folder, MISSING_KEYS, report["missing_keys"])
    check_names(folder, UNEXPECTED_KEYS, report["unexpected_keys"])
    check_names(folder, MISMATCHED_SHAPES, [row[0] for row in report["mismatched_keys"]])
    return cast(Florence2ForConditionalGeneration, model)
