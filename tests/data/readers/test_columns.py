"""Which columns are the image, the query and the response."""

import base64
import json

import pytest
from PIL import Image

from florence_lab.data.readers.columns import find_missing_columns
from florence_lab.exceptions import DatasetError

TOKENS = "<loc_100><loc_100><loc_600><loc_600>"
BOX = [20, 10, 100, 50]  # x, y, width, height in an image of 200 x 100


@pytest.mark.parametrize(
    ("row", "query", "target"),
    [
        ({"image": "a.png", "query": "<OCR>", "response": "stop"}, "<OCR>", "stop"),
        ({"file_name": "a.png", "query": "<OCR>", "response": "stop"}, "<OCR>", "stop"),
        ({"images": ["a.png"], "query": "<image><OCR>", "response": "stop"}, "<OCR>", "stop"),
        ({"image": "a.png", "prefix": "<OCR>", "suffix": "stop"}, "<OCR>", "stop"),
        ({"image": "a.png", "question": "Which sign?", "answer": "stop"}, "Which sign?", "stop"),
        ({"image": "a.png", "question": "Which sign?", "answers": ["stop"]}, "Which sign?", "stop"),
        ({"image": "a.png", "question": "How many?", "answer": 2}, "How many?", "2"),
        ({"file_name": "a.png", "text": "a sign"}, "<CAPTION>", "a sign"),
        ({"file_name": "a.png", "caption": "a sign"}, "<CAPTION>", "a sign"),
        ({"image": None, "file_name": "a.png", "text": "a sign"}, "<CAPTION>", "a sign"),
        ({"images": [{"path": "a.png", "bytes": None}], "query": "<OCR>", "response": "stop"}, "<OCR>", "stop"),
        ({"image": {"path": "a.png"}, "query": "<OCR>", "response": None}, "<OCR>", ""),
    ],
)
def test_each_layout_of_columns_is_read(write_rows, read, row, query, target):
    (example,), errors = read(write_rows("rows.jsonl", row))
    assert errors == []
    assert (example.prompt.query, example.target) == (query, target)


def test_images_may_be_in_the_file(write_rows, tmp_path, read):
    name = write_rows("rows.jsonl", {})
    content = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    name = write_rows("rows.jsonl", {"images": [{"bytes": content}], "query": "<CAPTION>", "response": "a cat"})
    (example,), errors = read(name)
    assert (example.image_size, errors) == ((200, 100), [])


