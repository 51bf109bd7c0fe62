"""Datasets of hubs, read from a local folder."""

import pytest
from PIL import Image

from florence_lab.exceptions import DatasetError


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A folder as `datasets` downloads it from a hub: an image and two columns of text."""
    import datasets

    images = [Image.new("RGB", (200, 100), color) for color in ("red", "green", "blue")]
    columns = {"photo": images, "says": ["a cat", "a dog", ""], "ask": ["<CAPTION>"] * 3}
    folder = tmp_path_factory.mktemp("table")
    datasets.Dataset.from_dict(columns).cast_column("photo", datasets.Image()).to_parquet(folder / "train.parquet")
    return folder


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    import datasets

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.mark.parametrize("hub", ["hf", "ms"])
def test_columns_are_mapped_by_options(read, table, hub):
    examples, errors = read(f"{hub}:{table}?image=photo&response=says&query=ask")
    assert errors == []
    assert [(example.prompt.query, example.target) for example in examples] == [
        ("<CAPTION>", "a cat"),
        ("<CAPTION>", "a dog"),
        ("<CAPTION>", ""),
    ]
    assert examples[1].load_image().getpixel((0, 0)) == (0, 128, 0)
    assert examples[2].source.endswith("row 3")


def test_a_task_can_be_the_query_of_every_row(read, table):
    examples, _ = read(f"hf:{table}?image=photo&response=says&query=<DETAILED_CAPTION>")
    assert [example.prompt.task.token for example in examples] == ["<DETAILED_CAPTION>"] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "no column query, image; its columns are photo, says, ask"),
        ("?image=photo&query=ask&response=said", "no column said"),
        ("?picture=photo", "unknown option 'picture'"),
        ("?image=photo&query=ask&bbox_format=yolo", "bbox_format must be one of xywh, xyxy"),
        ("?image=photo&query=ask&split=test", "test"),
    ],
)
def test_a_dataset_that_does_not_fit_is_an_error(read, table, options, message):
    with pytest.raises(DatasetError, match=message):
        read(f"hf:{table}{options}")


def test_class_numbers_in_a_column_of_classes_become_names(read, tmp_path):
    import datasets

    features = datasets.Features(image=datasets.Image(), response=datasets.ClassLabel(names=["healthy", "rust"]))
    columns = {"image": [Image.new("RGB", (200, 100))] * 4, "response": [1, 0, None, -1]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train.parquet")
    examples, (error,) = read(f"hf:{tmp_path}?query=<CAPTION>")
    assert [example.target for example in examples] == ["rust", "healthy", ""]
    assert (error.source.rpartition(", ")[2], error.kind) == ("row 4", "unknown class number")


def write_table(folder, columns, **features):
    """Write a table as `datasets` stores it, with some features of its own, and return its folder."""
    import datasets

    rows = datasets.Dataset.from_dict(columns)
    rows.cast(datasets.Features({**rows.features, **features})).to_parquet(folder / "train.parquet")
    return folder


@pytest.mark.parametrize("is_list_of_objects", [False, True])
@pytest.mark.parametrize("labels", ["numbers", "names"])
def test_detection_columns_are_read_with_the_names_of_their_features(tmp_path, read, is_list_of_objects, labels):
    import datasets

    image = datasets.Image().encode_example(Image.new("RGB", (200, 100)))
    objects = [{"bbox": [20.0, 10.0, 100.0, 50.0], "category": 1 if labels == "numbers" else "cat", "area": 5000}]
    category = datasets.ClassLabel(names=["dog", "cat"]) if labels == "numbers" else datasets.Value("string")
    item = {"bbox": datasets.List(datasets.Value("float32")), "category": category, "area": datasets.Value("int64")}
    feature = datasets.List(item)
    if not is_list_of_objects:  # as most datasets on the hub are stored
        objects = {name: [entry[name] for entry in objects] for name in item}
        feature = {name: datasets.List(value) for name, value in item.items()}
    columns = {
        "image_id": [0, 1],
        "image": [image] * 2,
        "objects": [objects, [] if is_list_of_objects else {name: [] for name in item}],
    }
    table = write_table(tmp_path, columns, image=datasets.Image(), objects=feature)
    examples, errors = read(f"hf:{table}")
    assert errors == []
    assert [(example.prompt.query, example.target) for example in examples] == [
        ("<OD>", "cat<loc_100><loc_100><loc_600><loc_600>"),
        ("<OD>", ""),
    ]


def test_messages_and_lists_of_images_are_read(tmp_path, read):
    import datasets

    image = datasets.Image().encode_example(Image.new("RGB", (200, 100), "green"))
    messages = [{"role": "user", "content": "<image><CAPTION>"}, {"role": "assistant", "content": "a cat"}]
    columns = {"messages": [messages], "images": [[image]]}
    table = write_table(tmp_path, columns, images=datasets.List(datasets.Image()))
    (example,), errors = read(f"hf:{table}")
    assert (example.prompt.query, example.target, errors) == ("<CAPTION>", "a cat", [])
    assert example.load_image().getpixel((0, 0)) == (0, 128, 0)


@pytest.mark.parametrize("hub", ["hf", "ms"])
def test_a_hub_that_is_not_reachable_is_an_error_within_seconds(read, monkeypatch, hub):
    import requests

    def refuse(*args, **kwargs):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "head", refuse)
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **kwargs: pytest.fail("the library retries"))
    with pytest.raises(DatasetError, match=rf"{hub}:nope/x is neither a folder nor cached.* not reachable"):
        read(f"{hub}:nope/x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:", "hf: is followed by a hub id or a folder"),
        ("ms:", "ms: is followed by a hub id or a folder"),
        ("hf:./gone", "there is no folder ./gone"),
        ("hf:/gone/a/b", "there is no folder /gone/a/b"),
        ("hf:~nobody-here/x", "~nobody-here"),
    ],
)
def test_a_name_that_no_hub_has_is_an_error(read, name, message):
    with pytest.raises(DatasetError, match=message):
        read(name)


def test_an_unreadable_image_is_an_error_of_its_row(tmp_path, read):
    import datasets

    image = datasets.Image().encode_example(Image.new("RGB", (200, 100)))
    columns = {"image": [image, {"bytes": b"no image", "path": None}, None], "text": ["a", "b", "c"]}
    table = write_table(tmp_path, columns, image=datasets.Image())
    (_,), errors = read(f"hf:{table}")
    assert [error.kind for error in errors] == ["unreadable image", "not exactly one image"]
