"""The generation settings that Florence-2 supports, and their validation. Importing this module needs no torch.

Names and meaning are those of transformers' `GenerationConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from .argument_validation import Range, validate_value
from .exceptions import ArgumentError, unknown_name

_TokenId = Annotated[int, Range(0)]
_TokenIds = Sequence[_TokenId]

GENERATION_SETTINGS: dict[str, Any] = {
    # length
    "max_new_tokens": int,
    "max_length": Annotated[int, Range(2)],  # counts the start token
    "min_new_tokens": int,
    "min_length": int,
    "max_time": float,
    # beams and sampling
    "num_beams": int,
    "early_stopping": bool | Literal["never"],
    "length_penalty": float,
    "do_sample": bool,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "typical_p": float,
    "epsilon_cutoff": float,
    "eta_cutoff": float,
    # processing of the logits
    "no_repeat_ngram_size": int,
    "repetition_penalty": float,
    "exponential_decay_length_penalty": tuple[_TokenId, float],
    "bad_words_ids": Sequence[Sequence[_TokenId]],
    "sequence_bias": Mapping[Any, float] | Sequence[Any],
    "suppress_tokens": _TokenIds,
    "begin_suppress_tokens": _TokenIds,
    "renormalize_logits": bool,
    "remove_invalid_values": bool,
    # special tokens
    "bos_token_id": _TokenId,
    "pad_token_id": _TokenId,
    "eos_token_id": _TokenId | _TokenIds,
    "decoder_start_token_id": _TokenId,
    "forced_bos_token_id": _TokenId,
    "forced_eos_token_id": _TokenId | _TokenIds,
    "use_cache": bool,
}
"""Setting -> its type. Ranges of numbers are those of `NUMBER_RANGES`. None stands for the default."""

CONSTRAINT_SETTINGS: dict[str, Any] = {
    "constrain": bool,
    "allowed_labels": Sequence[str],
    "allowed_characters": str,
}
"""Settings of florence_lab's own, beside those of transformers -> their types. They restrict answers to the grammar of their task:

- `constrain`: only tokens that continue a whole answer are generated: boxes of four ordered corners, quad boxes of four points,
  polygons of at least three, phrases of the caption in phrase grounding, no location tokens in a text.
- `allowed_labels`: the labels of instances, or the whole text of an answer that is a text, are among these.
- `allowed_characters`: words that are read, and answers of text, consist of these characters.

The last two imply the first. The empty answer is always possible. `result.scores` stay the model's own probabilities, before the
restriction. An answer that `max_new_tokens` cuts off may end with an incomplete instance, which the parser drops. A restriction
chooses among words, it does not look again: a model that sees a dog and may only say "cat" may call the dog a cat. `Predictor.detect`
asks for classes and verifies them, and `Predictor.score` ranks given answers."""

_UNSUPPORTED: dict[str, str] = {
    "num_return_sequences": "one answer per prompt is returned; sample several times instead",
    "return_dict_in_generate": "results are parsed; probabilities are in `result.scores` and `trace`",
    "output_scores": "probabilities are in `result.scores` and `trace`",
    "output_logits": "probabilities are in `result.scores` and `trace`",
    "output_attentions": "see `trace`",
    "output_hidden_states": "see `trace`",
}
"""Settings of transformers' `generate` that a caller may expect -> what to use instead."""


STORED_SETTINGS: dict[str, Any] = {
    **{name: hint | None for name, hint in GENERATION_SETTINGS.items()},
    # what predictions do not support, apart from the values without an effect
    **dict.fromkeys(("return_dict_in_generate", "output_scores", "output_logits"), Literal[False] | None),
    **dict.fromkeys(("output_attentions", "output_hidden_states", "token_healing"), Literal[False] | None),
    **dict.fromkeys(("num_return_sequences", "num_beam_groups", "guidance_scale"), Literal[1, 1.0] | None),
    **dict.fromkeys(("penalty_alpha", "diversity_penalty"), Literal[0, 0.0] | None),
    **dict.fromkeys(("stop_strings", "cache_implementation", "cache_config", "watermarking_config"), None),
    **dict.fromkeys(("prompt_lookup_num_tokens", "dola_layers", "constraints", "force_words_ids"), None),
    **dict.fromkeys(("assistant_early_exit", "compile_config"), None),
}
"""Setting in the `generation_config.json` of a checkpoint -> its type. Fields that are not listed have no effect."""


def validate_generation_settings(settings: Mapping[str, Any], vocab_size: int | None = None) -> dict[str, Any]:
    """Return generation settings with valid values. Those that are None are left out.

    Args:
        settings: name -> value.
        vocab_size: number of token ids; None accepts any id of at least 0.

    Raises:
        ArgumentError: for an unknown or unsupported setting, a value of another type or out of its range, and settings that
            contradict each other. The message names setting, value and what would do.
    """
    known = GENERATION_SETTINGS | CONSTRAINT_SETTINGS
    valid: dict[str, Any] = {}
    for name, value in settings.items():
        if name in _UNSUPPORTED:
            raise ArgumentError(f"unsupported generation argument {name!r}: {_UNSUPPORTED[name]}")
        if name not in known:
            raise ArgumentError(unknown_name("generation argument", name, known))
        if value is not None:
            valid[name] = validate_value(name, value, known[name])
            _check_token_ids(name, valid[name], vocab_size)
    if valid.get("min_new_tokens", 0) > valid.get("max_new_tokens", float("inf")):
        raise ArgumentError(
            f"min_new_tokens = {valid['min_new_tokens']} is greater than max_new_tokens = {valid['max_new_tokens']}"
        )
    return valid


def validate_stored_settings(config: Any, vocab_size: int | None = None) -> None:
    """Validate the settings of a `GenerationConfig`, as of a checkpoint.

    Args:
        config: the configuration.
        vocab_size: number of token ids.

    Raises:
        ArgumentError: as `validate_generation_settings`.
    """
    stored = {name: getattr(config, name, None) for name in STORED_SETTINGS}
    for name in STORED_SETTINGS.keys() - GENERATION_SETTINGS.keys():
        validate_value(name, stored[name], STORED_SETTINGS[name])
    validate_generation_settings({name: stored[name] for name in GENERATION_SETTINGS}, vocab_size)


def _check_token_ids(name: str, value: Any, vocab_size: int | None) -> None:
    if vocab_size is None or not (name.endswith("token_id") or name in ("suppress_tokens", "begin_suppress_tokens")):
        return
    ids = value if isinstance(value, Sequence) else [value]
    for token_id in ids:
        if token_id >= vocab_size:
            raise ArgumentError(f"{name} must be less than the {vocab_size} tokens of the vocabulary, got {token_id}")
