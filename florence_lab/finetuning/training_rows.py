"""From examples to the rows of the trainer, whose image features may be cached."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from ..data.examples import Example
from ..exceptions import ArgumentError
from ..inference.device import resolve_dtype
from ..loading.files import cache_dir
from ..output_files import prepare_output_folder
from .arguments import SftArguments
from .collator import TrainingRow
from .feature_cache import FeatureCache, bytes_per_image
from .lora import find_saved_vision_module
from .workers import choose_num_workers

logger = logging.getLogger(__name__)

_MAX_SHARE_OF_DISK = 0.5


def features_folder(arguments: SftArguments) -> Path:
    """Return the folder of all cached image features."""
    return Path(arguments.feature_dir or cache_dir("features")).expanduser()


def decide_caching(
    arguments: SftArguments,
    model: Florence2ForConditionalGeneration,
    processor: Florence2Processor,
    examples: Sequence[Example],
) -> bool:
    """Return whether image features are cached; all processes receive the answer of the first.

    Without a choice in the arguments they are if training leaves them as they are, and half of the free disk space holds them.
    A line of the log says so.
    """
    if arguments.cache_image_features is not None:
        return arguments.cache_image_features
    if not arguments.is_vision_frozen or find_saved_vision_module(model, arguments.modules_to_save):
        return False
    shared = [False]
    if PartialState().is_main_process:
        shared = [_fits_on_disk(arguments, len({example.image_key for example in examples}), model, processor)]
    return bool(broadcast_object_list(shared)[0])


def _fits_on_disk(
    arguments: SftArguments, num_images: int, model: Florence2ForConditionalGeneration, processor: Florence2Processor
) -> bool:
    folder, needed = features_folder(arguments), num_images * bytes_per_image(model, processor)
    try:
        prepare_output_folder("--feature_dir", folder)
    except ArgumentError as error:
        logger.warning("image features are not cached: %s", error)
        return False
    free = shutil.disk_usage(folder).free
    amount = f"{num_images:,} images take {needed / 1e6:,.0f} MB in {folder}, where {free / 1e6:,.0f} MB are free"
    if needed > _MAX_SHARE_OF_DISK * free:
        logger.warning("image features are not cached: those of %s (--feature_dir chooses another folder)", amount)
        return False
    logger.warning("image features are cached: those of %s (--cache_image_features false computes them anew)", amount)
    return True


def build_rows(
    examples: Sequence[Example],
    arguments: SftArguments,
    model: Florence2ForConditionalGeneration,
    processor: Florence2Processor,
    state: PartialState,
) -> list[TrainingRow]:
    """Return examples as rows of the trainer, with cached image features if the arguments ask for them."""
    if not examples or not arguments.cache_image_features:
        return [TrainingRow(example) for example in examples]
    dtype = resolve_dtype(arguments.dtype, state.device)
    with state.main_process_first():  # the other processes find the features in the cache
        cache = FeatureCache(model.to(state.device), processor, dtype, features_folder(arguments))
        sources = {example.image_key: example.image for example in examples}
        num_workers = arguments.dataloader_num_workers
        if num_workers is None:
            num_workers = choose_num_workers(len(sources), 1, _bytes_of_pixels(processor), state.device.type)
        paths = dict(zip(sources, cache.encode_images(sources.values(), num_workers), strict=True))
    return [TrainingRow(example, paths[example.image_key]) for example in examples]


def num_training_workers(
    arguments: SftArguments,
    model: Florence2ForConditionalGeneration,
    processor: Florence2Processor,
    num_rows: int,
    device_type: str,
) -> int:
    """Return the number of processes that load the batches of a run: that of the arguments, or what suits the machine."""
    if arguments.dataloader_num_workers is not None:
        return arguments.dataloader_num_workers
    size = bytes_per_image(model, processor) if arguments.cache_image_features else _bytes_of_pixels(processor)
    return choose_num_workers(num_rows, arguments.batch_size, size, device_type)


def _bytes_of_pixels(processor: Florence2Processor) -> int:
    size: Any = processor.image_processor.size
    return 3 * int(size["height"]) * int(size["width"]) * 4
