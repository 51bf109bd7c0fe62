"""`classes.yaml`: the classes of a dataset, with the phrases that stand for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..argument_validation import validate_arguments
from ..detection.ontology import ClassNames, Ontology
from ..exceptions import ArgumentError, shorten

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
        ArgumentError: for a file that cannot be read or has another form, and as `Ontology`.
    """
    import yaml

    path = Path(path).expanduser()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError(f"the classes {shorten(str(path), 200)} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ArgumentError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from error
    if isinstance(content, Mapping) and isinstance(content.get("names"), (list, Mapping)):
        content = _number_names(content["names"], path)
    if isinstance(content, Mapping):
        return Ontology.from_classes(
            {_text(name, path): _phrases(name, value, path) for name, value in content.items()}
        )
    if isinstance(content, list):
        return Ontology.from_classes([_text(name, path) for name in content])
    raise ArgumentError(f"{path} must be a list of classes, or class: phrases, got {shorten(content)}")


def _number_names(names: list | Mapping, path: Path) -> list:
    """The names of `data.yaml`: a list, or number -> name, whose numbers are then 0, 1, … as class ids are."""
    if isinstance(names, list):
        return names
    numbers = sorted(names, key=lambda number: (not isinstance(number, int), number))
    if numbers != list(range(len(numbers))):
        raise ArgumentError(f"{path}: the numbers of names must be 0 to {len(numbers) - 1}, got {shorten(numbers)}")
    return [names[number] for number in numbers]


def _phrases(name: Any, value: Any, path: Path) -> str | Sequence[str]:
    if value is None:
        return _text(name, path)
    if isinstance(value, list):
        return [_text(item, path) for item in value]
    return _text(value, path)


def _text(value: Any, path: Path) -> str:
    """A name or a phrase. YAML reads `no` as a Boolean, and `2` as a number, which must be quoted."""
    if not isinstance(value, str):
        raise ArgumentError(f"{path}: expected the name of a class or a phrase, got {shorten(value)}; quote it")
    return value
