"""What makes a row valid."""

import json
import random

import pytest
from PIL import Image

from florence_lab.data.datasets import load_examples
from florence_lab.data.rows import RowError, TextRow
from florence_lab.data.validation import RowValidator, summarize_row_errors
from florence_lab.tasks import TASKS
from florence_lab.template.locations import format_location_tokens

SIZE = (200, 100)
BOX = [20, 10, 120, 60]
TOKENS = "<loc_100><loc_100><loc_600><loc_600>"


def row(query="<CAPTION>", response="a cat", **fields):
    return {"query": query, "response": response, "images": ["a.png"]} | fields


def item(caption="guy in red", bbox=BOX, **fields):
    return {"caption": caption, "bbox": bbox, "bbox_type": "real", "image": 0} | fields


def find(*objects):
    return row("Find <ref-object>", "<bbox>", objects=list(objects))


@pytest.mark.parametrize(
    ("query", "response", "text"),
    [
        ("<OD>", f"cat{TOKENS}cat{TOKENS}", ""),
        ("<CAPTION_TO_PHRASE_GROUNDING>a cat", f"a cat{TOKENS}", "a cat"),
        ("<OPEN_VOCABULARY_DETECTION>a cat", f"a cat<poly>{TOKENS}{TOKENS}</poly>", "a cat"),
        ("<REGION_TO_CATEGORY>" + TOKENS, "cat" + TOKENS, TOKENS),
        ("<REGION_TO_CATEGORY>" + TOKENS, "cat", TOKENS),
        ("<REGION_TO_SEGMENTATION>" + TOKENS, TOKENS * 3 + "<sep>" + TOKENS * 2, TOKENS),
        ("<OCR_WITH_REGION>", f"stop{TOKENS}{TOKENS}", ""),
        ("Where is it?", "at<loc_1>", "Where is it?"),
    ],
)
def test_a_valid_row_becomes_an_example(write_rows, read, query, response, text):
    (example,), errors = read(write_rows("rows.jsonl", row(query, response)))
    assert errors == []
    assert (example.prompt.text, example.target, example.image_size) == (text, response, SIZE)


@pytest.mark.parametrize(
    ("bad", "kind", "detail"),
    [
        (row(images=["gone.png"]), "unreadable image", "gone.png"),
        (row(images=["broken.png"]), "unreadable image", "broken.png"),
        (row(images=[None]), "unreadable image", "no image"),
        (row(response="cat " * 100), "target too long", "60"),
        (row("<ODD>"), "invalid query", "did you mean '<OD>'"),
        (row("<OD>the cat"), "invalid query", "<OD>"),
        (row("<REGION_TO_CATEGORY>the cat"), "invalid query", "<REGION_TO_CATEGORY>"),
        (row("<OPEN_VOCABULARY_DETECTION>"), "invalid query", "<OPEN_VOCABULARY_DETECTION>"),
        (row("Find it", "there", objects=[item()]), "objects without placeholders", "<bbox>"),
        (find(item(caption=" ")), "object without a caption", "bbox"),
        (find(item(caption="a<loc_1>")), "target does not fit the task", "'a<loc_1>'"),
        (find(item(caption="a<loc_1000>")), "invalid label", "'<loc_1000>'"),
        (find(item(image=1)), "more than one image", "1"),
        (find(item(bbox_type="yolo")), "unknown bbox_type", "'yolo'; expected real, norm_1000, norm_1"),
        (find(item(bbox=[1, 2, 3])), "invalid box", "[1, 2, 3]"),
        (find(item(bbox=[10, 10, 10, 50])), "box without area", "(10, 10, 10, 50)"),
        (find(item(bbox=[float("nan"), 10, 20, 50])), "invalid box", "nan"),
        (find(item(bbox=[20, 10, 220, 60])), "box outside the image", "(20, 10, 220, 60) in an image of 200 x 100"),
        (find(item(bbox_type="norm_1")), "box outside the image", "200 x 100"),
    ],
)
def test_an_invalid_row_is_reported_with_its_fault(write_rows, template, bad, kind, detail):
    name = write_rows("rows.jsonl", row(), bad, row())
    examples, (error,) = load_examples([name], RowValidator(template, max_target_tokens=60))
    assert len(examples) == 2
    assert (error.source, error.kind) == (f"{name}, row 2", kind)
    assert detail in error.details


