"""Values of any type in a row: what is valid becomes an example, all else is a row error that names the value."""

import numpy as np
import pytest
from PIL import Image

from florence_lab.data.rows import AnnotatedRow, Annotation, RowError, TextRow
from florence_lab.data.validation import RowValidator
from florence_lab.tasks import TASKS

IMAGE = Image.new("RGB", (200, 100))
BOX = [20, 10, 120, 60]
TOKENS = "<loc_100><loc_100><loc_600><loc_600>"
SQUARE = np.array([[20.0, 10], [120, 10], [120, 60]])
INPUTS = {"none": "", "phrase": "a cat", "region": TOKENS}


def text_row(query="<CAPTION>", response="a cat", image=IMAGE, **fields):
    return TextRow(image, query, response, "rows.jsonl, row 7", **fields)


def find(*objects, **fields):
    return text_row("Find <ref-object>", "<bbox>", objects=list(objects), **fields)


def item(caption="cat", bbox=BOX, **fields):
    return {"caption": caption, "bbox": bbox} | fields


def annotated(task="<OD>", label="cat", box=BOX, polygons=(), **fields):
    annotations = (Annotation(label, np.array(box, float), "a.json, annotation 3", polygons),)
    return AnnotatedRow(IMAGE, TASKS[task], **({"annotations": annotations, "source": "a.json, image 1"} | fields))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (text_row(response=None), [""]),
        (text_row(response=""), [""]),
        (text_row(response=" \n"), [""]),
        (text_row(response=5), ["5"]),
        (text_row(response=-0.25), ["-0.25"]),
        (text_row(response=1e22), ["10000000000000000000000"]),
        (text_row(response=np.int64(3)), ["3"]),
        (text_row(response=["a cat", "cat"]), ["a cat", "cat"]),
        (text_row(response=("a cat", "")), ["a cat", ""]),
        (text_row(response=np.array(["a", "b"])), ["a", "b"]),
        (text_row(response=["a cat", "cat"], answers="first"), ["a cat"]),
        (text_row(response="None"), ["None"]),
        (text_row(response="tab\tand\nline\u2028"), ["tab\tand\nline\u2028"]),
        (text_row("How many?", 2), ["2"]),
        (text_row("<OD>", [f"cat{TOKENS}", f"dog{TOKENS}"]), [f"cat{TOKENS}", f"dog{TOKENS}"]),
        (text_row("<OD>", f" cat {TOKENS} "), [f"cat{TOKENS}"]),
        (text_row("<OPEN_VOCABULARY_DETECTION>a cat", None), [""]),
        (text_row("<OD>", objects=None, response=""), [""]),
        (find(item()), [f"cat{TOKENS}"]),
        (find(item(bbox=[BOX, BOX])), [f"cat{TOKENS}{TOKENS}"]),
        (find(item(bbox=np.array(BOX))), [f"cat{TOKENS}"]),
        (find(item(bbox=[0.1, 0.1, 0.6, 0.6], bbox_type="norm_1")), [f"cat{TOKENS}"]),
        (find(item(1), class_names=["dog", "cat"]), [f"cat{TOKENS}"]),
        (find(item(7), class_names={"7": "cat"}), [f"cat{TOKENS}"]),
        (text_row("What is in <bbox>?", "It is at <bbox>.", boxes=[BOX, BOX]), [f"It is at {TOKENS}."]),
        (text_row("<OD>", "cat<bbox>", boxes=[[100, 100, 600, 600]], unit="norm_1000"), [f"cat{TOKENS}"]),
        (annotated(), [f"cat{TOKENS}"]),
        (annotated(label=1, class_names={0: "dog", 1: "cat"}), [f"cat{TOKENS}"]),
        (annotated(annotations=()), [""]),
        (annotated("<REGION_PROPOSAL>", label=""), [TOKENS]),
        (annotated("<OPEN_VOCABULARY_DETECTION>", phrase="a cat"), [f"cat{TOKENS}"]),
        (annotated("<REGION_TO_CATEGORY>"), [f"cat{TOKENS}"]),
        (annotated(image_size=(200.0, 100)), [f"cat{TOKENS}"]),
    ],
)
def test_a_valid_value_becomes_a_target(validator, row, expected):
    examples, errors = validator(row)
    assert errors == []
    assert [example.target for example in examples] == expected


