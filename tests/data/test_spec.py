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
        ("scenes_val.jsonl", DatasetSpec("jsonl", "scenes_val.jsonl")),
    ],
)  # fmt: skip
def test_a_name_is_parsed_and_written_again(text, spec):
    assert DatasetSpec.parse(text) == spec
    assert DatasetSpec.parse(str(spec)) == spec


@pytest.mark.parametrize("text", ["scenes:3#x", "rows.jsonl#0", "rows.jsonl#-1", "rows.jsonl#"])
def test_a_sample_must_be_a_positive_number(text):
    with pytest.raises(DatasetError, match="number of rows"):
        DatasetSpec.parse(text)