@pytest.mark.parametrize(
    ("query", "response", "detail"),
    [
        ("<OD>", "cat<loc_1><loc_2><loc_3>", "3 locations behind 'cat'"),
        ("<OD>", "no boxes here", "no boxes here"),
        ("<OD>", "sheep 10 20 30 40", "as location tokens"),
        ("<OD>", f"cat{TOKENS}<loc_1000>", "<loc_1000>"),
        ("<OD>", f"cat{TOKENS}</s>", "</s>"),
        ("<OD>", 5, "no location follows '5'"),
        ("<OCR_WITH_REGION>", f"stop{TOKENS}", "stop"),
        ("<REGION_TO_SEGMENTATION>" + TOKENS, TOKENS, "incomplete"),
        ("<REGION_TO_CATEGORY>" + TOKENS, TOKENS, "answers with text"),
        ("<REGION_TO_CATEGORY>" + TOKENS, "cat<loc_1>", "<loc_1>"),
        ("<CAPTION>", "a cat<loc_1>", "<loc_1>"),
        ("What is it?", "a cat</s>", "</s>"),
    ],
)
def test_a_target_that_is_no_whole_answer_is_refused(write_rows, read, query, response, detail):
    examples, (error,) = read(write_rows("rows.jsonl", row(query, response)))
    assert examples == []
    assert error.kind == "target does not fit the task"
    assert detail in error.details


def test_no_target_makes_the_validation_fail(validator):
    rng = random.Random(3)
    pieces = ["cat", " ", "the", "<sep>", "<and>", "<poly>", "</poly>", "<loc_1>", TOKENS, "</s>", "<od>", "é\u2028"]
    image = Image.new("RGB", SIZE)
    for task in TASKS.values():
        query = task.token + {"none": "", "phrase": "a cat", "region": TOKENS}[task.input]
        for _ in range(60):
            target = "".join(rng.choices(pieces, k=rng.randint(1, 7)))
            examples, errors = validator(TextRow(image, query, target, "row 1"))
            assert len(examples) + len(errors) == 1
            assert all(error.kind == "target does not fit the task" for error in errors)


def test_inference_needs_no_target(write_rows, template):
    name = write_rows("rows.jsonl", row("<OD>", ""))
    (example,), errors = load_examples([name], RowValidator(template, require_target=False))
    assert (example.target, errors) == ("", [])


@pytest.mark.parametrize(
    ("unit", "bbox"),
    [("real", BOX), ("norm_1000", [100, 100, 600, 600]), ("norm_1", [0.1, 0.1, 0.6, 0.6])],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_boxes_in_a_query_give_region_descriptions(write_rows, read, unit, bbox, as_text):
    objects = [item(bbox=bbox, bbox_type=unit), item("a dog", [0, 0, 20, 10])]
    objects = json.dumps(objects) if as_text else objects
    examples, errors = read(write_rows("rows.jsonl", row("What is in <bbox>?", "<ref-object>", objects=objects)))
    assert errors == []
    assert [example.prompt.task.token for example in examples] == ["<REGION_TO_DESCRIPTION>"] * 2
    assert examples[0].prompt.text == TOKENS
    assert examples[0].target == "guy in red" + TOKENS
    assert examples[1].target.startswith("a dog<loc_0>")


def test_captions_in_a_query_give_an_open_vocabulary_detection(write_rows, read):
    (example,), errors = read(
        write_rows("rows.jsonl", find(item(), item("a dog", [[0, 0, 20, 10], [180, 90, 200, 100]])))
    )
    assert errors == []
    assert example.prompt.query == "<OPEN_VOCABULARY_DETECTION>guy in red and a dog"
    dogs = format_location_tokens([0, 0, 20, 10], SIZE) + format_location_tokens([180, 90, 200, 100], SIZE)
    assert example.target == f"guy in red{TOKENS}a dog{dogs}"


def test_a_box_that_rounding_moved_out_of_the_image_is_clipped(write_rows, read):
    (example,), errors = read(write_rows("rows.jsonl", find(item(bbox=[0, 0, 200.6, 100]))))
    assert errors == []
    assert example.target == "guy in red<loc_0><loc_0><loc_999><loc_999>"


def test_errors_are_counted_by_kind():
    errors = [RowError(f"a.jsonl, row {i}", "unreadable image", f"{i}.png") for i in range(1, 8)]
    text = summarize_row_errors([*errors, RowError("b.jsonl, row 4", "empty target")], examples_per_kind=2)
    assert text.splitlines() == [
        "7 x unreadable image",
        "    a.jsonl, row 1: unreadable image: 1.png",
        "    a.jsonl, row 2: unreadable image: 2.png",
        "    … and 5 more",
        "1 x empty target",
        "    b.jsonl, row 4: empty target",
    ]
