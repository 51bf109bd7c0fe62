"""Checks of a checkpoint's settings before a model is built: tables of the fields of each JSON file, and their permitted values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from transformers import Florence2Config
from transformers.activations import ACT2FN

from ..argument_validation import Range, validate_value
from ..exceptions import ArgumentError, CheckpointError, shorten
from ..generation_settings import STORED_SETTINGS

Fields: TypeAlias = Mapping[str, Any]
"""Name of a field -> its annotation, see `validate_value`."""

_SIZE = Annotated[int, Range(1, 2**20)]
_LAYERS = Annotated[int, Range(1, 1000)]
_SIDE = Annotated[int, Range(1, 16_384)]
_PROBABILITY = Annotated[float, Range(0, 1)]
_POSITIVE = Annotated[float, Range(0, is_open=True)]
_MEAN = Annotated[float, Range(-255, 255)]  # of pixel values that may not be rescaled
_STD = Annotated[float, Range(0, 255, is_open=True)]
_TOKEN = Annotated[int, Range(0, 2**31)]
_TOKENS = _TOKEN | list[_TOKEN] | None

_TOKEN_IDS: Fields = {
    **dict.fromkeys(("bos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id"), _TOKEN | None),
    **dict.fromkeys(("eos_token_id", "forced_eos_token_id"), _TOKENS),
}

_VISION_FIELDS: Fields = {
    **dict.fromkeys(("depths", "patch_size", "patch_stride", "num_heads", "num_groups"), list[_LAYERS]),
    "dim_embed": list[_SIZE],  # its name in the published layout
    "embed_dim": list[_SIZE],
    "patch_padding": list[Annotated[int, Range(0, 1000)]],
    "patch_prenorm": list[bool],
    "in_channels": Literal[3],
    "window_size": _LAYERS,
    "drop_path_rate": _PROBABILITY,
    "mlp_ratio": _POSITIVE,
    "qkv_bias": bool,
    "projection_dim": _SIZE,
    "max_temporal_embeddings": _SIZE,
    "max_position_embeddings": _SIZE,
    "activation_function": str,
    "visual_temporal_embedding": dict,
    "image_pos_embed": dict,
}

_TEXT_FIELDS: Fields = {
    **dict.fromkeys(("vocab_size", "d_model", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings"), _SIZE),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), _LAYERS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), _LAYERS),
    **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "classifier_dropout"), _PROBABILITY),
    **dict.fromkeys(("encoder_layerdrop", "decoder_layerdrop"), _PROBABILITY),
    "init_std": Annotated[float, Range(0)],
    "scale_embedding": bool,
    "activation_function": str,
    "tie_word_embeddings": bool,
    **_TOKEN_IDS,
}

_CONFIG_FIELDS: Fields = {
    **_TOKEN_IDS,
    "image_token_id": _TOKEN,
    "tie_word_embeddings": bool,
    "trained_on": str | None,
    "is_encoder_decoder": Literal[True],
}

IGNORED_CONFIG_FIELDS = (
    *("return_dict", "output_attentions", "output_hidden_states", "use_return_dict", "torchscript", "use_cache"),
    *("attn_implementation", "_attn_implementation", "chunk_size_feed_forward", "pruned_heads"),
)
"""Fields of a config that do not describe a model, but what its calls return. They are not read from checkpoints."""

_IMAGE_FIELDS: Fields = {
    "size": dict | _SIDE,
    "crop_size": dict | _SIDE | None,
    "resample": Literal[0, 1, 2, 3, 4, 5],
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_center_crop"), bool),
    "rescale_factor": Annotated[float, Range(0, 1, is_open=True)],
    "image_mean": tuple[_MEAN, _MEAN, _MEAN],
    "image_std": tuple[_STD, _STD, _STD],
    "image_seq_length": _SIZE,
}

_TOKEN_TEXT = str | dict  # a dict describes a token: `AddedToken`
_TOKENIZER_FIELDS: Fields = {
    "model_max_length": Annotated[float, Range(1)] | None,
    "add_prefix_space": bool,
    **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token"), _TOKEN_TEXT),
}

_NAMES = str | list[str] | None

_ADAPTER_FIELDS: Fields = {
    "peft_type": str,
    "base_model_name_or_path": str | None,
    "task_type": str | None,
    "target_modules": _NAMES,
    "exclude_modules": _NAMES,
    "layers_pattern": _NAMES,
    "modules_to_save": list[str] | None,
    "layers_to_transform": Annotated[int, Range(0)] | list[Annotated[int, Range(0)]] | None,
    "target_parameters": list | None,
    "trainable_token_indices": list[int] | dict[str, list[int]] | None,
    "rank_pattern": dict | None,
    "alpha_pattern": dict | None,
}

_LORA_FIELDS: Fields = {
    "r": Annotated[int, Range(1, 65_536)],
    "lora_alpha": float,
    "lora_dropout": _PROBABILITY,
    "bias": Literal["none", "all", "lora_only"],
    **dict.fromkeys(("fan_in_fan_out", "use_dora", "use_rslora", "lora_bias"), bool),
}

# Fields that have one value per stage of the image encoder.
_STAGE_FIELDS = "embed_dim dim_embed patch_size patch_stride patch_padding patch_prenorm num_heads num_groups".split()


def check_fields(path: Path, values: Mapping[str, Any], fields: Fields, part: str = "") -> None:
    """Compare the fields of a JSON object with a table.

    Args:
        path: the file, for messages.
        values: the object. Fields that it lacks are not checked.
        fields: the table.
        part: the name of the object within the file, such as `"text_config."`.

    Raises:
        CheckpointError: names file, field, value and what is expected.
    """
    for name, hint in fields.items():
        if name in values:
            try:
                validate_value(name, values[name], hint)
            except ArgumentError as error:
                raise CheckpointError(f"{path} is invalid: {part}{error}") from error


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Check a `config.json` of either layout.

    Raises:
        CheckpointError: for a field of another type or out of its range, and for a quantized model.
    """
    _check_quantization(path, config)
    vision, text = config["vision_config"], config["text_config"]
    check_fields(path, config, _CONFIG_FIELDS)
    check_fields(path, vision, _VISION_FIELDS, "vision_config.")
    check_fields(path, text, _TEXT_FIELDS, "text_config.")
    for name, field in (
        ("visual_temporal_embedding", "max_temporal_embeddings"),
        ("image_pos_embed", "max_pos_embeddings"),
    ):
        check_fields(path, vision.get(name, {}), {field: _SIZE}, f"vision_config.{name}.")
    for part, values in (("vision_config", vision), ("text_config", text)):
        name = values.get("activation_function", "gelu")
        if name not in ACT2FN:
            raise CheckpointError(
                f"{path} is invalid: {part}.activation_function {shorten(name)} is not one of transformers'"
            )
    depths = vision.get("depths")
    for name in _STAGE_FIELDS:
        if depths and name in vision and len(vision[name]) != len(depths):
            raise CheckpointError(
                f"{path} is invalid: vision_config.{name} has {len(vision[name])} values, vision_config.depths {len(depths)}; "
                "both need one for each stage"
            )


