"""Arguments that several commands share, and options from the fields of a dataclass.

The options of `sft` and `pretrain` are derived by `add_dataclass_arguments`. `jsonargparse` and transformers'
`HfArgumentParser` do not accept `--dataset a b` for a `tuple[str, ...]`; the former also ignores the help text in a field's
metadata and does not accept `--compile 1`, and the latter imports transformers and NumPy for `--help`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..argument_validation import Range, validate_text, validate_value
from ..exceptions import ArgumentError, shorten
from ..loading.registry import available_models

if TYPE_CHECKING:
    from ..predictor import Predictor

GENERATE_OPTIONS = (
    *("max_new_tokens", "num_beams", "do_sample", "temperature", "top_p", "top_k"),
    *("constrain", "allowed_labels", "allowed_characters"),
)
"""Options of `florence_lab.generation_settings` that are passed to predictions if they are given."""

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_DURATION_RE = re.compile(r"(\d+\.?\d*|\.\d+)(ms|s|min|)")
_SECONDS_PER_UNIT = {"ms": 0.001, "s": 1, "min": 60, "": 1}
_NUMBER_NAMES = {int: "a whole number", float: "a number"}

T = TypeVar("T")


def parse_bool(text: str) -> bool:
    """Return the value of `true`, `1`, `yes`, `false`, `0` or `no`, in any case.

    Raises:
        argparse.ArgumentTypeError: for any other text.
    """
    if text.lower() not in _BOOLEANS:
        raise argparse.ArgumentTypeError(f"expected true or false, got {shorten(text)}")
    return _BOOLEANS[text.lower()]


def parse_query(text: str) -> str:
    """Return a query.

    Raises:
        argparse.ArgumentTypeError: for one from bytes that are not UTF-8.
    """
    return _check("query", lambda: validate_text("query", text))


def parse_duration(text: str) -> float:
    """Return the seconds of `1s`, `500ms`, `2min` or `0.5`.

    Raises:
        argparse.ArgumentTypeError: for any other text, and for no time at all.
    """
    match = _DURATION_RE.fullmatch(text.strip().lower())
    seconds = float(match[1]) * _SECONDS_PER_UNIT[match[2]] if match else 0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected a time such as 1s, 500ms or 2, got {shorten(text)}")
    return seconds


def number_parser(name: str, number_type: type[T], limits: Range | None = None) -> Callable[[str], T]:
    """Return the `type` of an option that is a number.

    Args:
        name: of the option, which has its range in `NUMBER_RANGES`.
        number_type: int or float.
        limits: the range of an option that is not in `NUMBER_RANGES`.
    """

    def parse(text: str) -> T:
        try:
            number = number_type(text)  # type: ignore[call-arg]
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {_NUMBER_NAMES[number_type]}, got {shorten(text)}") from None
        hint = Annotated[number_type, limits] if limits else number_type
        return _check(name, lambda: validate_value(name, number, hint))

    return parse


def _check(name: str, check: Callable[[], T]) -> T:
    """Raise an error of the package as one that argparse shows behind the name of the option."""
    try:
        return check()
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix(f"{name} ")) from None


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `load_predictor` without those that select a checkpoint."""
    parser.add_argument(
        "--model_type",
        default="florence-2-nano",
        help=f"one of {', '.join(available_models())}, a folder or a hub id (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    parser.add_argument("--dtype", default="fp32", help="fp32, fp16, bf16 or auto (default: %(default)s)")
    parser.add_argument(
        "--quantize",
        help="int8 or int4: weights of the language model in 8 or 4 bits, see florence_lab.load (default: not quantized)",
    )
    parser.add_argument("--hub", help="modelscope or hf (default: $FLORENCE_LAB_HUB, else modelscope)")
    parser.add_argument(
        "--compile",
        type=parse_bool,
        default=False,
        help="compile the image encoder ahead of time for faster inference: about one minute at the first call, cached on "
        "disk (default: false)",
    )


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that select a checkpoint in place of `--model_type`."""
    parser.add_argument(
        "--model_id_or_path",
        help="checkpoint folder or hub id, instead of --model_type; together with --ckpt_dir the base model of its adapter",
    )
    parser.add_argument("--ckpt_dir", help="checkpoint folder of a fine-tuning run, instead of --model_type")
    parser.add_argument(
        "--processor",
        help="model whose tokenizer and image settings are used, for a checkpoint of weights and config.json only",
    )


def load_predictor(arguments: argparse.Namespace) -> Predictor:
    """Load the model that the options of `add_model_arguments` and `add_checkpoint_arguments` select.

    Raises:
        ValueError, HubError, CheckpointError: as `florence_lab.load`.
    """
    from ..predictor import load

    base = getattr(arguments, "model_id_or_path", None)
    checkpoint = getattr(arguments, "ckpt_dir", None)
    options = {
        "base": base if checkpoint else None,
        "processor": getattr(arguments, "processor", None),
        "quantize": arguments.quantize,
    }
    return load(
        checkpoint or base or arguments.model_type,
        arguments.device,
        arguments.dtype,
        arguments.hub or None,
        arguments.compile,
        **{name: value for name, value in options.items() if value is not None},
    )


def generate_kwargs(arguments: argparse.Namespace, names: Sequence[str] = GENERATE_OPTIONS) -> dict[str, Any]:
    """Return the options for `generate` that were given."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def add_dataclass_arguments(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add an option for each field of a dataclass.

    Args:
        parser: the parser of a command.
        cls: a dataclass whose fields all have defaults, and `metadata["help"]`. A field's type is str, int, float, bool, a
            `Literal`, a `tuple[…, ...]` of one of them (one or more values), or one of these with `| None`. Choices are those
            of the `Literal`, or `metadata["choices"]`.
    """
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, default = _without_none(hints[field.name]), _default(field)
        is_tuple = get_origin(hint) is tuple
        value_type = get_args(hint)[0] if is_tuple else hint
        choices = field.metadata.get("choices")
        if get_origin(value_type) is Literal:
            choices = get_args(value_type)
            value_type = type(choices[0])
        shown = " ".join(map(str, default)) if is_tuple else default
        parser.add_argument(
            f"--{field.name}",
            type=parse_bool if value_type is bool else value_type,
            default=default,
            choices=choices,
            nargs="+" if is_tuple else None,
            metavar=value_type.__name__.upper() if is_tuple else None,
            help=(field.metadata["help"] + ("" if shown in ("", None) else f" (default: {shown})")).replace("%", "%%"),
        )


def to_dataclass(arguments: argparse.Namespace, cls: type[T]) -> T:
    """Return a dataclass with the values of the options that `add_dataclass_arguments` added."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # cls is a dataclass, which typing cannot express before 3.13
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _without_none(hint: Any) -> Any:
    """The type T of `T | None`."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (arg for arg in get_args(hint) if arg is not type(None))
    return hint


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
