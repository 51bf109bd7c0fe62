"""Conversations: ms-swift 3's `messages` and LLaVA's `conversations`."""

import json

import pytest

from florence_lab import FlorenceLabWarning

TOKENS = "<loc_100><loc_100><loc_600><loc_600>"
BOX = [20, 10, 120, 60]  # in an image of 200 x 100
OTHER = [0, 0, 20, 10]
OTHER_TOKENS = "<loc_0><loc_0><loc_100><loc_100>"


def swift(user, assistant=None, objects=None, system=None, **fields):
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages += [{"role": "user", "content": user}]
    messages += [] if assistant is None else [{"role": "assistant", "content": assistant}]
    return {"messages": messages, "images": ["a.png"]} | ({} if objects is None else {"objects": objects}) | fields


def llava(*turns, **fields):
    names = ("human", "gpt")
    conversations = [{"from": names[i % 2], "value": value} for i, value in enumerate(turns)]
    return {"id": "000", "image": "a.png", "conversations": conversations} | fields


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize(
    ("row", "query", "target"),
    [
        (swift("<image><CAPTION>", "a cat"), "<CAPTION>", "a cat"),
        (swift("<CAPTION>", "a cat"), "<CAPTION>", "a cat"),
        (swift("<image>\n<OD>", "cat" + TOKENS), "<OD>", "cat" + TOKENS),
        (swift("<image><CAPTION>", "a cat", system=""), "<CAPTION>", "a cat"),
        (swift("<image><OD>", None, messages=[{"role": "user", "content": "<image><OD>"}, {"role": "assistant", "content": None}]), "<OD>", ""),
        (swift([{"type": "image", "image": "a.png"}, {"type": "text", "text": "<CAPTION>"}], "a cat", images=[]), "<CAPTION>", "a cat"),
        (swift("<image><CAPTION>", "a cat", images="a.png"), "<CAPTION>", "a cat"),
        (swift("<image><CAPTION>", "a cat", images=[{"path": "a.png", "bytes": None}]), "<CAPTION>", "a cat"),
        (llava("<image>\nWhat is it?", "A cat."), "What is it?", "A cat."),
        (llava("What is it?\n<image>", "A cat."), "What is it?", "A cat."),
        (llava("<image>\n<CAPTION>", "A cat."), "<CAPTION>", "A cat."),
    ],
)  # fmt: skip
def test_a_turn_becomes_an_example(write_rows, read, name, row, query, target):
    (example,), errors = read(write_rows(name, row))
    assert errors == []
    assert (example.prompt.query, example.target) == (query, target)
    assert example.image_size == (200, 100)


@pytest.mark.parametrize(
    ("user", "assistant", "objects", "query", "target"),
    [
        (
            "<image>Describe the image.",
            "<ref-object><bbox> and <ref-object><bbox> are playing",
            {"ref": ["a dog", "a woman"], "bbox": [BOX, OTHER]},
            "Describe the image.",
            f"a dog{TOKENS} and a woman{OTHER_TOKENS} are playing",
        ),
        (
            "<image>Find the <ref-object> in the image",
            "<bbox><bbox>",
            {"ref": ["sheep"], "bbox": [BOX, OTHER]},
            "Find the sheep in the image",
            TOKENS + OTHER_TOKENS,
        ),
        (
            "<image><OD>",
            "<ref-object><bbox><bbox>",
            {"ref": ["sheep"], "bbox": [[0.1, 0.1, 0.6, 0.6], [0, 0, 0.1, 0.1]], "bbox_type": "norm1"},
            "<OD>",
            "sheep" + TOKENS + OTHER_TOKENS,
        ),
        (
            "<image><CAPTION_TO_PHRASE_GROUNDING><ref-object>",
            "<ref-object><bbox>",
            {"ref": ["a dog", "a dog"], "bbox": [BOX], "bbox_type": "real", "image_id": [0]},
            "<CAPTION_TO_PHRASE_GROUNDING>a dog",
            "a dog" + TOKENS,
        ),
        (
            "<REGION_TO_CATEGORY><bbox>",
            "<ref-object><bbox>",
            {"ref": ["dog"], "bbox": [BOX, BOX]},
            "<REGION_TO_CATEGORY>" + TOKENS,
            "dog" + TOKENS,
        ),
        ("<image><OD>", "cat" + TOKENS, {"ref": [], "bbox": []}, "<OD>", "cat" + TOKENS),
    ],
)
@pytest.mark.parametrize("is_pair", [False, True], ids=["messages", "query and response"])
def test_placeholders_are_filled_in_their_order(write_rows, read, user, assistant, objects, query, target, is_pair):
    row = swift(user, assistant, objects)
    if is_pair:
        row = {"query": user, "response": assistant, "images": ["a.png"], "objects": objects}
    (example,), errors = read(write_rows("rows.jsonl", row))
    assert errors == []
    assert (example.prompt.query, example.target) == (query, target)


