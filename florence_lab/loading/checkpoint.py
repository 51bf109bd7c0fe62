"""TODO"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import BartTokenizer, Florence2ForConditionalGeneration, Florence2Processor
from transformers.models.clip import CLIPImageProcessorPil
from transformers.utils import logging

from ..exceptions import CheckpointError, summarize_error
from ..template.vocabulary import ADDED_TOKENS
from .conversion import LACKS, NO_PLACE, OTHER_SHAPE, _load_published, _refuse_names, is_published_layout
from .files import JSON_FILES, _read_json, weight_files
from .published import POST_PROCESSOR_CONFIG

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IMAGE_SETTINGS = (
    *("size", "resample", "do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    *("do_center_crop", "crop_size", "image_seq_length"),
)


def load_checkpoint(
    folder: str | Path, dtype: torch.dtype = torch.float32
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
        raise CheckpointError(f"{folder} can't be read as Florence-2: {summarize_error(error)}") from error
    return model.eval(), processor


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


def _load_transformers(folder: Path, dtype: torch.dtype) -> Florence2ForConditionalGeneration:
    with suppress_library_output():
        model, report = Florence2ForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, local_files_only=True, ignore_mismatched_sizes=True, output_loading_info=True
        )
    _refuse_names(folder, LACKS, report["missing_keys"])
    _refuse_names(folder, NO_PLACE, report["unexpected_keys"])
    _refuse_names(folder, OTHER_SHAPE, [row[0] for row in report["mismatched_keys"]])
    return model


@contextmanager
def suppress_library_output() -> Iterator[None]:
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


def build_processor(tokenizer: BartTokenizer, image_size: int) -> Florence2Processor:
    """transformers' own processor, with Pillow's bicubic resize and the published mean and deviation of the pixels."""
    side = {"height": image_size, "width": image_size}
    images = CLIPImageProcessorPil(
        size=side,
        crop_size=side,
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    images.image_seq_length = (image_size // 16) ** 2 + 1
    return Florence2Processor(
        images, tokenizer, num_additional_image_tokens=0, post_processor_config=POST_PROCESSOR_CONFIG
    )
