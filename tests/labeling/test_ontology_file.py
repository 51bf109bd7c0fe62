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
        ("\ufeffsheep: |\n  a white sheep\n", ("sheep",), (("a white sheep",),)),
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
        ("", "a line '- cat' for each.*None"),
        ("sheep", "sheep"),
        ("- no\n", "False; put it into quotes"),
        ("dog: [1]\n", "1; put it into quotes"),
        ("dog: 2020-01-01\n", "quotes"),
        ("names: {1: a, 2: b}\n", "0 to 1"),
        ("names: {a: 0, 1.5: b, 1: c}\n", "0 to 2"),
        ("names: []\n", "at least one class"),
        ("a: [\n", "not YAML"),
        ("- dog\n- Dog\n", "twice"),
        ("cat: a cat\nkitty: a cat\n", "'a cat' occurs twice"),
        ("cat: a cat\ncat: kitty\n", "the key 'cat' occurs twice.*line 2"),
        ("a: b\n---\nc: d\n", "single document"),
        ("cat: [[a, b], c]\n", "got a list$"),
        ("cat: {sub: x}\n", "got a dict$"),
        ("cat: &a [*a]\n", "got a list$"),
        ("- |\n  cat\n  dog\n", "single line"),
        ("- a\0b\n", "not YAML"),
        ("? [a, b]\n: c\n", "unhashable"),
        ("- !!binary aGVsbG8=\n", "b'hello'"),
        ("cat: !!int ''\n", "not YAML"),
        ("cat: !!timestamp x\n", "not YAML"),
        ("cat: !!float x\n", "cannot be read"),
        ("- 2020-99-99\n", "cannot be read"),
        ("[" * 600, "not YAML"),
        ("grün: x\n".encode("latin-1"), "not UTF-8"),
        ("cat: x\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_an_error_names_the_file_and_what_is_wrong_in_it(tmp_path, text, message):
    path = tmp_path / "classes.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ArgumentError, match=message) as caught:
        read_ontology(path)
    assert "classes.yaml" in str(caught.value)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir ['{}']", "!!python/object/new:os.mkdir ['{}']"])
def test_code_in_a_file_is_not_run(tmp_path, tag):
    (tmp_path / "classes.yaml").write_text(f"cat: {tag.format(tmp_path / 'ran')}\n")
    with pytest.raises(ArgumentError, match="constructor for the tag"):
        read_ontology(tmp_path / "classes.yaml")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", ["nothing.yaml", "a\0b", "~no_such_user/classes.yaml", "x" * 300])
def test_a_path_without_a_file_is_refused(path):
    with pytest.raises(ArgumentError):
        read_ontology(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArgumentError, match="nothing"):
        read_ontology(tmp_path / "nothing.yaml")


def test_names_and_mappings_need_no_file():
    assert resolve_ontology(["a", "b"]).names == ("a", "b")
    assert resolve_ontology({"a": ["b", "c"]}).phrases == (("b", "c"),)
