"""Finished batches on disk."""

import pytest

from florence_lab.exceptions import ArgumentError, DatasetError
from florence_lab.labeling.parts import PartStore
from florence_lab.labeling.records import LabelledAnswer, LabelledImage, LabelledObject


def row(key, error="", signature="1", source=None):
    return LabelledImage(key, f"{key}.png", source or key, signature, size=(0, 0) if error else (4, 3), error=error)


@pytest.fixture
def store(tmp_path):
    store = PartStore(tmp_path / ".parts")
    store.open({"a": 1})
    return store


def test_a_row_is_read_as_it_was_written(store):
    written = LabelledImage(
        "k\udcff", "ü.png", "s", "1-2", "x.png", (4, 3),
        (LabelledObject(1, "dog", (0.5, 1.25, 2.0, 3.0), 0.75, "od", ((0.0, 0.0, 1.0, 0.0, 1.0, 1.0),)),),
        {"<CAPTION>": LabelledAnswer("a dog", "a dog")},
    )  # fmt: skip
    store.write([written])
    assert list(store.read(store.index())) == [written]


def test_rows_come_in_the_order_of_their_keys(store):
    store.write([row("c"), row("a")])
    store.write([row("b")])
    assert [found.key for found in store.read(store.index())] == ["a", "b", "c"]


def test_a_row_without_error_wins_over_one_with(store):
    for later in (PartStore(store.folder, "0"), PartStore(store.folder, "z")):
        later.write([row("a", error="" if later.run == "0" else "broken")])
    (place,) = store.index()
    assert not place.has_error


def test_images_that_have_changed_or_gone_are_left_out(store):
    store.write([row("same"), row("changed"), row("gone")])
    assert [place.key for place in store.index({"same": "1", "changed": "2"})] == ["same"]


def test_what_a_killed_process_has_left_is_no_part(store):
    store.write([row("a")])
    (store.folder / ".0123.jsonl").write_text('{"key": "half')
    (store.folder / "part-0.jsonl.part").write_text('{"key": "half')
    assert [place.key for place in store.index()] == ["a"]


def test_a_damaged_part_is_named(store):
    path = store.write([row("a")])
    path.write_text(path.read_text() + '{"key": "b"')
    with pytest.raises(DatasetError, match=path.name):
        store.index()


def test_a_batch_that_is_written_twice_is_one_part(store):
    assert not store.has(["a", "b"])
    assert store.write([row("a"), row("b")]) == store.write([row("a"), row("b")])
    assert store.has(["a", "b"])


def test_changed_settings_are_named_with_both_values(store):
    with pytest.raises(ArgumentError, match=r"a was 1, now 2.*b was None, now 3"):
        PartStore(store.folder).open({"a": 2, "b": 3})


def test_equal_settings_are_accepted(store):
    PartStore(store.folder).open({"a": 1})


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", None])
def test_damaged_settings_are_named(store, content):
    path = store.folder / "settings.json"
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ArgumentError, match=r"settings\.json.*delete .* to label anew"):
        store.open({"a": 1})


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / ".parts").write_text("mine")
    with pytest.raises(ArgumentError, match=r"\.parts"):
        PartStore(tmp_path / ".parts").open({"a": 1})
    assert (tmp_path / ".parts").read_text() == "mine"
