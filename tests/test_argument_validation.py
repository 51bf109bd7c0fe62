"""`validate_arguments` and `validate_fields`: types, ranges and text at the doors of the package."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from florence_lab import ArgumentError, ArgumentTypeError
from florence_lab.argument_validation import Range, validate_arguments, validate_fields, validate_value

VALID = [
    ("batch_size", 3, int, 3),
    ("batch_size", np.int64(3), int, 3),
    ("temperature", 1, float, 1.0),
    ("temperature", np.float32(0.5), float, 0.5),
    ("flag", np.bool_(True), bool, True),
    ("folder", "x", str | Path, "x"),
    ("folder", PurePosixPath("x"), str | Path, Path("x")),
    ("text", None, str | None, None),
    ("kind", "b", Literal["a", "b"], "b"),
    ("names", ["a", "b"], tuple[str, ...], ("a", "b")),
    ("names", ("a",), list[str], ("a",)),
    ("pair", [1, "a"], tuple[int, str], (1, "a")),
    ("items", iter("ab"), Iterable[Any], None),
    ("size", 7, Annotated[int, Range(1, 9)], 7),
    ("ids", 2, Annotated[int, Range(0)] | Sequence[Annotated[int, Range(0)]], 2),
    ("ids", [2, 3], Annotated[int, Range(0)] | Sequence[Annotated[int, Range(0)]] | None, None),
    ("function", len, Callable[..., Any], len),
    ("settings", {"a": 1}, Mapping[str, Any], {"a": 1}),
    ("points", np.array([1, 2]), Sequence[float], [1.0, 2.0]),
    ("whatever", object, Any, object),
]

INVALID = [
    ("batch_size", 0, int, "batch_size must be at least 1, got 0"),
    ("batch_size", True, int, "batch_size must be a whole number, got True"),
    ("batch_size", 1.5, int, "batch_size must be a whole number, got 1.5"),
    ("batch_size", "8", int, "batch_size must be a whole number, got '8'"),
    ("batch_size", None, int, "batch_size must be a whole number, got None"),
    ("batch_size", 10**400, int, "batch_size must be at least 1"),
    ("temperature", 0.0, float, "temperature must be greater than 0, got 0.0"),
    ("temperature", math.nan, float, "temperature must be finite, got nan"),
    ("anything", math.inf, float, "anything must be finite, got inf"),
    ("anything", 10**400, float, "anything must be finite, got inf"),
    ("top_p", 1.5, float, "top_p must be greater than 0 and at most 1, got 1.5"),
    ("flag", "false", bool, "flag must be True or False, got 'false'"),
    ("flag", 1, bool, "flag must be True or False, got 1"),
    ("text", b"x", str, "text must be a string, got b'x'"),
    ("text", "a\ud800", str, "lone surrogate"),
    ("folder", 3, str | Path, "folder must be a string or a path, got 3"),
    ("folder", Path("a\0b"), str | Path, "null byte"),
    ("kind", "c", Literal["a", "b"], "kind must be one of 'a', 'b', got 'c'"),
    ("kind", [], Literal["a", "b"], "kind must be one of 'a', 'b', got []"),
    ("names", "abc", tuple[str, ...], "names must be a tuple of strings, got 'abc'"),
    ("names", [5], Sequence[str], "names must be a string, got 5"),
    ("names", 5, list[str] | None, "names must be a list of strings or None, got 5"),
    ("pair", [1], tuple[int, str], "pair must be 2 values, got [1]"),
    ("size", 10, Annotated[int, Range(1, 9)], "size must be at least 1 and at most 9, got 10"),
    ("ids", [-1], Annotated[int, Range(0)] | Sequence[Annotated[int, Range(0)]], "ids must be at least 0, got -1"),
    ("function", 3, Callable[..., Any], "function must be"),
]


@pytest.mark.parametrize(("name", "value", "hint", "expected"), VALID)
def test_valid_values(name, value, hint, expected):
    result = validate_value(name, value, hint)
    assert result is value if expected is None else result == expected
    if isinstance(expected, (int, float)):
        assert type(result) is type(expected)


@pytest.mark.parametrize(("name", "value", "hint", "message"), INVALID)
def test_invalid_values(name, value, hint, message):
    with pytest.raises(ArgumentError) as error:
        validate_value(name, value, hint)
    assert message in str(error.value)
    assert str(error.value).isprintable()


def test_wrong_types_are_type_errors_and_wrong_values_are_not():
    with pytest.raises(ArgumentTypeError):
        validate_value("batch_size", "8", int)
    with pytest.raises(ArgumentError) as error:
        validate_value("batch_size", 0, int)
    assert not isinstance(error.value, TypeError)


def test_function_and_method():
    class Model:
        @validate_arguments
        def predict(self, image: Any, batch_size: int = 8, *names: str, **settings: Any) -> int:
            """Docstring."""
            return batch_size

    assert Model().predict(None) == 8
    assert Model().predict(None, np.int32(2), "a", b=3) == 2
    assert Model.predict.__doc__ == "Docstring."
    with pytest.raises(ArgumentError, match="batch_size must be at least 1, got 0"):
        Model().predict(None, batch_size=0)


def test_fields_of_a_frozen_dataclass():
    @dataclass(frozen=True)
    class Options:
        learning_rate: float | None = None
        tasks: tuple[str, ...] = ()

        def __post_init__(self):
            validate_fields(self)

    assert Options(1, ["a"]) == Options(1.0, ("a",))
    with pytest.raises(ArgumentError, match="learning_rate must be finite, got inf"):
        Options(math.inf)


def test_a_repr_that_raises_or_is_long_does_not_spoil_the_message():
    class Bad:
        def __repr__(self):
            raise RuntimeError

    with pytest.raises(ArgumentError, match="got <Bad>"):
        validate_value("batch_size", Bad(), int)
    with pytest.raises(ArgumentError) as error:
        validate_value("batch_size", "x" * 10_000, int)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("value", "hint", "is_valid"),
    [
        (["a", "b"], Sequence[float] | Sequence[str], True),
        ([1, 2], Sequence[float] | Sequence[str], True),
        ([None], Sequence[float] | Sequence[str], False),
        (np.array([1.0, 2.0]), Sequence[float], True),
        (np.array(["a"]), Sequence[str], True),
        (np.array(["a"]), Sequence[float], False),
        (np.array([None], object), Sequence[str], False),
        (np.array(3), Sequence[float], False),
    ],
)
def test_the_items_of_arrays_and_of_unions_of_sequences_are_validated(value, hint, is_valid):
    if is_valid:
        assert validate_value("values", value, hint) is not None
    else:
        with pytest.raises(ArgumentTypeError, match="values must be"):
            validate_value("values", value, hint)
