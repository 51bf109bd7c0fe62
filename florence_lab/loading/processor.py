"""The processor of a checkpoint: its tokenizer and image settings, or those of the published model that it was trained from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers import BartTokenizer, Florence2Processor, PreTrainedTokenizerBase
from transformers.models.clip import CLIPImageProcessorPil

from ..exceptions import ArgumentError, CheckpointError, HubError, shorten, summarize_error
from ..template.locations import LOCATION_TOKENS
from ..template.vocabulary import ADDED_TOKENS
from .checks import check_image_settings, check_tokenizer_settings
from .files import read_json, read_settings
from .hub import find_cached
from .published import POST_PROCESSOR_CONFIG
from .registry import MODELS

_IMAGE_SETTINGS = (
    *("size", "resample", "do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    *("do_center_crop", "crop_size", "image_seq_length"),
)

# Mean and standard deviation of ImageNet, used by the published processor.
_IMAGE_MEAN, _IMAGE_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

_MAX_PADDING = 64
"""Embedding tables may be padded to a multiple of this many rows."""


_NUM_BYTES = 260  # ids below stand for special tokens and single bytes in BART's vocabulary


_HINT = (
    ". Name the model whose own are to be used, as in load(…, processor='florence-2-base'); or download the model that it was trained "
    "from, whose own are then found in the cache"
)


class LoadedProcessor(NamedTuple):
    """A processor, and where its parts are from.

    Attributes:
        processor: the processor.
        image_settings: the settings of its image processor.
        image_path: the file that has them.
        tokenizer_folder: the folder of its tokenizer.
    """

    processor: Florence2Processor
    image_settings: dict[str, Any]
    image_path: Path
    tokenizer_folder: Path


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


def load_processor(folder: Path, config: Mapping[str, Any], source: Path | None = None) -> LoadedProcessor:
    """Build the processor from data with named classes. transformers' automatic classes can run a folder's own code.

    Args:
        folder: the checkpoint.
        config: its `config.json`.
        source: a folder with the tokenizer and image settings to use; by default the checkpoint's own, and what it lacks from the
            published model that it was trained from, if that is in a cache.

    Raises:
        CheckpointError: if there are none, or if they are invalid. The message says how to name others.
    """
    own = source or folder

    def candidates() -> Iterator[Path]:
        yield own
        if source is None:
            yield from _related_folders(config)

    tokenizer_folder = next(filter(has_tokenizer, candidates()), None)
    if tokenizer_folder is None:
        raise CheckpointError(
            f"{own} has no tokenizer: neither tokenizer.json, nor vocab.json and merges.txt{'' if source else _HINT}"
        )
    found = next(filter(None, map(_find_image_settings, candidates())), None)
    if found is None:
        raise CheckpointError(
            f"{own} has no image settings with image_seq_length: neither in preprocessor_config.json nor in "
            f"processor_config.json{'' if source else _HINT}"
        )
    image_path, settings = found
    if tokenizer_folder != folder:
        check_tokenizer_settings(tokenizer_folder, read_settings(tokenizer_folder))
    check_image_settings(image_path, settings)
    processor = Florence2Processor(
        # Pillow resizes as the published code does; transformers' default backend differs slightly
        image_processor=CLIPImageProcessorPil(**settings),
        tokenizer=load_tokenizer(tokenizer_folder),
        post_processor_config=POST_PROCESSOR_CONFIG,
    )
    return LoadedProcessor(processor, settings, image_path, tokenizer_folder)


def check_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, num_rows: int, eos_token_id: Any) -> None:
    """Compare a tokenizer with the model: with another table of tokens all answers would be meaningless.

    Args:
        folder: the folder of the tokenizer, for messages.
        tokenizer: with the tokens of Florence-2.
        num_rows: of the embedding table. The published tables have no row for `<image>`.
        eos_token_id: the id, or ids, that ends an answer of the model.

    Raises:
        CheckpointError: if the tokenizer has another number of tokens, lacks `<loc_*>` tokens, or has them in another order.
    """
    size = len(tokenizer)
    is_padded = num_rows % _MAX_PADDING == 0 and size <= num_rows < size + _MAX_PADDING
    if num_rows not in (size - 1, size) and not is_padded:
        raise CheckpointError(
            f"the tokenizer in {folder} has {size:,} tokens (with <image>), but the model has {num_rows:,} embeddings "
            "(text_config.vocab_size); use the tokenizer that the model was trained with, "
            "as in load(…, processor='florence-2-base')"
        )
    highest = max(tokenizer.get_vocab().values())
    if highest >= size:
        raise CheckpointError(
            f"the tokenizer in {folder} has {size:,} tokens, but one with the id {highest}; ids must be consecutive from 0"
        )
    locations: Any = tokenizer.convert_tokens_to_ids(LOCATION_TOKENS)
    if locations != list(range(locations[0], locations[0] + len(LOCATION_TOKENS))):
        raise CheckpointError(
            f"the tokenizer in {folder} does not have the tokens <loc_0> … <loc_999> with consecutive ids"
        )
    for name in ("bos", "eos", "pad"):
        if not isinstance(getattr(tokenizer, f"{name}_token_id"), int):
            raise CheckpointError(f"the tokenizer in {folder} has no {name}_token")
    if tokenizer.eos_token_id not in (eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]):
        raise CheckpointError(
            f"the tokenizer in {folder} has the eos_token {shorten(tokenizer.eos_token)} with id {tokenizer.eos_token_id}, but "
            f"answers of the model end with id {shorten(eos_token_id)} (eos_token_id)"
        )
    _check_splitting(folder, tokenizer)


def _check_splitting(folder: Path, tokenizer: Any) -> None:
    """Tokenize a text, and words of the vocabulary, which become letters if the list of merges is not the vocabulary's."""
    try:
        ids = tokenizer(["a", "b<loc_7>"], padding=True, return_tensors="pt").input_ids
        framed = (ids[0, 0], ids[1, -1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        # threads can share a tokenizer as long as no call changes its padding and truncation
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    except Exception as error:  # settings of a wrong type
        raise CheckpointError(
            f"the tokenizer in {folder} fails: {summarize_error(error)}; see its settings in tokenizer_config.json"
        ) from error
    if not framed or tokenizer.convert_tokens_to_ids("<loc_7>") not in ids[1]:
        raise CheckpointError(f"the tokenizer in {folder} does not put texts between <s> and </s>, or splits <loc_7>")
    first_location = tokenizer.convert_tokens_to_ids(LOCATION_TOKENS[0])
    ids_of_words = range(_NUM_BYTES, first_location, max(1, first_location // 64))
    words = [word for word in map(tokenizer.convert_ids_to_tokens, ids_of_words) if word and word.isascii()]
    words = [word for word in words if len(word) > 2 and word.isalpha()]
    texts = [tokenizer.convert_tokens_to_string([word]) for word in words]
    if words and not any(len(tokenizer.tokenize(text)) == 1 for text in texts):
        raise CheckpointError(
            f"the tokenizer in {folder} splits words of its vocabulary into letters: are its merges missing?"
        )


def load_tokenizer(folder: Path) -> BartTokenizer:
    """Return the tokenizer of a folder with the tokens of Florence-2.

    Raises:
        CheckpointError: if its files are invalid.
    """
    try:
        tokenizer = BartTokenizer.from_pretrained(folder, local_files_only=True)
        add_florence_tokens(tokenizer)
    except Exception as error:  # invalid files make the libraries raise nearly anything
        raise CheckpointError(
            f"cannot read {folder} as Florence-2: the tokenizer fails: {summarize_error(error)}"
        ) from error
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder has the files of a tokenizer."""
    has_vocabulary = all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))
    return has_vocabulary or (folder / "tokenizer.json").is_file()


def _find_image_settings(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = folder / name
        stored = read_json(path) if path.is_file() else {}
        stored = stored.get("image_processor", stored)  # newer releases of transformers nest it
        if not isinstance(stored, dict):
            raise CheckpointError(f"{path} is invalid: image_processor must be an object, got {shorten(stored)}")
        if "image_seq_length" in stored:
            return path, {"do_center_crop": False} | {name: stored[name] for name in _IMAGE_SETTINGS if name in stored}
    return None


def _related_folders(config: Mapping[str, Any]) -> Iterator[Path]:
    """The folders on this machine of the published models that have the sizes of a config, the one that it names first."""
    for name in (config.get("_name_or_path"), *reversed(MODELS)):  # the model that ships is found without a search
        if isinstance(name, str) and name:
            try:
                folder = find_cached(name)
                if folder is not None and _is_related(read_json(folder / "config.json"), config):
                    yield folder
            except (
                ArgumentError,
                CheckpointError,
                HubError,
            ):  # the folder of another machine, or an incomplete download
                continue


def _is_related(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two configs, of either layout, have the same sizes. Some tables have a row for `<image>`, some have none."""
    rows, sizes = [], []
    for config in (first, second):
        text, vision = (config.get(part) for part in ("text_config", "vision_config"))
        if not isinstance(text, dict) or not isinstance(vision, dict) or not isinstance(text.get("vocab_size"), int):
            return False
        rows.append(text["vocab_size"])
        sizes.append((text.get("d_model"), vision.get("dim_embed", vision.get("embed_dim"))))
    return sizes[0] == sizes[1] and abs(rows[0] - rows[1]) <= 1
