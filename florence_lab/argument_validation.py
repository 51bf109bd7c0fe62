"""Validation of arguments where they enter the package, from the annotations of functions and dataclasses.

`validate_arguments` checks the arguments of a function, `validate_fields` the fields of a dataclass. Both compare each value with
its annotation, and each number with its entry in `NUMBER_RANGES`. Importing this module needs neither torch nor transformers.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from .exceptions import ArgumentError, ArgumentTypeError, shorten

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Range:
    """The permitted values of a finite number.

    Attributes:
        minimum: the least value.
        maximum: the greatest value.
        is_open: whether the minimum itself is excluded.
    """

    minimum: float = -math.inf
    maximum: float = math.inf
    is_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.minimum if self.is_open else value >= self.minimum
        is_finite = abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)
        return is_finite and above and value <= self.maximum

    def __str__(self) -> str:
        lower = f"{'greater than' if self.is_open else 'at least'} {self.minimum:,}"
        upper = f"at most {self.maximum:,}"
        bounds = [text for text, bound in ((lower, self.minimum), (upper, self.maximum)) if math.isfinite(bound)]
        return " and ".join(bounds) or "finite"


_COUNT, _POSITIVE, _NOT_NEGATIVE = Range(1), Range(0, is_open=True), Range(0)
_PROBABILITY = Range(0, 1)
_PROCESSES = Range(0, 1024)
_MAX_SEED = 2**32 - 1  # of NumPy

NUMBER_RANGES: dict[str, Range] = {
    # prediction and evaluation
    "batch_size": _COUNT,
    "threshold": _PROBABILITY,
    "nms_iou": _PROBABILITY,
    "timeout": Range(0, 86_400, is_open=True),
    "max_bytes": _COUNT,
    "seed": Range(0, _MAX_SEED),
    "top": _COUNT,
    "repeats": _COUNT,
    "time_limit": _POSITIVE,
    "port": Range(0, 65_535),
    "count": _COUNT,
    "image_size": _COUNT,
    "phrasing": _NOT_NEGATIVE,
    "max_objects": _COUNT,
    "columns": _COUNT,
    "num_bins": Range(1, 10_000),
    "num_tasks": _COUNT,
    "num_per_task": _COUNT,
    "num_questions": Range(2),
    # generation settings, as transformers defines them
    "max_new_tokens": _COUNT,
    "max_length": _COUNT,
    "min_length": _NOT_NEGATIVE,
    "min_new_tokens": _NOT_NEGATIVE,
    "max_time": _POSITIVE,
    "num_beams": Range(1, 1000),
    "temperature": _POSITIVE,
    "top_k": _NOT_NEGATIVE,
    "top_p": Range(0, 1, is_open=True),
    "min_p": _PROBABILITY,
    "typical_p": Range(0, 1, is_open=True),
    "epsilon_cutoff": _PROBABILITY,
    "eta_cutoff": _PROBABILITY,
    "repetition_penalty": _POSITIVE,
    "encoder_repetition_penalty": _POSITIVE,
    "no_repeat_ngram_size": _NOT_NEGATIVE,
    # fine-tuning
    "max_target_tokens": _COUNT,
    "lora_rank": Range(1, 16_384),
    "lora_alpha": _POSITIVE,
    "lora_dropout": _PROBABILITY,
    "num_train_epochs": Range(0, 1_000_000, is_open=True),
    "gradient_accumulation_steps": _COUNT,
    "learning_rate": _POSITIVE,
    "warmup_ratio": _PROBABILITY,
    "weight_decay": _NOT_NEGATIVE,
    "max_grad_norm": _POSITIVE,
    "dataloader_num_workers": _PROCESSES,
    "logging_steps": _COUNT,
    "eval_steps": _COUNT,
    "save_total_limit": _COUNT,
    "early_stopping_patience": _NOT_NEGATIVE,
    # pretraining
    "steps": _COUNT,
    "tasks_per_image": _COUNT,
    "new_scenes": _COUNT,
    "remembered": _COUNT,
    "lr": _POSITIVE,
    "warmup": _NOT_NEGATIVE,
    "clip": _POSITIVE,
    "ema_decay": _PROBABILITY,
    "location_sigma": _POSITIVE,
    "helper": _NOT_NEGATIVE,
    "save_every": _COUNT,
    "measure_every": _COUNT,
    "measured": Range(1, 100_000),  # the held-out scenes
    "workers": _PROCESSES,
}
"""Name of a parameter or field -> its permitted values. A `Range` in `Annotated[int, Range(…)]` takes precedence."""


def validate_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that its arguments are compared with their annotations at each call.

    Numbers of NumPy become those of Python. Annotations that are not known here, such as a tensor where torch is imported for
    type checking only, accept any value.

    Raises (the decorated function):
        ArgumentTypeError: for a value of another type; the message names argument, value and what is expected.
        ArgumentError: for a number out of its range, an unknown choice, or text that is not valid Unicode.
    """
    signature = inspect.signature(function)

    @functools.cache
    def hints() -> dict[str, Any]:
        return resolve_hints(function, function.__module__)

    @functools.wraps(function)
    def validated(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if name in hints() and kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                bound.arguments[name] = validate_value(name, value, hints()[name])
        return function(*bound.args, **bound.kwargs)

    return validated


def validate_fields(instance: Any) -> None:
    """Compare the fields of a dataclass with their annotations, for its `__post_init__`. Also for a frozen one.

    Raises:
        ArgumentError: as `validate_arguments`.
    """
    hints = _hints_of_class(type(instance))  # type: ignore[arg-type]  # a class is hashable
    for item in fields(instance):
        if item.init and item.name in hints:
            value = validate_value(item.name, getattr(instance, item.name), hints[item.name])
            object.__setattr__(instance, item.name, value)


def validate_value(name: str, value: Any, hint: Any) -> Any:
    """Return a value in the form of its annotation.

    Args:
        name: of the argument, for messages and `NUMBER_RANGES`.
        value: what the caller passed.
        hint: the annotation: int, float, bool, str, None, a `Literal`, a class, a union, `Annotated[int, Range(…)]`, or a
            collection of one of them. Anything else accepts all values.

    Raises:
        ArgumentError: as `validate_arguments`.
    """
    default = NUMBER_RANGES.get(name, Range())
    options = []
    for option in _union_members(hint):
        base, *metadata = get_args(option) if get_origin(option) is Annotated else (option,)
        limits = next((item for item in metadata if isinstance(item, Range)), default)
        options += [(member, limits) for member in _union_members(base)]
    matching = [(option, limits) for option, limits in options if _is_type(value, option)]
    if isinstance(value, str) and any(option is Path for option, _ in options):
        _to_path(name, value)  # refuses a null byte, which Python refuses without the name of the argument
    for option, limits in matching:
        try:
            return _normalize(name, value, option, limits)
        except ArgumentTypeError:  # of an item, which may have the type of the next option
            if option is matching[-1][0]:
                raise
    hints = [option for option, _ in options]
    expected = " or ".join(dict.fromkeys(map(_describe, hints)))
    error = ArgumentError if any(get_origin(option) is Literal for option in hints) else ArgumentTypeError
    raise error(f"{name} must be {expected}, got {shorten(value)}")


def validate_text(name: str, value: str) -> str:
    """Return a text that can be encoded.

    Raises:
        ArgumentError: if it contains a lone surrogate: half of a character, as from bytes that are not UTF-8.
    """
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ArgumentError(
                f"{name} {shorten(value)} contains a lone surrogate, which is no character; was it read from bytes that are "
                "not UTF-8?"
            ) from None
    return value


def resolve_hints(annotated: Any, module_name: str) -> dict[str, Any]:
    """Return the annotations of a function or class, evaluated one by one. Those that cannot be evaluated are left out."""
    namespace = vars(sys.modules[module_name])
    hints: dict[str, Any] = {}
    for name, annotation in inspect.get_annotations(annotated).items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints |= get_type_hints(holder, namespace, include_extras=True)
        except (NameError, TypeError, AttributeError):  # imported for type checking only
            continue
    return hints


@functools.cache
def _hints_of_class(cls: type) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__ in sys.modules:
            hints |= resolve_hints(base, base.__module__)
    return hints


def _union_members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_type(value: Any, hint: Any) -> bool:
    """Whether a value has the type of an annotation, apart from ranges and the items of a collection."""
    if hint in _TYPES:
        return _TYPES[hint](value)
    origin = get_origin(hint)
    if origin is Literal:
        return isinstance(value, str | int | float | bool | None) and value in get_args(hint)
    base = origin or hint
    if base in (list, tuple):
        base = Sequence  # either is accepted
    if not isinstance(base, type):
        return True
    if base in (Collection, Iterable, Sequence):
        is_text = isinstance(value, (str, bytes, bytearray, Mapping))
        is_array = hasattr(value, "__array__") and getattr(value, "ndim", 1) > 0
        return not is_text and (isinstance(value, base) or is_array)
    return isinstance(value, base)


def _normalize(name: str, value: Any, hint: Any, limits: Range) -> Any:
    if hint in (int, float):
        return _check_range(name, _to_python(value, hint), limits)
    if hint is bool:
        return bool(value)
    if hint is str:
        return validate_text(name, value)
    if hint is Path:
        return _to_path(name, value)
    items = get_args(hint)
    if all(item in (Any, Ellipsis) for item in items) or get_origin(hint) is Literal:
        return value
    if isinstance(value, Mapping) and len(items) == 2:
        for key, item in value.items():
            validate_value(f"a key of {name}", key, items[0])
            validate_value(f"{name}[{shorten(key)}]", item, items[1])
        return value
    return _normalize_items(name, value, hint)


def _normalize_items(name: str, value: Any, hint: Any) -> Any:
    """Validate the items of a list, tuple, set or array. Arrays become lists, and values of a tuple annotation tuples."""
    items, origin = get_args(hint), get_origin(hint)
    if hasattr(value, "__array__") and origin in (list, tuple, Collection, Iterable, Sequence):
        value = _array_to_list(name, value)
    if not isinstance(value, (list, tuple, AbstractSet)):
        return value
    item_hints = items if origin is tuple and items[-1] is not Ellipsis else (items[0],) * len(value)
    if len(item_hints) != len(value):
        raise ArgumentTypeError(f"{name} must be {len(item_hints)} values, got {shorten(value)}")
    checked = [validate_value(name, item, item_hint) for item, item_hint in zip(value, item_hints, strict=True)]
    return tuple(checked) if origin is tuple else value


def _array_to_list(name: str, array: Any) -> list[Any]:
    """The items of an array or tensor: Python's numbers and strings if it has one axis."""
    try:
        return list(array.tolist()) if array.ndim == 1 else list(array)
    except Exception:  # such as a tensor without data
        raise ArgumentTypeError(f"{name} must be a sequence, got {shorten(array)}") from None


def _to_python(value: Any, number_type: type) -> Any:
    try:
        return number_type(value)
    except OverflowError:  # an integer beyond the floats
        return math.inf


def _to_path(name: str, value: str | os.PathLike) -> Path:
    if "\0" in os.fspath(value):
        raise ArgumentError(f"{name} {shorten(value)} contains a null byte")
    return Path(value)


def _check_range(name: str, number: float, limits: Range) -> float:
    if number not in limits:
        expected = limits if isinstance(number, int) or math.isfinite(number) else Range()
        raise ArgumentError(f"{name} must be {expected}, got {shorten(number)}")
    return number


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")  # NumPy's has both names


def _is_path(value: Any) -> bool:
    return isinstance(value, os.PathLike) and isinstance(_fspath(value), str)


def _fspath(value: os.PathLike) -> Any:
    try:
        return os.fspath(value)
    except Exception:  # a `__fspath__` of the caller's own
        return None


_TYPES: dict[Any, Callable[[Any], bool]] = {
    int: _is_whole,
    float: _is_real,
    bool: _is_bool,
    Path: _is_path,
    str: lambda value: isinstance(value, str),
    None: lambda value: value is None,
    type(None): lambda value: value is None,
    Any: lambda value: True,
}

_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a string",
    Path: "a path",
    None: "None",
    type(None): "None",
}


def _describe(hint: Any) -> str:
    """What an annotation accepts, in words."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if hint in _NAMES:
        return _NAMES[hint]
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    base = get_origin(hint) or hint
    name = base.__name__ if isinstance(base, type) else str(base)
    article = "an" if name[0] in "AEIOU" else "a"
    if isinstance(base, type) and issubclass(base, Collection | Iterable) and get_args(hint):
        return f"a {name.lower()} of {_describe_items(hint)}"
    return f"{article} {name}"


def _describe_items(hint: Any) -> str:
    items = [item for item in get_args(hint) if item is not Ellipsis]
    return ", ".join(_describe(item).removeprefix("a ").removeprefix("an ") + "s" for item in items[:1])
