"""Folders with metadata files, and with a text beside each image."""

import json

import pytest
from PIL import Image

from florence_lab.exceptions import DatasetError, FlorenceLabWarning

ROW = {"file_name": "a.png", "text": "a cat"}


@pytest.fixture
def folder(tmp_path):
    """Write images, 20 x 10, and texts, and return the folder."""

    def write(*images, **texts):
        for name in images:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.new("RGB", (20, 10)).save(tmp_path / name)
        for stem, text in texts.items():
            (tmp_path / f"{stem}.txt").write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize("name", ["imagefolder:{}", "{}", "{}/metadata.jsonl"])
def test_metadata_as_json_lines_is_read(folder, read, name):
    path = folder("a.png")
    (path / "metadata.jsonl").write_text(json.dumps(ROW))
    (example,), errors = read(name.format(path))
    assert (example.prompt.query, example.target, errors) == ("<CAPTION>", "a cat", [])


@pytest.mark.parametrize("name", ["imagefolder:{}", "{}", "{}/metadata.csv"])
def test_metadata_as_a_table_is_read(folder, read, name):
    path = folder("a.png")
    (path / "metadata.csv").write_text("file_name,text\na.png,a cat\n")
    (example,), errors = read(name.format(path) + "?query=<DETAILED_CAPTION>&response=text")
    assert (example.prompt.query, example.target, errors) == ("<DETAILED_CAPTION>", "a cat", [])


def test_a_split_is_a_subfolder(folder, read):
    path = folder("train/a.png", "test/b.png")
    for split, name, text in (("train", "a.png", "a cat"), ("test", "b.png", "a dog")):
        (path / split / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": text}))
    assert [example.target for example in read(f"imagefolder:{path}").examples] == ["a cat"]
    assert [example.target for example in read(f"{path}?split=test").examples] == ["a dog"]
    with pytest.raises(DatasetError, match=r"no metadata\.jsonl or metadata\.csv in .*val"):
        read(f"{path}?split=val")


def test_objects_of_metadata_are_detections(folder, read):
    path = folder("a.png")
    objects = {"bbox": [[2, 1, 10, 5]], "categories": [0]}  # the example of the documentation of `datasets`
    (path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "objects": objects}))
    (example,), errors = read(f"{path}?names=cat,dog")
    assert (example.target, errors) == ("cat<loc_100><loc_100><loc_600><loc_600>", [])


@pytest.mark.parametrize("name", ["captions:{}", "{}"])
def test_texts_beside_images_are_captions(folder, read, name):
    path = folder("a.png", "b.JPG", "sub/c.webp", a="a cat\n", b="größer, a dog")
    (path / "sub/c.txt").write_text("a cow")
    examples, errors = read(name.format(path))
    assert errors == []
    assert [(e.prompt.query, e.target) for e in examples] == [
        ("<CAPTION>", "a cat"),
        ("<CAPTION>", "größer, a dog"),
        ("<CAPTION>", "a cow"),
    ]


def test_the_task_of_captions_is_an_option(folder, read):
    (example,), _ = read(f"captions:{folder('a.png', a='a cat')}?task=MORE_DETAILED_CAPTION")
    assert example.prompt.query == "<MORE_DETAILED_CAPTION>"


@pytest.mark.parametrize(
    ("text", "kind", "detail"),
    [
        (None, "no caption", "there is no b.txt"),
        (b"", "no caption", "b.txt is empty"),
        (b" \n", "no caption", "b.txt is empty"),
        (b"gr\xf6sser", "not UTF-8", "0xf6"),
        (b"0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1", "not a caption", "yolo:"),
    ],
)
def test_an_image_without_a_caption_is_reported(folder, read, text, kind, detail):
    path = folder("a.png", "b.png", a="a cat")
    if text is not None:
        (path / "b.txt").write_bytes(text)
    (_,), (error,) = read(f"captions:{path}")
    assert (error.source, error.kind) == (str(path / "b.png"), kind)
    assert detail in error.details


def test_texts_without_an_image_are_counted(folder, read):
    with pytest.warns(FlorenceLabWarning, match=r"1 texts have no image beside them: readme\.txt"):
        read(f"captions:{folder('a.png', a='a cat', readme='hello')}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("captions:{}/gone", "there is no folder"),
        ("captions:{}", "contains no images"),
        ("captions:{}?task=OD", "task 'OD' must be one that answers with text"),
        ("captions:{}?task=ODD", "<ODD>"),
        ("captions:{}?tasks=CAPTION", "did you mean 'task'"),
        ("imagefolder:{}", r"no metadata\.jsonl or metadata\.csv"),
    ],
)
def test_another_folder_or_task_is_an_error(tmp_path, read, name, message):
    with pytest.raises(DatasetError, match=message):
        read(name.format(tmp_path))


def test_images_without_any_text_are_an_error(folder, read):
    with pytest.raises(DatasetError, match=r"no image with a \.txt of the same name"):
        read(f"captions:{folder('a.png')}")
