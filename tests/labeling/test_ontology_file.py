"""classes.yaml."""

import pytest

from florence_lab.exceptions import ArgumentError
from florence_lab.labeling.ontology_file import read_ontology, resolve_ontology


@pytest.mark.parametrize(
    ("text", "names", "phrases"),
    [
        ("- sheep\n- dog\n", ("sheep", "dog"), (("sheep",), ("dog",))),
        ("sheep: a white sheep\ndog:\n", ("sheep", "dog"), (("a white sheep",), ("dog",))),
        ("person: [man, woman]\n", ("person",), (("man", "woman"),)),
        ('{"b": "x", "a": "y"}', ("b", "a"), (("x",), ("y",))),
        ("path: .\nnames: {1: b, 0: a}\n", ("a", "b"), (("a",), ("b",))),
        ("names: [a, b]\n", ("a", "b"), (("a",), ("b",))),
    ],
)
def test_a_file_gives_classes_in_its_order_with_their_phrases(tmp_path, text, names, phrases):
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    ontology = read_ontology(path)
    assert (ontology.names, ontology.phrases) == (names, phrases)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "None"),
        ("sheep", "sheep"),
        ("- no\n", "False"),
        ("dog: [1]\n", "1"),
        ("names: {1: a, 2: b}\n", "0 to 1"),
        ("a: [\n", "not YAML"),
        ("- dog\n- Dog\n", "twice"),
    ],
)
def test_an_error_names_what_is_wrong_in_the_file(tmp_path, text, message):
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=message):
        read_ontology(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArgumentError, match="nothing"):
        read_ontology(tmp_path / "nothing.yaml")


def test_names_and_mappings_need_no_file():
    assert resolve_ontology(["a", "b"]).names == ("a", "b")
    assert resolve_ontology({"a": ["b", "c"]}).phrases == (("b", "c"),)
