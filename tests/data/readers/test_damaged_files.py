"""Files of every format with damaged bytes and odd values: each fault is a `DatasetError` of the file or a `RowError`."""

import copy
import json
import random
from pathlib import Path

import pytest
from PIL import Image

from florence_lab.data.readers import open_dataset
from florence_lab.data.rows import RowError
from florence_lab.data.spec import DatasetSpec
from florence_lab.exceptions import DatasetError, FlorenceLabWarning

BOX = [20, 10, 120, 60]
ODD_VALUES = [
    *(None, True, 0, -1, 10**400, 1.5, float("nan"), float("inf"), "", " ", "a", "\ud800", "\0", "9" * 5000, "<image>"),
    *([], [[]], [None], ["a", 1], [[1, 2, 3, 4]], {}, {"": None}, {"a": {"b": []}}),
]

SWIFT = {
    "messages": [{"role": "user", "content": "<image><OD>"}, {"role": "assistant", "content": "<ref-object><bbox>"}],
    "images": ["a.png"],
    "objects": {"ref": ["cat"], "bbox": [BOX], "bbox_type": "real", "image_id": [0]},
}
OLD_SWIFT = {
    "query": "Find <ref-object>",
    "response": "<bbox>",
    "images": ["a.png"],
    "objects": [{"caption": "a cat", "bbox": BOX, "bbox_type": "real", "image": 0}],
}
LLAVA = {
    "id": "1",
    "image": "a.png",
    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}],
}
DETECTION = {"file_name": "a.png", "objects": {"bbox": [BOX], "category": ["cat"]}}
ROBOFLOW = {"image": "a.png", "prefix": "<CAPTION>", "suffix": "a cat"}
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 100}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "segmentation": [[0, 0, 9, 0, 9, 9]], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": BOX, "segmentation": {"size": [2, 2], "counts": [2, 2]}},
    ],
}
CAPTIONS = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}],
}
YAML = {"path": ".", "train": ["images"], "val": "images", "names": {"0": "cat"}, "nc": 1}
XML = (
    "<annotation><filename>a.png</filename><size><width>200</width><height>100</height></size><object><name>cat</name>"
    "<bndbox><xmin>21</xmin><ymin>11</ymin><xmax>120</xmax><ymax>60</ymax></bndbox></object></annotation>"
)
JSON_FILES = {
    **{
        f"{name}.json": [row]
        for name, row in (("swift", SWIFT), ("old", OLD_SWIFT), ("llava", LLAVA), ("od", DETECTION))
    },
    "roboflow.json": [ROBOFLOW],
    "coco:coco.json?tasks=OD,REFERRING_EXPRESSION_SEGMENTATION": COCO,
    "coco:captions.json": CAPTIONS,
    "data.yaml?tasks=OD,REGION_TO_SEGMENTATION": YAML,
}
"""Dataset -> the content of its file, as JSON, of which YAML is a superset."""

OTHER_FILES = {
    "rows.csv": ("rows.csv", 'file_name,text\na.png,"a cat"\na.png,a dog\n'),
    "rows.jsonl": ("rows.jsonl", f"{json.dumps(SWIFT)}\n{json.dumps(LLAVA)}\n"),
    "yolo:.?tasks=OD,REGION_TO_SEGMENTATION": ("labels/b.txt", "0 0.5 0.5 0.1 0.1\n0 0.1 0.1 0.5 0.1 0.5 0.5\n"),
    "voc:voc": ("voc/a.xml", XML),
    "captions:captions": ("captions/a.txt", "a cat größer\n"),
}
"""Dataset -> a file of it, and its text."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory, with the images and the files that the others need."""
    for name in ("a.png", "images/b.png", "captions/a.png", "captions/b.png", "voc/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (200, 100)).save(tmp_path / name)
    (tmp_path / "captions" / "b.txt").write_text("a dog")
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text(json.dumps(YAML))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_all(name, validator):
    """Return the number of examples and the errors of a dataset, or its `DatasetError`."""
    try:
        reader = open_dataset(DatasetSpec.parse(name))
    except DatasetError as error:
        return 0, [str(error)]
    rows = [reader[i] for i in range(len(reader))]
    validated = [validator(row) for row in rows]
    errors = [error for row in validated for error in row.errors]
    # an error of a row that no check foresees
    assert not [error for error in errors if error.kind == "cannot be read"], errors
    assert all(isinstance(error, RowError) and error.source and error.kind for error in errors)
    assert not any(example.target is None for row in validated for example in row.examples)
    return sum(len(row.examples) for row in validated), errors


def paths_of(value, prefix=()):
    """Yield the path of each value within nested lists and objects."""
    yield prefix
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths_of(item, (*prefix, key))


def replace_at(content, path, value):
    """Return a copy with another value at a path; without the key if the value is `KeyError`."""
    if not path:
        return value
    content = copy.deepcopy(content)
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    if value is KeyError:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return content


@pytest.mark.filterwarnings(f"ignore::{FlorenceLabWarning.__module__}.{FlorenceLabWarning.__name__}")
@pytest.mark.parametrize("name", JSON_FILES)
def test_an_odd_value_anywhere_is_an_error_of_the_file_or_the_row(folder, validator, name):
    content = JSON_FILES[name]
    path = Path(name.removeprefix("coco:").partition("?")[0])
    path.write_text(json.dumps(content))
    num_examples, _ = read_all(name, validator)
    assert num_examples or "coco" in name
    num_faulty = 0
    for place in paths_of(content):
        for value in (*ODD_VALUES, *([KeyError] if place else [])):
            path.write_text(json.dumps(replace_at(content, place, value)))
            num_faulty += bool(read_all(name, validator)[1])
    assert num_faulty > 20


@pytest.mark.filterwarnings(f"ignore::{FlorenceLabWarning.__module__}.{FlorenceLabWarning.__name__}")
@pytest.mark.parametrize("name", OTHER_FILES)
def test_damaged_bytes_are_an_error_of_the_file_or_the_row(folder, validator, name):
    path, text = OTHER_FILES[name]
    data = text.encode()
    Path(path).write_bytes(data)
    assert read_all(name, validator)[0]
    rng = random.Random(3)
    num_faulty = 0
    for _ in range(150):
        damaged = bytearray(data)
        start = rng.randrange(len(damaged))
        end = start + rng.choice([0, 1, 1, 5, len(damaged)])
        damaged[start:end] = rng.choice(
            [b"", b"\0", b"\xff", b"\xe2\x80", b"<", b'"', b",", b"\n", b"[" * 5000, b"9" * 400]
        )
        Path(path).write_bytes(damaged)
        num_faulty += bool(read_all(name, validator)[1])
    assert num_faulty > 20
