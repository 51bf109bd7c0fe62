"""Training data: every format becomes the same examples, and every bad row is found and named."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from florence_lab.data.datasets import load_examples
from florence_lab.data.examples import ScenePicture, open_picture
from florence_lab.data.rows import RowError
from florence_lab.data.validation import summarize_row_errors
from florence_lab.exceptions import DatasetError
from florence_lab.scenes import write_dataset
from florence_lab.template.locations import format_location_tokens

SIZE = (200, 100)
BOX = [20, 10, 120, 60]
TOKENS = "<loc_100><loc_100><loc_600><loc_600>"


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    from florence_lab.loading.registry import MODELS

    return AutoTokenizer.from_pretrained(MODELS["florence-2-nano"].path)


@pytest.fixture
def write(tmp_path):
    """Writes rows into a file beside a picture `a.png` of 200 x 100 and a broken one, `b.png`; returns its path."""
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")

    def to(name, *rows):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) if name.endswith("jsonl") else f"[{', '.join(lines)}]")
        return str(tmp_path / name)

    return to


def row(query="<CAPTION>", response="a cat", **more):
    return {"query": query, "response": response, "images": ["a.png"]} | more


def thing(caption="guy in red", bbox=BOX, **more):
    return {"caption": caption, "bbox": bbox, "bbox_type": "real", "image": 0} | more


# ---------------------------------------------------------------------- formats


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize(
    "same",
    [row("<OD>", "cat" + TOKENS), {"image": "a.png", "prefix": "<OD>", "suffix": "cat" + TOKENS}],
    ids=["ms-swift", "roboflow"],
)
def test_rows_of_both_kinds(write, tokenizer, name, same):
    (example,), problems = load_examples([write(name, same)], tokenizer)
    assert problems == []
    assert (example.task, example.text, example.response) == ("<OD>", "", "cat" + TOKENS)
    assert example.prompt == "Locate the objects with category name in the image."
    assert open_picture(example.image).size == SIZE
    assert example.source.endswith(f"{name}, row 1")


def test_a_phrase_and_a_region_stand_behind_the_token(write, tokenizer):
    rows = row("<OPEN_VOCABULARY_DETECTION>a cat", "a cat" + TOKENS), row("<REGION_TO_CATEGORY>" + TOKENS, "cat")
    examples, problems = load_examples([write("rows.jsonl", *rows)], tokenizer)
    assert problems == []
    assert [(e.task, e.text) for e in examples] == [
        ("<OPEN_VOCABULARY_DETECTION>", "a cat"),
        ("<REGION_TO_CATEGORY>", TOKENS),
    ]
    assert examples[1].prompt == f"What is the region {TOKENS}?"


@pytest.mark.parametrize(
    ("kind", "bbox"),
    [("real", BOX), ("norm_1000", [100, 100, 600, 600]), ("norm_1", [0.1, 0.1, 0.6, 0.6])],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_what_is_in_a_box(write, tokenizer, kind, bbox, as_text):
    objects = [thing(bbox=bbox, bbox_type=kind)]
    objects = json.dumps(objects) if as_text else objects
    asked = row("What is in <bbox>?", "<ref-object>", objects=objects)
    (example,), problems = load_examples([write("rows.jsonl", asked)], tokenizer)
    assert problems == []
    assert (example.task, example.text) == ("<REGION_TO_DESCRIPTION>", TOKENS)
    assert example.response == "guy in red" + TOKENS


def test_several_things_to_find_are_told_apart(write, tokenizer):
    objects = [thing(), thing("a dog", [[0, 0, 20, 10], [180, 90, 200, 100]])]
    asked = row("Find <ref-object>", "<bbox>", objects=objects)
    (example,), problems = load_examples([write("rows.jsonl", asked)], tokenizer)
    assert problems == []
    assert (example.task, example.text) == ("<OPEN_VOCABULARY_DETECTION>", "guy in red and a dog")
    dogs = format_location_tokens([0, 0, 20, 10], SIZE) + format_location_tokens([180, 90, 200, 100], SIZE)
    assert example.response == f"guy in red{TOKENS}a dog{dogs}"


def test_several_boxes_to_name_are_a_question_each(write, tokenizer):
    asked = row("What is in <bbox>?", "<ref-object>", objects=[thing(), thing("a dog", [0, 0, 20, 10])])
    examples, _ = load_examples([write("rows.jsonl", asked)], tokenizer)
    assert [e.response.partition("<")[0] for e in examples] == ["guy in red", "a dog"]
    assert len({e.source for e in examples}) == 1


def test_a_coco_file_asks_what_it_is_told_to(tmp_path, tokenizer):
    """Written from scenes and read again, it gives the answers that the scenes themselves give."""
    folder = write_dataset(tmp_path, [1_000_003, 1_000_004], 200, ["<OD>"])
    file = f"coco:{folder / 'annotations.json'}"
    found, problems = load_examples([file], tokenizer)
    expected, _ = load_examples([str(folder / "train.jsonl")], tokenizer)
    assert problems == []
    assert [(e.image, e.task, e.response) for e in found] == [(e.image, e.task, e.response) for e in expected]

    tasks = "REGION_TO_CATEGORY,REGION_TO_SEGMENTATION,DENSE_REGION_CAPTION"
    found, problems = load_examples([f"{file}?tasks={tasks}"], tokenizer)
    assert problems == []
    assert {e.task for e in found} == {f"<{name}>" for name in tasks.split(",")}
    outline = next(e for e in found if e.task == "<REGION_TO_SEGMENTATION>")
    assert outline.response.count("<loc_") >= 6


def test_scenes_are_drawn_when_they_are_needed(tokenizer):
    examples, problems = load_examples(["scenes:3"], tokenizer)
    assert problems == []
    assert {e.image.seed for e in examples} == {2**31 - 3, 2**31 - 2, 2**31 - 1}
    assert len({e.task for e in examples}) >= 12
    picture = open_picture(examples[0].image)
    assert picture.size == (384, 384)
    assert np.array_equal(picture, open_picture(ScenePicture(*examples[0].image)))


def test_datasets_are_mixed_and_sampled(write, tokenizer):
    few = write("few.jsonl", *[row(response=f"cat {i}") for i in range(20)])
    examples, _ = load_examples([f"{few}#5", "scenes:2#3"], tokenizer)
    assert len(examples) == 8
    numbers = [int(e.response.split()[1]) for e in examples[:5]]
    assert numbers == sorted(set(numbers))
    again, _ = load_examples([f"{few}#5", "scenes:2#3"], tokenizer)
    assert [e.source for e in again] == [e.source for e in examples]
    other, _ = load_examples([f"{few}#5"], tokenizer, seed=7)
    assert [e.source for e in other] != [e.source for e in examples[:5]]
    assert len(load_examples([f"{few}#50"], tokenizer)[0]) == 20


# ---------------------------------------------------------------------- bad rows


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(images=["gone.png"]), "no picture: .*gone.png does not exist"),
        (row(images=["b.png"]), "no picture: .*b.png is not an image"),
        (row(images=[]), "not one picture: 0 images"),
        (row(images=["a.png", "a.png"]), "not one picture: 2 images"),
        (row(response=" "), "the answer is empty"),
        (row(response="cat " * 100), "the answer is too long: .* with --max_length 60"),
        (row("<ODD>"), "no question for a task: unknown task '<ODD>'; did you mean '<OD>'"),
        (row("<OD>the cat"), "no question for a task: .*<OD>"),
        (row("<REGION_TO_CATEGORY>the cat"), "no question for a task: .*<REGION_TO_CATEGORY>"),
        (row("<OPEN_VOCABULARY_DETECTION>"), "no question for a task: .*<OPEN_VOCABULARY_DETECTION>"),
        (row(history=[["a", "b"]]), "more than one round"),
        ({"text": "cat"}, "unknown columns: text; give query, response and images"),
        ("{broken", "no JSON"),
        ("[1, 2]", "no row"),
        (row("Find <ref-object>", "<bbox>", objects="[{"), "no objects"),
        (row("Find it", "there", objects=[thing()]), "objects without a place"),
        (row("Find <ref-object>", "<bbox>", objects=[thing(caption=" ")]), "an object without a caption"),
        (row("Find <ref-object>", "<bbox>", objects=[thing(image=1)]), "more than one picture"),
        (row("Find <ref-object>", "<bbox>", objects=[thing(bbox_type="yolo")]), "unknown bbox_type: 'yolo', give real"),
        (row("Find <ref-object>", "<bbox>", objects=[thing(bbox=[1, 2, 3])]), r"no box: \[1, 2, 3\]"),
        (row("Find <ref-object>", "<bbox>", objects=[thing(bbox=[10, 10, 10, 50])]), "a box without an area"),
        (
            row("Find <ref-object>", "<bbox>", objects=[thing(bbox=[20, 10, 220, 60])]),
            r"a box outside its picture: \(20, 10, 220, 60\) in a picture of 200 x 100",
        ),
        (row("Find <ref-object>", "<bbox>", objects=[thing(bbox_type="norm_1")]), "a box outside its picture"),
    ],
)
def test_a_bad_row_is_named_with_its_reason(write, tokenizer, bad, reason):
    name = write("rows.jsonl", row(), bad, row())
    examples, problems = load_examples([name], tokenizer, max_length=60)
    assert len(examples) == 2
    assert [(problem.dataset, problem.row) for problem in problems] == [(name, 2)]
    assert re.match(reason, problems[0].reason), problems[0].reason


def test_a_rounded_box_at_the_border_is_no_fault(write, tokenizer):
    asked = row("Find <ref-object>", "<bbox>", objects=[thing(bbox=[0, 0, 200.6, 100])])
    (example,), problems = load_examples([write("rows.jsonl", asked)], tokenizer)
    assert problems == []
    assert example.response == "guy in red<loc_0><loc_0><loc_999><loc_999>"


def test_problems_are_counted_by_kind():
    problems = [RowError("a.jsonl", i, f"no picture: {i}.png does not exist") for i in range(1, 8)]
    text = summarize_row_errors([*problems, RowError("b.jsonl", 4, "the answer is empty")], shown=2)
    assert text.splitlines() == [
        "7 x no picture",
        "    a.jsonl, row 1: no picture: 1.png does not exist",
        "    a.jsonl, row 2: no picture: 2.png does not exist",
        "    … and 5 more",
        "1 x the answer is empty",
        "    b.jsonl, row 4: the answer is empty",
    ]


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        ("gone.jsonl", "gone.jsonl can't be read: there is no such file"),
        ("rows.csv", "unknown dataset 'rows.csv': it ends or begins with none of .jsonl, .json, coco:, scenes:"),
        ("scenes:many", "scenes:many is no dataset"),
        ("scenes:0", "scenes:0 is no dataset"),
        ("scenes:3#x", "behind # stands how many rows"),
        ("coco:gone.json", "gone.json can't be read"),
    ],
)
def test_what_is_no_dataset_is_an_error(tokenizer, dataset, reason):
    with pytest.raises(DatasetError, match=reason):
        load_examples([dataset], tokenizer)


def test_a_file_of_another_kind_is_an_error(write, tmp_path, tokenizer):
    rows = write("rows.json", row())
    with pytest.raises(DatasetError, match="is no COCO file"):
        load_examples([f"coco:{rows}"], tokenizer)
    (tmp_path / "one.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DatasetError, match="a COCO file is coco:"):
        load_examples([str(tmp_path / "one.json")], tokenizer)
    with pytest.raises(DatasetError, match="no answers to <CAPTION>; it has to <OD>"):
        load_examples([f"coco:{tmp_path / 'one.json'}?tasks=CAPTION"], tokenizer)
    (tmp_path / "bad.json").write_text("[{")
    with pytest.raises(DatasetError, match="is no JSON"):
        load_examples([str(tmp_path / "bad.json")], tokenizer)


# ---------------------------------------------------------------------- hubs


@pytest.fixture
def table(tmp_path):
    """A folder that `datasets` reads as it reads what it fetched from a hub: a picture and two columns of text."""
    import datasets

    pictures = [Image.new("RGB", SIZE, color) for color in ("red", "green", "blue")]
    columns = {"photo": pictures, "says": ["a cat", "a dog", ""], "ask": ["<CAPTION>", "<OD>", "<CAPTION>"]}
    made = datasets.Dataset.from_dict(columns).cast_column("photo", datasets.Image())
    (tmp_path / "table").mkdir()
    made.to_parquet(tmp_path / "table" / "train.parquet")
    return tmp_path / "table"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("hub", ["hf", "ms"])
def test_columns_of_a_hub_are_mapped(tokenizer, table, hub):
    found, problems = load_examples([f"{hub}:{table}?image=photo&response=says&query=ask"], tokenizer)
    assert [(example.task, example.response) for example in found] == [("<CAPTION>", "a cat"), ("<OD>", "a dog")]
    assert open_picture(found[1].image).getpixel((0, 0)) == (0, 128, 0)
    assert [(problem.row, problem.reason) for problem in problems] == [(3, "the answer is empty")]


def test_one_task_may_be_asked_of_every_row(tokenizer, table):
    found, _ = load_examples([f"hf:{table}?image=photo&response=says&query=<DETAILED_CAPTION>"], tokenizer)
    assert [example.task for example in found] == ["<DETAILED_CAPTION>"] * 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("", "has no column query, image, but photo, says, ask: name them"),
        ("?image=photo&query=ask&response=said", "has no column said, but photo, says, ask"),
        ("?picture=photo", "only split, subset, query, response, image, objects can be given"),
        ("?image=photo&query=ask&split=test", "can't be had: .*test"),
    ],
)
def test_a_hubs_dataset_that_does_not_fit_is_an_error(tokenizer, table, options, reason):
    with pytest.raises(DatasetError, match=reason):
        load_examples([f"hf:{table}{options}"], tokenizer)
