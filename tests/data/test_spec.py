"""The names of datasets."""

import pytest

from florence_lab.data.spec import DatasetSpec
from florence_lab.exceptions import DatasetError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("rows.jsonl", DatasetSpec("jsonl", "rows.jsonl")),
        ("~/my data/rows.JSON#5", DatasetSpec("json", "~/my data/rows.JSON", sample=5)),
        ("a#b.jsonl#5", DatasetSpec("jsonl", "a#b.jsonl", sample=5)),
        (r"C:\data\rows.jsonl", DatasetSpec("jsonl", r"C:\data\rows.jsonl")),
        ("scenes", DatasetSpec("scenes")),
        ("scenes:500?split=held_out", DatasetSpec("scenes", "500", {"split": "held_out"})),
        ("coco:a.json?tasks=OD,REGION_TO_CATEGORY#9", DatasetSpec("coco", "a.json", {"tasks": "OD,REGION_TO_CATEGORY"}, 9)),
        ("hf:me/set?image=my%20photo&query=<OD>", DatasetSpec("hf", "me/set", {"image": "my photo", "query": "<OD>"})),
        ("rows.csv?query=<CAPTION>&response=text#3", DatasetSpec("csv", "rows.csv", {"query": "<CAPTION>", "response": "text"}, 3)),
        ("scenes?split=held_out", DatasetSpec("scenes", "", {"split": "held_out"})),
        ("./data?split=val", DatasetSpec("", "./data", {"split": "val"})),
        ("/data/my.folder/", DatasetSpec("", "/data/my.folder/")),
        ("what?.jsonl", DatasetSpec("jsonl", "what?.jsonl")),
        ("coco:a?b.json", DatasetSpec("coco", "a?b.json")),
        ("scenes_val.jsonl", DatasetSpec("jsonl", "scenes_val.jsonl")),
    ],
)  # fmt: skip
def test_a_name_is_parsed_and_written_again(text, spec):
    assert DatasetSpec.parse(text) == spec
    assert DatasetSpec.parse(str(spec)) == spec


@pytest.mark.parametrize("text", ["scenes:3#x", "rows.jsonl#0", "rows.jsonl#-1", "rows.jsonl#", "rows.jsonl#1e3"])
def test_a_sample_must_be_a_positive_number(text):
    with pytest.raises(DatasetError, match="number of rows"):
        DatasetSpec.parse(text)


def test_a_sample_of_any_length_is_parsed():
    assert (DatasetSpec.parse("rows.jsonl#" + "9" * 5000).sample or 0) > 10**17


def test_an_option_is_given_once():
    with pytest.raises(DatasetError, match="the option 'split' is given twice"):
        DatasetSpec.parse("scenes:3?split=train&split=held_out")