@pytest.mark.parametrize(
    ("options", "query", "target"),
    [
        ("query=<MORE_DETAILED_CAPTION>&response=long&image=photo", "<MORE_DETAILED_CAPTION>", "a long text"),
        ("query=ask&response=long&image=photo", "<DETAILED_CAPTION>", "a long text"),
        ("query=<OCR>&image=photo", "<OCR>", "a text"),
        ("image=photo", "<CAPTION>", "a text"),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_options_name_the_columns(write_rows, tmp_path, read, name, options, query, target):
    row = {"photo": "a.png", "long": "a long text", "text": "a text", "ask": "<DETAILED_CAPTION>"}
    path = write_rows(name.replace("csv", "jsonl"), row)
    if name.endswith("csv"):
        path = tmp_path / name
        path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    (example,), errors = read(f"{path}?{options}")
    assert errors == []
    assert (example.prompt.query, example.target) == (query, target)


def test_images_may_be_in_another_folder(write_rows, tmp_path, read):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "photos" / "b.png")
    name = write_rows("rows.jsonl", {"image": "b.png", "text": "a cat"})
    (example,), errors = read(f"{name}?images={tmp_path / 'photos'}")
    assert (example.image_size, errors) == ((30, 20), [])


@pytest.mark.parametrize(("option", "targets"), [("", ["cat", "kitten"]), ("?answers=first", ["cat"])])
def test_a_list_of_answers_gives_all_or_the_first(write_rows, read, option, targets):
    name = write_rows("rows.jsonl", {"image": "a.png", "question": "What is it?", "answers": ["cat", "kitten"]})
    examples, errors = read(name + option)
    assert ([example.target for example in examples], errors) == (targets, [])


@pytest.mark.parametrize(
    ("objects", "options"),
    [
        ({"bbox": [BOX], "category": ["cat"]}, ""),
        ({"bbox": [BOX], "categories": [1]}, "?names=dog,cat"),
        ({"id": [4], "bbox": [BOX], "category_id": [1], "area": [5000.0]}, "?names=dog,cat"),
        ({"bbox": [[20, 10, 120, 60]], "label": ["cat"]}, "?bbox_format=xyxy"),
        ([{"bbox": BOX, "category": "cat"}], ""),
        (json.dumps({"bbox": [BOX], "category": ["cat"]}), ""),
    ],
)
def test_detection_columns_are_read(write_rows, read, objects, options):
    (example,), errors = read(write_rows("rows.jsonl", {"file_name": "a.png", "objects": objects}) + options)
    assert errors == []
    assert (example.prompt.query, example.target) == ("<OD>", "cat" + TOKENS)


def test_boxes_need_no_category_for_region_proposals(write_rows, read):
    name = write_rows("rows.jsonl", {"file_name": "a.png", "objects": {"bbox": [BOX]}})
    (example,), errors = read(f"{name}?query=<REGION_PROPOSAL>")
    assert (example.target, errors) == (TOKENS, [])


@pytest.mark.parametrize("objects", [{"bbox": [], "category": []}, []])
def test_no_objects_are_an_empty_answer(write_rows, read, objects):
    (example,), errors = read(write_rows("rows.jsonl", {"file_name": "a.png", "objects": objects}))
    assert (example.prompt.query, example.target, errors) == ("<OD>", "", [])


@pytest.mark.parametrize(
    ("objects", "kind", "detail"),
    [
        ({"bbox": [BOX, [1, 2, 3]], "category": ["cat", "dog"]}, "invalid box", "[1, 2, 3]; expected x, y, width, height"),
        ({"bbox": [BOX, None], "category": ["cat", "dog"]}, "invalid box", "None"),
        ({"bbox": [BOX, [0, 0, 10**400, 1]], "category": ["cat", "dog"]}, "invalid box", "x, y"),
        ({"bbox": [BOX, BOX], "category": ["cat", 7]}, "class number without names", "7"),
        ({"bbox": [BOX, BOX], "category": ["cat", None]}, "invalid label", "None"),
        ([{"bbox": BOX, "category": "cat"}, {"category": "dog"}], "invalid box", "None"),
        ([{"bbox": BOX, "category": "cat"}, "dog"], "invalid box", "dog"),
    ],
)  # fmt: skip
def test_one_bad_object_leaves_the_others(write_rows, read, objects, kind, detail):
    name = write_rows("rows.jsonl", {"file_name": "a.png", "objects": objects})
    (example,), (error,) = read(name)
    assert example.target == "cat" + TOKENS
    assert (error.source, error.kind) == (f"{name}, row 1, object 2", kind)
    assert detail in error.details


def test_boxes_and_categories_must_be_as_many(write_rows, read):
    objects = {"bbox": [BOX, BOX], "category": ["cat"]}
    examples, (error,) = read(write_rows("rows.jsonl", {"file_name": "a.png", "objects": objects}))
    assert (examples, error.kind) == ([], "invalid objects")


def test_a_column_that_a_row_lacks_is_named(write_rows, read):
    rows = [{"image": "a.png", "says": "cat"}, {"image": "a.png", "text": "dog"}]
    examples, (error,) = read(write_rows("rows.jsonl", *rows) + "?query=<CAPTION>&response=says")
    assert len(examples) == 1
    assert (error.kind, error.details) == ("unknown columns", "no column says; got image, text")


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        (["image", "query"], []),
        (["image", "caption"], []),
        (["messages"], []),
        (["image", "objects"], []),
        (["image"], ["query"]),
        (["text"], ["image"]),
        (["a", "response"], ["query", "image"]),
    ],
)
def test_missing_columns_are_found(columns, missing):
    assert find_missing_columns(columns) == missing


def test_an_unknown_option_names_the_known_ones(write_rows, read):
    name = write_rows("rows.jsonl", {"image": "a.png", "text": "cat"})
    with pytest.raises(DatasetError, match=r"did you mean 'response'.*query, response, image"):
        read(f"{name}?reponse=text")
