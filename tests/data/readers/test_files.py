"""JSON and JSON lines."""

import json

import pytest

from florence_lab.exceptions import DatasetError

TOKENS = "<loc_100><loc_100><loc_600><loc_600>"
SWIFT = {"query": "<OD>", "response": "cat" + TOKENS, "images": ["a.png"]}
ROBOFLOW = {"image": "a.png", "prefix": "<OD>", "suffix": "cat" + TOKENS}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize(
    "row", [SWIFT, ROBOFLOW, SWIFT | {"images": "a.png"}], ids=["ms-swift", "roboflow", "one path"]
)
def test_rows_become_examples(write_rows, read, name, row):
    (example,), errors = read(write_rows(name, row))
    assert errors == []
    assert example.prompt.query == "<OD>"
    assert example.target == "cat" + TOKENS
    assert example.load_image().size == example.image_size == (200, 100)
    assert example.source.endswith(f"{name}, row 1")


def test_a_line_separator_in_a_text_does_not_end_the_row(write_rows, read):
    row = json.dumps({"query": "<CAPTION>", "response": "a\u2028b", "images": ["a.png"]}, ensure_ascii=False)
    (example,), errors = read(write_rows("rows.jsonl", row))
    assert (example.target, errors) == ("a\u2028b", [])


@pytest.mark.parametrize(
    ("row", "kind", "detail"),
    [
        ({"text": "cat"}, "unknown columns", "text"),
        ("{broken", "invalid JSON", "column"),
        ("[1, 2]", "not an object", "[1, 2]"),
        (SWIFT | {"images": []}, "not exactly one image", "0"),
        (SWIFT | {"images": ["a.png", "a.png"]}, "not exactly one image", "2"),
        (SWIFT | {"history": [["a", "b"]]}, "conversation history", "history"),
        (SWIFT | {"objects": "[{"}, "invalid objects", "column"),
        (SWIFT | {"objects": {"a": 1}}, "invalid objects", "a"),
    ],
)
def test_a_malformed_row_is_reported_with_its_place(write_rows, read, row, kind, detail):
    name = write_rows("rows.jsonl", SWIFT, row, SWIFT)
    examples, (error,) = read(name)
    assert len(examples) == 2
    assert (error.source, error.kind) == (f"{name}, row 2", kind)
    assert detail in error.details


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.jsonl", None, "gone.jsonl"),
        ("gone.json", None, "gone.json"),
        ("one.json", '{"images": []}', "coco:"),
        ("bad.json", "[{", "bad.json is not JSON"),
        ("latin.jsonl", b"\xff\xfe\xfa", "latin.jsonl"),
    ],
)
def test_an_unreadable_file_is_an_error(tmp_path, read, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError, match=message):
        read(str(tmp_path / name))