@pytest.mark.parametrize(
    ("row", "kind", "detail"),
    [
        # images
        (text_row(image=None), "unreadable image", "no image"),
        (text_row(image=5), "unreadable image", "int"),
        (text_row(image="~nouser/x.png"), "unreadable image", "nouser"),
        (text_row(image="a\0b.png"), "unreadable image", "a"),
        (text_row(image="x" * 5000), "unreadable image", "xxx"),
        # queries
        (text_row(None), "invalid query", "None"),
        (text_row(5), "invalid query", "5"),
        (text_row(True), "invalid query", "True"),
        (text_row(["a"]), "invalid query", "['a']"),
        (text_row({"a": 1}), "invalid query", "{'a': 1}"),
        (text_row(""), "invalid query", "phrase"),
        (text_row("is \ud800 good"), "invalid query", "lone surrogate"),
        (text_row("is \x00 good"), "invalid query", r"'\x00'"),
        (text_row("is \x92 good"), "invalid query", "another encoding"),
        (text_row("is this <image> good"), "invalid query", "<image>"),
        (text_row("is this </s> good"), "invalid query", "</s>"),
        (text_row("<OPEN_VOCABULARY_DETECTION>a <pad> cat"), "invalid query", "<pad>"),
        (text_row("<ODD>"), "invalid query", "<ODD>"),
        (text_row("w " * 3000), "query too long", "3002 tokens; the model reads at most 40"),
        (text_row("What is in <bbox>?"), "placeholder without objects", "<bbox>"),
        (text_row("Find <ref-object>", "<bbox>", objects=[]), "placeholder without objects", "<ref-object>"),
        # responses
        (text_row(response="", has_response=False), "no response", "null"),
        (text_row(response=True), "invalid response", "True"),
        (text_row(response={"a": 1}), "invalid response", "{'a': 1}"),
        (text_row(response=[]), "invalid response", "no answer"),
        (text_row(response=["a", 5]), "invalid response", "5"),
        (text_row(response=["a", None]), "invalid response", "None"),
        (text_row(response=["a", ["b"]]), "invalid response", "['b']"),
        (text_row(response=float("nan")), "invalid response", "nan"),
        (text_row(response=float("inf")), "invalid response", "inf"),
        (text_row(response=10**5000), "cannot be read", "4300 digits"),
        (text_row(response="half \udfff"), "invalid response", "lone surrogate"),
        (text_row(response="bell \x07"), "invalid response", r"'\x07'"),
        (text_row("<OD>", ["cat" + TOKENS, "cat"]), "target does not fit the task", "'cat'"),
        # objects
        (find(), "placeholder without objects", "<ref-object>"),
        (text_row("Find <ref-object>", "<bbox>", objects=5), "invalid objects", "5"),
        (text_row("Find <ref-object>", "<bbox>", objects={"a": 1}), "invalid objects", "{'a': 1}"),
        (text_row("Find <ref-object>", "<bbox>", objects="[]"), "invalid objects", "'[]'"),
        (find("a"), "invalid objects", "'a'"),
        (find(None), "invalid objects", "None"),
        (find({"a": 1}), "object without a caption", "{'a': 1}"),
        (find(item(None)), "object without a caption", "None"),
        (find(item(" ")), "object without a caption", "' '"),
        (find(item(["cat"])), "invalid label", "['cat']"),
        (find(item(True)), "invalid label", "True"),
        (find(item(1.5)), "invalid label", "1.5"),
        (find(item("\ud800")), "invalid label", "lone surrogate"),
        (find(item("<image>")), "invalid label", "<image>"),
        (find(item(3)), "class number without names", "3"),
        (find(item(3), class_names=["dog", "cat"]), "unknown class number", "'0, 1'"),
        (find(item(-1), class_names=["dog", "cat"]), "unknown class number", "-1"),
        (find(item(bbox_type=[])), "unknown bbox_type", "[]"),
        (find(item(bbox_type={"a": 1})), "unknown bbox_type", "expected real"),
        (find(item(bbox_type=None)), "unknown bbox_type", "None"),
        (find(item(bbox_type="yolo")), "unknown bbox_type", "norm_1000"),
        (find(item(image=1)), "more than one image", "1"),
        (find(item(bbox=None)), "invalid box", "None"),
        (find(item(bbox=[])), "invalid box", "[]"),
        (find(item(bbox=[[]])), "invalid box", "[[]]"),
        (find(item(bbox=[1, 2, 3])), "invalid box", "[1, 2, 3]"),
        (find(item(bbox=[*BOX, *BOX])), "invalid box", "four"),
        (find(item(bbox=[BOX, [1, 2]])), "invalid box", "[1, 2]"),
        (find(item(bbox="20 10 120 60")), "invalid box", "'20 10 120 60'"),
        (find(item(bbox=["20", "10", "120", "60"])), "invalid box", "'20'"),
        (find(item(bbox=[0, 0, True, 5])), "invalid box", "True"),
        (find(item(bbox=[0, 0, 10**400, 5])), "invalid box", "1000"),
        (find(item(bbox=[0, 0, float("inf"), 5])), "invalid box", "inf"),
        (find(item(bbox=[0, 0, float("nan"), 5])), "invalid box", "nan"),
        (find(item(bbox={"x": 1})), "invalid box", "{'x': 1}"),
        (find(item(bbox=[[[20, 10, 120, 60]]])), "invalid box", "[[["),
        (find(item(bbox=[120, 10, 20, 60])), "box without area", "120"),
        (find(item(bbox=[0.1, 0.1, 0.6, 0.6])), "box in fractions", "norm_1"),
        (find(item(bbox=[20, 10, 120, 60], bbox_type="norm_1")), "box outside the image", "200 x 100"),
        (text_row("<OD>", "cat<bbox>", boxes=[BOX, BOX]), "placeholders do not fit the boxes", "2 boxes for 1"),
        (text_row("<OD>", "cat<bbox>", boxes=[[1, 2]]), "invalid box", "[1, 2]"),
        (text_row("<OD>", "cat<bbox>", boxes=[[0, 0, 900, 900]]), "box outside the image", "900"),
        # annotations
        (annotated(label=""), "no label", "<OD>"),
        (annotated("<REGION_TO_CATEGORY>", label=" "), "no label", "<REGION_TO_CATEGORY>"),
        (annotated(label=4), "class number without names", "4"),
        (annotated(label=None), "invalid label", "None"),
        (annotated(label="a<loc_1>"), "target does not fit the task", "'a<loc_1>'"),
        (annotated(box=[float("nan"), 0, 5, 5]), "invalid box", "nan"),
        (annotated(box=[0, 0, 0.5, 0.5]), "box in fractions", "0.5"),
        (annotated("<REGION_TO_SEGMENTATION>", label=""), "no polygon", "segmentation"),
        (annotated("<REGION_TO_SEGMENTATION>", "", polygons=(SQUARE[:2],)), "invalid polygon", "three vertices"),
        (annotated("<REGION_TO_SEGMENTATION>", "", polygons=(SQUARE * np.nan,)), "invalid polygon", "nan"),
        (annotated("<REGION_TO_CATEGORY>", annotations=()), "no region", "0"),
        (annotated("<OPEN_VOCABULARY_DETECTION>"), "invalid query", "phrase"),
        (annotated("<OPEN_VOCABULARY_DETECTION>", phrase=5), "invalid phrase", "5"),
        (annotated(image_size=(float("nan"), 100)), "wrong image size", "nan x 100"),
        (annotated(image_size=(10**30, 100)), "wrong image size", "10000"),
        (annotated(image_size=(5000, 100)), "wrong image size", "5000 x 100 pixels, but the image has 200 x 100"),
        (annotated(image_size=("200", None)), "wrong image size", "'200' x None"),
        # what no check foresees
        (annotated(image_size=5), "cannot be read", "TypeError"),
        (annotated(annotations=5), "cannot be read", "TypeError"),
    ],
)
def test_an_invalid_value_is_a_row_error(template, row, kind, detail):
    examples, (error,) = RowValidator(template, max_prompt_tokens=40)(row)
    assert examples == []
    assert error.kind == kind
    assert detail in error.details
    assert error.source in (row.source, "a.json, annotation 3")
    assert len(str(error)) < 500


