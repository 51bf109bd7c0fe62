"""`classes.yaml`: the classes of a dataset, with the phrases that stand for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from ..argument_validation import validate_arguments
from ..detection.ontology import ClassNames, Ontology
from ..exceptions import ArgumentError, shorten
from .sources import expand_user

Classes = str | Path | ClassNames | Ontology
"""The path of a file, names, a mapping from name to phrases, or an ontology."""


def resolve_ontology(classes: Classes) -> Ontology:
    """Return the ontology of classes, read from a file if they are a path.

    Raises:
        ArgumentError: as `read_ontology` and `Ontology`.
    """
    if isinstance(classes, Ontology):
        return classes
    if isinstance(classes, (str, Path)):
        return read_ontology(classes)
    return Ontology.from_classes(classes)


@validate_arguments
def read_ontology(path: str | Path) -> Ontology:
    """Read `classes.yaml`. The order of the classes gives their ids.

    The file is a list of names, or a mapping from name to nothing, a phrase, or a list of phrases. A file with `names`, such as
    the `data.yaml` of YOLO, does as well. JSON is YAML.

        sheep: a white sheep
        person: [man, woman]
        dog:

    Args:
        path: the file.

    Raises:
        ArgumentError: for a file that cannot be read or has another form, and as `Ontology`. The message names the file.
    """
    path = expand_user(path)
    content = _read_yaml(path)
    if isinstance(content, Mapping) and isinstance(content.get("names"), (list, Mapping)):
        content = _number_names(content["names"], path)
    try:
        return Ontology.from_classes(_to_classes(content))
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from error


class _Loader(yaml.SafeLoader):
    """Reads values only, and refuses a key that occurs twice, of which YAML's readers keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shorten(key.value)} occurs twice", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_bytes().decode("utf-8-sig"), _Loader)  # noqa: S506  # a SafeLoader
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise ArgumentError(f"{path} is not UTF-8 (byte {error.start}); save it with this encoding") from error
        reason = (
            getattr(error, "strerror", None) or error
        )  # ValueError: a null byte in the path, a date that does not exist
        raise ArgumentError(f"the classes {shorten(str(path), 200)} cannot be read: {reason}") from error
    except Exception as error:  # its own errors, and for odd values nearly any
        raise ArgumentError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from error


def _to_classes(content: Any) -> ClassNames:
    if isinstance(content, Mapping):
        return {_text(name): _phrases(name, value) for name, value in content.items()}
    if isinstance(content, list):
        return [_text(name) for name in content]
    raise ArgumentError(
        f"expected a list of classes (a line '- cat' for each) or class: phrases, got {_describe(content)}"
    )


def _number_names(names: list | Mapping, path: Path) -> list:
    """The names of `data.yaml`: a list, or number -> name, whose numbers are then 0, 1, … as class ids are."""
    if isinstance(names, list):
        return names
    numbers = sorted(names, key=lambda number: (not isinstance(number, int), number if isinstance(number, int) else 0))
    if numbers != list(range(len(numbers))):
        raise ArgumentError(f"{path}: the numbers of names must be 0 to {len(numbers) - 1}, got {shorten(numbers)}")
    return [names[number] for number in numbers]


def _phrases(name: Any, value: Any) -> str | Sequence[str]:
    if value is None:
        return _text(name)
    if isinstance(value, list):
        return [_text(item) for item in value]
    return _text(value)


def _text(value: Any) -> str:
    """A name or a phrase. YAML reads `no` as a Boolean, and `2` as a number, which must be quoted."""
    if not isinstance(value, str):
        is_plain = isinstance(value, (bool, int, float, date)) or value is None
        hint = "; put it into quotes" if is_plain else ""
        raise ArgumentError(f"expected the name of a class or a phrase, got {_describe(value)}{hint}")
    text = value.strip()
    if len(text.splitlines()) > 1:
        raise ArgumentError(f"the name of a class or a phrase must be a single line, got {shorten(text)}")
    return text


def _describe(value: Any) -> str:
    """A value for a message. Lists and mappings may contain themselves, or each other many times."""
    return f"a {type(value).__name__}" if isinstance(value, (list, dict, set, tuple)) else shorten(value)
