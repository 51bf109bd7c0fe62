"""TODO"""

from __future__ import annotations

import argparse
import dataclasses
import typing
from typing import TYPE_CHECKING, Any, get_type_hints

from ..loading.registry import available_models

if TYPE_CHECKING:
    from ..predictor import Predictor

GENERATION = ("max_new_tokens", "num_beams", "do_sample", "temperature", "top_p", "top_k")


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


def _add_model_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model_type",
        default="florence-2-nano",
        help=f"one of {', '.join(available_models())} (default: %(default)s)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    command.add_argument("--dtype", default="fp32", help="fp32, fp16, bf16 or auto (default: %(default)s)")
    command.add_argument("--hub", help="modelscope or hf (default: $FLORENCE_LAB_HUB, else modelscope)")
    command.add_argument(
        "--compile", type=_boolean, default=False, help="answer faster, after a minute's wait once (default: false)"
    )


def _add_which_model(command: argparse.ArgumentParser) -> None:
    which = command.add_mutually_exclusive_group()
    which.add_argument("--model_id_or_path", help="a checkpoint folder or the id of a model on a hub")
    which.add_argument("--ckpt_dir", help="a checkpoint folder that fine-tuning wrote")


def _load(arguments: argparse.Namespace) -> Predictor:
    from ..predictor import load

    which = vars(arguments)
    model = which.get("ckpt_dir") or which.get("model_id_or_path") or arguments.model_type
    return load(model, arguments.device, arguments.dtype, arguments.hub, arguments.compile)


def _add_fields(command: argparse.ArgumentParser, arguments: type) -> None:
    """An option for every field of a dataclass of arguments."""
    types = get_type_hints(arguments)
    for field in dataclasses.fields(arguments):
        kind, many = types[field.name], typing.get_origin(types[field.name]) is tuple
        # of `float | None` and `tuple[str, ...]`, the first
        kind = typing.get_args(kind)[0] if typing.get_args(kind) else kind
        default = " ".join(field.default) if many else field.default
        command.add_argument(
            f"--{field.name}",
            type=_boolean if kind is bool else kind,
            default=field.default,
            choices=field.metadata["choices"],
            nargs="+" if many else None,
            metavar=kind.__name__.upper() if many else None,
            help=field.metadata["help"] + ("" if default in ("", None) else f" (default: {default})"),
        )


def _fields_of(arguments: argparse.Namespace, kind: type) -> dict[str, Any]:
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(kind)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