@pytest.mark.parametrize("token", ["<CAPTION>", "<OD>", "<OCR_WITH_REGION>", "<REFERRING_EXPRESSION_SEGMENTATION>"])
@pytest.mark.parametrize(
    "response", [None, "", True, {}, [], [None], b"x", [10**5000], object(), float("nan"), "\ud800"]
)
@pytest.mark.parametrize("query_suffix", ["", "\0", "<image>", TOKENS])
def test_no_value_makes_the_validation_fail(validator, token, response, query_suffix):
    row = text_row(token + INPUTS[TASKS[token].input] + query_suffix, response, objects=response)
    examples, errors = validator(row)
    assert examples or errors
    assert all(isinstance(error, RowError) and error.source == row.source for error in errors)


def test_the_objects_that_a_reader_could_not_read_are_reported(validator):
    fault = RowError("a.json, annotation 4", "invalid box")
    examples, errors = validator(annotated(errors=(fault,)))
    assert (len(examples), errors) == (1, [fault])
    examples, errors = validator(annotated(annotations=(), errors=(fault,)))
    assert (examples, errors) == ([], [fault]), "an image whose objects are all invalid is not empty"


def test_inference_takes_the_first_of_several_answers_and_rows_without_one(template):
    validator = RowValidator(template, require_target=False)
    assert [e.target for e in validator(text_row(response=["a", "b"])).examples] == ["a"]
    assert [e.target for e in validator(text_row(response=None, has_response=False)).examples] == [""]


def test_the_length_of_prompts_is_limited_by_the_model(tiny):
    validator = RowValidator.for_model(tiny.model, tiny.processor)
    limit = validator.max_prompt_tokens
    assert len(validator(text_row("w" + " w" * (limit - 3))).examples) == 1
    (error,) = validator(text_row("w" + " w" * (limit - 2))).errors
    assert (error.kind, error.details) == (
        "query too long",
        f"{limit + 1} tokens; the model reads at most {limit} besides the image",
    )