def check_image_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Check the types and ranges of image settings.

    Raises:
        CheckpointError: if an image could not be preprocessed with them, or not to one size.
    """
    check_fields(path, settings, _IMAGE_FIELDS)
    for name in ("size", "crop_size"):
        value = settings.get(name)
        if isinstance(value, dict):
            check_fields(
                path, value, dict.fromkeys(("height", "width", "shortest_edge", "longest_edge"), _SIDE), f"{name}."
            )
    if image_size(settings) is None:
        raise CheckpointError(
            f"{path} is invalid: size {shorten(settings.get('size'))} does not give images of one size; "
            'expected {"height": …, "width": …} with "do_resize": true'
        )


def image_size(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the height and width of preprocessed images; None if they depend on the image."""
    if settings.get("do_center_crop", False):
        size = settings.get("crop_size")
        if isinstance(size, int):
            return size, size
    else:
        size = settings.get("size") if settings.get("do_resize", True) else None
    if isinstance(size, dict) and size.keys() >= {"height", "width"}:
        return size["height"], size["width"]
    return None


def check_image_tokens(path: Path, settings: Mapping[str, Any], config: Florence2Config) -> None:
    """Compare the size of images with the model: the number of image tokens, and the tables of positions.

    Args:
        path: the file of the image settings.
        settings: the image settings, checked.
        config: the model's, in transformers' layout.

    Raises:
        CheckpointError: names the size, and the number of tokens that it gives.
    """
    vision: Any = config.vision_config
    text: Any = config.text_config
    height, width = image_size(settings) or (0, 0)
    rows, columns = height, width
    for size, stride, padding in zip(vision.patch_size, vision.patch_stride, vision.patch_padding, strict=True):
        rows, columns = ((side + 2 * padding - size) // stride + 1 for side in (rows, columns))  # of a convolution
    num_tokens = rows * columns + 1
    problem = ""
    if min(rows, columns) < 1:
        problem = "is too small for the image encoder"
    elif max(rows, columns) > vision.max_position_embeddings:
        problem = (
            f"gives {rows} x {columns} image tokens; the model has positions for {vision.max_position_embeddings} on a side "
            "(vision_config.max_position_embeddings)"
        )
    elif num_tokens >= text.max_position_embeddings:
        problem = (
            f"gives {num_tokens:,} image tokens; with a prompt they do not fit the {text.max_position_embeddings:,} positions of "
            "the language model (text_config.max_position_embeddings)"
        )
    elif settings["image_seq_length"] != num_tokens:
        problem = f"gives {num_tokens:,} image tokens, but image_seq_length is {settings['image_seq_length']:,}"
    if problem:
        raise CheckpointError(f"{path} is invalid: size {height} x {width} {problem}")


def check_generation_settings(path: Path, settings: Mapping[str, Any], vocab_size: int, part: str = "") -> None:
    """Check a `generation_config.json`, or the same fields of another file.

    Args:
        path: the file, for messages.
        settings: the settings.
        vocab_size: number of token ids.
        part: as in `check_fields`.

    Raises:
        CheckpointError: for a value of another type, out of its range, or not supported.
    """
    check_fields(path, settings, STORED_SETTINGS, part)
    for name in (*_TOKEN_IDS, "suppress_tokens", "begin_suppress_tokens"):
        value = settings.get(name)
        if value == [] and name in _TOKEN_IDS:
            raise CheckpointError(f"{path} is invalid: {part}{name} must not be an empty list")
        for token_id in value if isinstance(value, list) else [value]:
            if token_id is not None and token_id >= vocab_size:
                raise CheckpointError(
                    f"{path} is invalid: {part}{name} {token_id} is not an id of the {vocab_size:,} tokens"
                )


def check_tokenizer_settings(folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the `tokenizer_config.json` of a folder.

    Args:
        folder: the folder.
        settings: the contents of its files, see `read_settings`.

    Raises:
        CheckpointError: for a value of another type, or a special token that is null.
    """
    name = "tokenizer_config.json"
    check_fields(folder / name, settings.get(name, {}), _TOKENIZER_FIELDS)


def check_adapter_config(path: Path, config: Mapping[str, Any]) -> None:
    """Check an `adapter_config.json`.

    Raises:
        CheckpointError: for a value of another type or out of its range.
    """
    check_fields(path, config, _ADAPTER_FIELDS)
    if config.get("peft_type") == "LORA":
        check_fields(path, config, _LORA_FIELDS)
        for name, hint in (("rank_pattern", _LORA_FIELDS["r"]), ("alpha_pattern", _LORA_FIELDS["lora_alpha"])):
            patterns = config.get(name) or {}
            check_fields(path, patterns, dict.fromkeys(patterns, hint), f"{name}.")
    if config.get("target_parameters"):
        raise CheckpointError(f"{path} is invalid: target_parameters is not supported, only target_modules")


def _check_quantization(path: Path, config: Mapping[str, Any]) -> None:
    for values in (config, config["text_config"], config["vision_config"]):
        stored = values.get("quantization_config")
        if stored is not None:
            raise quantized_error(path.parent, stored)


def quantized_error(folder: Path, stored: Any = None, names: Any = ()) -> CheckpointError:
    """Return the error for a quantized checkpoint.

    Args:
        folder: the checkpoint.
        stored: its `quantization_config`, if it has one.
        names: otherwise, names of quantized weights.
    """
    fields = stored if isinstance(stored, dict) else {}
    method = fields.get("quant_method") or fields.get("quant_algo") or "an unknown method"
    bits = _find_bits(fields)
    found = f" (weights such as {', '.join(sorted(names)[:2])})" if names else ""
    return CheckpointError(
        f"{folder} is quantized with {shorten(method) if not isinstance(method, str) else method[:60]}"
        f"{f', {shorten(bits)} bits' if bits else ''}{found}; quantized weights cannot be loaded. Use the checkpoint that was not "
        "quantized, or dequantize this one with the tool that made it"
    )


def _find_bits(fields: Mapping[str, Any], depth: int = 3) -> Any:
    """The number of bits in the description of a quantization, which each method writes in its own way."""
    for name, value in fields.items():
        match = re.fullmatch(r"_?load_in_(\d)bit", name)
        if match and value is True:
            return int(match[1])
        if name in ("bits", "num_bits", "w_bit", "nbits") and isinstance(value, int):
            return value
        if name.startswith("quant_") and (match := re.search(r"(?:int|fp|float)(\d+)", str(value))):
            return int(match[1])
    nested = (value for value in fields.values() if isinstance(value, dict) and depth)
    return next(filter(None, (_find_bits(value, depth - 1) for value in nested)), None)
