"""Published files with other values than expected: an error of the package, before a model answers for hours."""

import copy
import json

import pytest
import suite_files

from florence_lab.evaluation.suites import SUITES
from florence_lab.exceptions import FlorenceLabError

ODD_VALUES = (None, -1, 10**9, float("nan"), "x", [5], {"a": 1})
WITHOUT_SCORES = ("coco-caption", "nocaps", "textcaps")  # whose scorers need Java


def find_places(content, path=()):
    """Yield the path of each value of a JSON file. Of the entries of a list the first stands for all."""
    if path:
        yield path
    keys = content if isinstance(content, dict) else range(min(len(content), 1)) if isinstance(content, list) else ()
    for key in keys:
        yield from find_places(content[key], (*path, key))


def replace_value(content, path, value):
    changed = copy.deepcopy(content)
    target = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return changed


def use(suite, root):
    """Read a suite and score empty answers. Returns what a foreign exception says."""
    try:
        data = suite.read(root, suite.splits[0])
        if suite.name not in WITHOUT_SCORES:
            suite.score(data, [None] * len(data.questions))
            json.dumps(suite.submission(data, [None] * len(data.questions)))
    except FlorenceLabError as error:
        return "" if str(root) in str(error) or "publish" in str(error) else f"does not name the file: {error}"
    except Exception as error:
        return repr(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
def test_odd_values_in_a_file_are_accepted_or_named(tmp_path, name):
    root = suite_files.WRITERS[name](tmp_path)
    foreign = []
    for path in sorted(root.rglob("*.json")):
        text = path.read_text()
        content = json.loads(text)
        for place in find_places(content):
            for value in ODD_VALUES:
                path.write_text(json.dumps(replace_value(content, place, value)))
                if problem := use(SUITES[name], root):
                    foreign.append(f"{path.name} {place} = {value!r}: {problem}")
        path.write_text(text)
    assert foreign == []


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"\xff\xfe\0"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    root = suite_files.WRITERS[name](tmp_path)
    suite = SUITES[name]
    files = (path for path in root.rglob("*") if path.suffix in (".json", ".p", ".xml") and "test-dev" not in path.name)
    for path in sorted(files):
        data = path.read_bytes()
        path.write_bytes(damage(data))
        with pytest.raises(FlorenceLabError, match=path.name.replace("(", r"\(").replace(")", r"\)")):
            suite.read(root, suite.splits[0])
        path.write_bytes(data)


def test_a_file_without_questions_is_refused(tmp_path):
    root = suite_files.WRITERS["coco-detection"](tmp_path)
    path = root / "annotations/instances_val2017.json"
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(FlorenceLabError, match="have no question of the split val2017"):
        SUITES["coco-detection"].read(root, "val2017")


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("images", {"file_name": 5}, r"instances_val2017\.json, images 1: file_name must be text, got 5"),
        ("images", {"width": "x"}, "images 1: width must be pixels, got 'x'"),
        ("images", {"id": 99}, "images 2: the id 99 occurs twice"),
        ("annotations", {"bbox": [1, 2]}, r"annotations 1: bbox must be four numbers, got \[1, 2\]"),
        ("categories", {"name": None}, "categories 1: name must be text, got None"),
        ("categories", None, "categories 1 must be an object, got None"),
    ],
)
def test_an_invalid_entry_of_a_coco_file_is_named(tmp_path, section, change, message):
    root = suite_files.WRITERS["coco-detection"](tmp_path)
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content[section][0] = None if change is None else content[section][0] | change
    path.write_text(json.dumps(content))
    with pytest.raises(FlorenceLabError, match=message):
        SUITES["coco-detection"].read(root, "val2017")