@pytest.mark.parametrize(
    ("row", "kind", "detail"),
    [
        (llava("<image>\nWhat is it?", "A cat.", "Which colour?", "Red."), "more than one turn", "2 prompts"),
        (swift("<CAPTION>", "a", messages=[]), "invalid messages", "no messages"),
        (swift("<CAPTION>", "a", messages=None), "invalid messages", "None"),
        (swift("<CAPTION>", "a", messages=["a"]), "invalid messages", "'a'"),
        (swift("<CAPTION>", "a", messages=[{"role": "user"}]), "invalid messages", "without content"),
        (swift("<CAPTION>", "a", messages=[{"role": "tool", "content": "a"}]), "invalid messages", "'tool'"),
        (swift("<CAPTION>", "a", messages=[{"role": [], "content": "a"}]), "invalid messages", "[]"),
        (swift("<CAPTION>", "a", messages=[{"role": "assistant", "content": "a"}]), "invalid messages", "assistant"),
        (swift(5, "a cat"), "invalid messages", "5"),
        (swift([], "a cat"), "invalid messages", "[]"),
        (swift("<OD>", "cat<bbox>", {"bbox": [BOX], "bbox_type": ""}), "unknown bbox_type", "''"),
        (swift("<OD>", "cat<bbox>", {"bbox": [BOX], "image_id": "a"}), "more than one image", "'a'"),
        (swift([{"type": "video", "video": "a.mp4"}], "a cat"), "invalid messages", "video"),
        (swift("<CAPTION>", "a", messages="[{"), "invalid JSON", "column"),
        (swift("<image><image><CAPTION>", "a cat"), "invalid query", "<image>"),
        (swift("<CAPTION>", "a cat", images=["a.png", "a.png"]), "not exactly one image", "2"),
        (swift("<OD>", "<ref-object><bbox>", {"ref": ["cat"], "bbox": []}), "placeholders do not fit the objects", "1 x <bbox> for 0"),
        (swift("<OD>", "<ref-object><bbox>", {"ref": [], "bbox": [BOX]}), "placeholders do not fit the objects", "1 x <ref-object> for 0"),
        (swift("<OD>", "cat" + TOKENS, {"ref": [], "bbox": [BOX]}), "placeholders do not fit the objects", "0 x <bbox> for 1"),
        (swift("<OD>", "cat<bbox>", {"bbox": [[615, 226]]}), "invalid box", "[615, 226]"),
        (swift("<OD>", "cat<bbox>", {"bbox": [[0, 0, "1", 1]]}), "invalid box", "'1'"),
        (swift("<OD>", "cat<bbox>", {"bbox": 5}), "invalid box", "5"),
        (swift("<OD>", "cat<bbox>", {"bbox": [BOX], "bbox_type": "yolo"}), "unknown bbox_type", "'yolo'; expected real, norm1"),
        (swift("<OD>", "cat<bbox>", {"bbox": [BOX], "bbox_type": ["real"]}), "unknown bbox_type", "['real']"),
        (swift("<OD>", "cat<bbox>", {"bbox": [BOX], "bbox_type": "norm1"}), "box outside the image", "200 x 100"),
        (swift("<OD>", "cat<bbox>", {"bbox": [BOX], "image_id": [1]}), "more than one image", "[1]"),
        (swift("<OD>", "<ref-object><bbox>", {"ref": [3], "bbox": [BOX]}), "invalid objects", "[3]"),
        (swift("<OD>", "<ref-object><bbox>", {"ref": ["<bbox>"], "bbox": [BOX]}), "invalid objects", "placeholder"),
    ],
)  # fmt: skip
def test_a_malformed_conversation_is_reported(write_rows, read, row, kind, detail):
    good = swift("<image><CAPTION>", "a cat")
    name = write_rows("rows.jsonl", good, row)
    examples, (error,) = read(name)
    assert len(examples) == 1
    assert (error.source, error.kind) == (f"{name}, row 2", kind)
    assert detail in error.details


def test_images_of_a_conversation_are_relative_to_the_option(write_rows, tmp_path, read):
    (tmp_path / "train").mkdir()
    write_rows("other.jsonl", {})
    (tmp_path / "train" / "llava.json").write_text(json.dumps([llava("<image>\nWhat is it?", "A cat.")]))
    _, (error,) = read(str(tmp_path / "train" / "llava.json"))
    assert error.kind == "unreadable image"
    (example,), errors = read(f"{tmp_path / 'train' / 'llava.json'}?images={tmp_path}")
    assert (example.target, errors) == ("A cat.", [])


def test_an_answer_may_be_missing_for_inference(write_rows, template):
    from florence_lab.data.datasets import load_examples
    from florence_lab.data.validation import RowValidator

    name = write_rows("rows.jsonl", swift("<image><OD>"))
    (example,), errors = load_examples([name], RowValidator(template, require_target=False))
    assert (example.prompt.query, example.target, errors) == ("<OD>", "", [])
    _, (error,) = load_examples([name], RowValidator(template))
    assert error.kind == "no response"


def test_system_prompts_are_ignored_with_a_warning(write_rows, read):
    rows = [
        swift("<CAPTION>", "a cat", system="Be nice."),
        {"query": "<OD>", "response": "", "images": ["a.png"], "system": "x"},
    ]
    with pytest.warns(FlorenceLabWarning, match="Florence-2 does not read one"):
        examples, errors = read(write_rows("rows.jsonl", *rows))
    assert errors == []
    assert [example.prompt.query for example in examples] == ["<CAPTION>", "<OD>"]
