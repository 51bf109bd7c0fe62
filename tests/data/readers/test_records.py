"""Files of records: JSON, JSON lines, CSV and TSV."""

import json
import os

import pytest

from florence_lab.data.readers import open_dataset
from florence_lab.data.spec import DatasetSpec
from florence_lab.exceptions import DatasetError

TOKENS = "<loc_100><loc_100><loc_600><loc_600>"
SWIFT = {"query": "<OD>", "response": "cat" + TOKENS, "images": ["a.png"]}
ROBOFLOW = {"image": "a.png", "prefix": "<OD>", "suffix": "cat" + TOKENS}
CAPTION = {"query": "<CAPTION>", "response": "a cat", "images": ["a.png"]}


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


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u0085", "\x0b", "\x1c"])
def test_only_a_line_feed_ends_a_row(write_rows, character):
    row = json.dumps(CAPTION | {"response": f"a{character}b"}, ensure_ascii=False)
    reader = open_dataset(DatasetSpec.parse(write_rows("rows.jsonl", row, CAPTION)))
    assert len(reader) == 2
    assert reader[0].response == f"a{character}b"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_other_encodings_of_unicode_are_recognized(write_rows, tmp_path, read, encoding, name):
    write_rows("other.jsonl", CAPTION)
    row = json.dumps(CAPTION | {"response": "größer"}, ensure_ascii=False)
    texts = {"rows.jsonl": row + "\r\n", "rows.json": f"[{row}]", "rows.csv": "file_name,text\r\na.png,größer\r\n"}
    (tmp_path / name).write_bytes(texts[name].encode(encoding))
    (example,), errors = read(str(tmp_path / name))
    assert (example.target, errors) == ("größer", [])


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_a_byte_of_another_encoding_spoils_its_row_only(write_rows, tmp_path, read, name):
    write_rows("other.jsonl", CAPTION)
    rows = [json.dumps(CAPTION | {"response": text}, ensure_ascii=False) for text in ("größer", "a dog", "größer")]
    tables = ["file_name,text", "a.png,größer", "a.png,a dog", "a.png,größer"]
    texts = {"rows.jsonl": "\n".join(rows), "rows.json": f"[{', '.join(rows)}]", "rows.csv": "\n".join(tables)}
    data = texts[name].encode().replace("größer".encode(), "größer".encode("latin-1"), 1)
    (tmp_path / name).write_bytes(data)
    examples, (error,) = read(str(tmp_path / name))
    assert [example.target for example in examples] == ["a dog", "größer"]
    assert (error.kind, "row 1" in error.source) == ("not UTF-8", True)
    assert "0xf6" in error.details
    assert "save the file as UTF-8" in error.details


def test_blank_lines_are_ignored_and_the_line_is_named(write_rows, read):
    name = write_rows("rows.jsonl", CAPTION, "", "  ", "{broken")
    examples, (error,) = read(name)
    assert len(examples) == 1
    assert error.source == f"{name}, row 2 (line 4)"


