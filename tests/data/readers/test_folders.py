"""Folders that are given without a format."""

import json

import pytest

from florence_lab.data.readers import open_dataset
from florence_lab.data.readers.folders import FOLDER_FORMATS, recognize_folder
from florence_lab.data.readers.scenes import ScenesReader
from florence_lab.data.spec import DatasetSpec
from florence_lab.exceptions import DatasetError

COCO = json.dumps({"images": [], "annotations": [], "categories": []})


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"data.yaml": "names: [a]"}, "yolo"),
        ({"coco8.yaml": "path: coco8\nnames:\n  0: person\n", "other.yaml": "a: 1"}, "yolo"),
        ({"settings.yaml": "a: 1", "metadata.csv": "file_name"}, "imagefolder"),
        ({"Annotations/a.xml": "<annotation/>"}, "voc"),
        ({"a.xml": "<annotation/>", "a.jpg": ""}, "voc"),
        ({"train/a.xml": "<annotation/>"}, "voc"),
        ({"metadata.jsonl": "{}"}, "imagefolder"),
        ({"metadata.csv": "file_name"}, "imagefolder"),
        ({"train/metadata.jsonl": "{}"}, "imagefolder"),
        ({"annotations.json": COCO}, "coco"),
        ({"train/_annotations.coco.json": COCO}, "coco"),
        ({"annotations/instances.json": COCO, "other.json": "[1]", "list.json": "{}"}, "coco"),
        ({"annotations.json": COCO[:-1] + f', "info": "{"x" * 200_000}"}}'}, "coco"),
        ({"data/train-00000.parquet": ""}, "hf"),
        ({"a.png": "", "a.txt": "a cat"}, "captions"),
        ({"10_cat/a.PNG": "", "10_cat/a.txt": "a cat"}, "captions"),
        ({"data.yaml": "names: [a]", "a.png": "", "a.txt": "0 0.5 0.5 0.1 0.1"}, "yolo"),
    ],
)
@pytest.mark.parametrize("name", ["folder", "my.folder"])
def test_the_format_of_a_folder_is_recognized(tmp_path, files, kind, name):
    for file, text in files.items():
        path = tmp_path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    spec = recognize_folder(DatasetSpec.parse(f"{tmp_path / name}#3"), tmp_path / name)
    assert (spec.kind, spec.sample) == (kind, 3)
    assert spec.location.endswith(".json" if kind == "coco" else name)


def test_a_folder_of_no_format_lists_what_was_looked_for(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(DatasetError, match="Looked for: ") as error:
        open_dataset(DatasetSpec.parse(str(tmp_path)))
    assert all(kind in str(error.value) for kind in FOLDER_FORMATS)


def test_one_of_several_coco_files_must_be_chosen(tmp_path):
    for name in ("train.json", "val.json"):
        (tmp_path / name).write_text(COCO)
    with pytest.raises(DatasetError, match=r"several COCO files; choose one, as in coco:.*train\.json"):
        open_dataset(DatasetSpec.parse(str(tmp_path)))


@pytest.mark.parametrize("name", ["{}/gone", "{}/gone/", "./gone", "gone"])
def test_a_folder_that_does_not_exist_is_an_error(tmp_path, name):
    with pytest.raises(DatasetError, match=r"there is no folder|unknown dataset 'gone'"):
        open_dataset(DatasetSpec.parse(name.format(tmp_path)))


@pytest.mark.parametrize("name", ["mine", "voc", "rows.jsonl", "hf"])
def test_a_folder_of_the_current_directory_needs_no_slash(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a cat"}')
    monkeypatch.chdir(tmp_path)
    assert len(open_dataset(DatasetSpec.parse(name))) == 1


def test_drawn_scenes_are_no_folder(tmp_path, monkeypatch):
    (tmp_path / "scenes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_dataset(DatasetSpec.parse("scenes")), ScenesReader)


@pytest.fixture
def coco_folder(tmp_path):
    """A folder with a COCO file for each of two splits."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_annotations.coco.json").write_text(COCO)
    return tmp_path


@pytest.mark.parametrize(("options", "split"), [("", "train"), ("?split=train", "train"), ("?split=val", "val")])
def test_the_split_of_a_coco_folder_is_a_folder_in_it(coco_folder, options, split):
    spec = recognize_folder(DatasetSpec.parse(f"{coco_folder}/{options}"), coco_folder)
    assert (spec.location, dict(spec.options)) == (str(coco_folder / split / "_annotations.coco.json"), {})


@pytest.mark.parametrize("split", ["vla", "", "/", "..", "*x", "tra*", "**", "../train"])
def test_a_split_that_a_coco_folder_lacks_is_an_error_that_names_those_it_has(coco_folder, split):
    with pytest.raises(DatasetError, match=r"unknown split .*train, val"):
        recognize_folder(DatasetSpec.parse(f"{coco_folder}/?split={split}"), coco_folder)


def test_images_without_annotations_of_a_labelled_folder_contain_nothing(coco_folder):
    (coco_folder / "labels.json").write_text("{}")
    spec = recognize_folder(DatasetSpec.parse(f"{coco_folder}/"), coco_folder)
    assert spec.options == {"empty": "ask"}
