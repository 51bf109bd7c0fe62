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