@pytest.mark.parametrize(
    ("row", "kind", "detail"),
    [
        ({"text": "cat"}, "unknown columns", "text"),
        ("{broken", "invalid JSON", "column"),
        ("[" * 100_000, "invalid JSON", "nested too deeply"),
        ('{"a": ' * 100_000, "invalid JSON", "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "invalid JSON", "digits"),
        ("\0\0\0", "invalid JSON", ""),
        ("[1, 2]", "not an object", "[1, 2]"),
        ("null", "not an object", "None"),
        (SWIFT | {"images": []}, "not exactly one image", "0"),
        (SWIFT | {"images": None}, "not exactly one image", "0"),
        (SWIFT | {"images": 5}, "invalid image", "5"),
        (SWIFT | {"images": [[]]}, "invalid image", "[]"),
        (SWIFT | {"images": [True]}, "invalid image", "True"),
        (SWIFT | {"images": [""]}, "invalid image", "empty"),
        (SWIFT | {"images": ["~nobody-here/a.png"]}, "invalid image", "~nobody-here"),
        (SWIFT | {"images": [{"bytes": "?"}]}, "invalid image", "base64"),
        (SWIFT | {"images": [{"bytes": 5}]}, "invalid image", "5"),
        (SWIFT | {"images": ["a\0.png"]}, "unreadable image", ""),
        (SWIFT | {"images": ["a" * 5000]}, "unreadable image", ""),
        (SWIFT | {"images": ["a.png", "a.png"]}, "not exactly one image", "2"),
        (SWIFT | {"history": [["a", "b"]]}, "conversation history", "history"),
        (SWIFT | {"videos": ["a.mp4"]}, "videos in a row", "image"),
        (SWIFT | {"objects": "[{"}, "invalid objects", "column"),
        (SWIFT | {"objects": {"a": 1}}, "invalid objects", "a"),
        (SWIFT | {"objects": ["a"]}, "invalid objects", "a"),
        (SWIFT | {"objects": 5}, "invalid objects", "5"),
        (SWIFT | {"query": ["a"]}, "invalid query", "a"),
        ({"images": ["a.png"], "query": "<OD>"}, "no response", ""),
    ],
)  # fmt: skip
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
        ("one.json", '{"images": []}', "COCO file.*coco:"),
        ("other.json", '{"rows": []}', r"rows.*coco:"),
        ("text.json", '"cat"', "'cat', not a list"),
        ("bad.json", "[{", "bad.json is not JSON"),
        ("lines.json", '{"a": 1}\n{"a": 2}', r"must end in \.jsonl"),
        ("deep.json", "[" * 100_000, "nested too deeply"),
        ("list.jsonl", "[\n{},\n{}\n]", r"must end in \.json"),
        ("list.jsonl", '[{"a": 1}, {"a": 2}]', r"must end in \.json"),
        ("odd.jsonl", b"\xff\xfe\xfa", "odd.jsonl begins as utf-16 .*save the file as UTF-8"),
        ("empty.jsonl", "", "empty.jsonl is empty"),
        ("blank.jsonl", " \n\n", "blank.jsonl is empty"),
        ("empty.json", "", "empty.json is empty"),
        ("empty.json", "[]", "empty.json is empty"),
        ("empty.csv", "", "empty.csv is empty"),
        ("header.csv", "file_name,text\n", "header.csv is empty"),
        ("twice.csv", "text,text\na,b\n", "names a column twice: text"),
        ("gone.csv", None, "gone.csv"),
    ],
)
def test_an_unreadable_file_is_an_error(tmp_path, read, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError, match=message):
        read(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("json:{}", "folder, where a file is expected"),
        ("jsonl:", "jsonl: is followed by a path"),
        ("coco:", "coco: is followed by a path"),
        ("yolo:", "yolo: is followed by a path"),
        ("voc:", "voc: is followed by a path"),
        ("captions:", "captions: is followed by a path"),
        ("imagefolder:", "imagefolder: is followed by a path"),
        ("~nobody-here/rows.jsonl", "~nobody-here"),
        ("a\0.jsonl", "null byte"),
        ("x" * 5000 + ".jsonl", "too long"),
        ("rows.jsonl?colums=a", "unknown option 'colums'"),
        ("rows.jsonl?images=gone", "there is no folder 'gone' of images"),
        ("coco:coco.json?images=", "there is no folder '' of images"),
        ("rows.jsonl?answers=last", "answers must be one of all, first, not 'last'"),
        ("rows.jsonl?bbox_format=yolo", "bbox_format must be one of xywh, xyxy, not 'yolo'"),
        ("rows.jsonl?answers=all&answers=first", "given twice"),
    ],
)
def test_a_name_that_cannot_be_a_dataset_is_an_error(tmp_path, read, name, message):
    with pytest.raises(DatasetError, match=message):
        read(name.format(tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error(write_rows, read):
    name = write_rows("rows.jsonl", CAPTION)
    os.chmod(name, 0)
    with pytest.raises(DatasetError, match="Permission denied"):
        read(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("name", ["rows.jsonl", "coco:rows.json", "rows.csv", "data.yaml"])
def test_a_pipe_is_not_waited_for(tmp_path, monkeypatch, read, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(name.removeprefix("coco:"))
    with pytest.raises(DatasetError, match="not a regular file"):
        read(name)


def test_a_list_below_data_is_read(write_rows, tmp_path, read):
    write_rows("other.jsonl", CAPTION)
    (tmp_path / "rows.json").write_text(json.dumps({"version": 1, "data": [CAPTION]}))
    (example,), errors = read(str(tmp_path / "rows.json"))
    assert (example.target, errors) == ("a cat", [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", 'file_name,text\na.png,"a cat, a ""dog"""\n'),
        ("rows.csv", 'file_name;text\r\na.png;a cat, a "dog"\r\n'),
        ("rows.tsv", 'file_name\ttext\na.png\t"a cat, a ""dog"""\n'),
        ("rows.csv", ' file_name , text \n\na.png,"a cat, a ""dog"""\n'),
    ],
    ids=["commas", "semicolons", "tabs", "blanks"],
)
def test_a_table_is_read(write_rows, tmp_path, read, name, text):
    write_rows("other.jsonl", CAPTION)
    (tmp_path / name).write_text(text.replace(';a cat, a "dog"', ';"a cat, a ""dog"""'), newline="")
    (example,), errors = read(str(tmp_path / name))
    assert (example.prompt.query, example.target, errors) == ("<CAPTION>", 'a cat, a "dog"', [])


def test_a_cell_may_have_several_lines(write_rows, tmp_path):
    (tmp_path / "rows.csv").write_text('file_name,text\na.png,"one\ntwo"\na.png,three\n')
    reader = open_dataset(DatasetSpec.parse(str(tmp_path / "rows.csv")))
    assert [reader[i].response for i in range(2)] == ["one\ntwo", "three"]
    assert reader[1].source.endswith("row 2 (line 4)")


@pytest.mark.parametrize(
    ("line", "kind", "detail"),
    [
        ("a.png", "wrong number of columns", "1, but the first line names 2"),
        ("a.png,cat,dog", "wrong number of columns", "3"),
        ('a.png,"cat"s', "invalid CSV", "expected after"),
        (",cat", "invalid image", "empty"),
    ],
)
def test_a_malformed_line_of_a_table_is_reported(write_rows, tmp_path, read, line, kind, detail):
    write_rows("other.jsonl", CAPTION)
    (tmp_path / "rows.csv").write_text(f"file_name,text\na.png,cat\n{line}\na.png,dog\n")
    examples, (error,) = read(str(tmp_path / "rows.csv"))
    assert [example.target for example in examples] == ["cat", "dog"]
    assert (error.source, error.kind) == (f"{tmp_path / 'rows.csv'}, row 2 (line 3)", kind)
    assert detail in error.details


def test_a_quote_that_is_not_closed_is_reported(write_rows, tmp_path, read):
    write_rows("other.jsonl", CAPTION)
    (tmp_path / "rows.csv").write_text('file_name,text\na.png,cat\na.png,"dog\na.png,cow\n')
    examples, (error,) = read(str(tmp_path / "rows.csv"))
    assert len(examples) == 1
    assert (error.kind, error.source.endswith("(line 3)")) == ("invalid CSV", True)
