"""Requests of ms-swift 3 and 4: what they ask, and which are refused."""

import base64

import numpy as np
import pytest
from PIL import Image

from florence_lab.exceptions import ArgumentError, ArgumentTypeError
from florence_lab.images import load_image
from florence_lab.swift import InferRequest, RequestConfig

IMAGE = Image.new("RGB", (8, 6))


def user(content):
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("messages", "fields", "expected"),
    [
        (user("<image><OD>"), {"images": ["a.png"]}, ("a.png", "<OD>", None)),
        (user("<OD>"), {"images": "a.png"}, ("a.png", "<OD>", None)),
        (user("<OD><image>"), {"images": [IMAGE]}, (IMAGE, "<OD>", None)),
        (user("<image>\nWhat is this?"), {"images": ["a.png"]}, ("a.png", "What is this?", None)),
        (
            user([{"type": "image", "image": IMAGE}, {"type": "text", "text": "<CAPTION>"}]),
            {},
            (IMAGE, "<CAPTION>", None),
        ),
        (
            user([{"type": "image_url", "image_url": {"url": "http://x/a.png"}}, {"type": "text", "text": "<OD>"}]),
            {},
            ("http://x/a.png", "<OD>", None),
        ),
        (user("<OD>"), {"images": [{"bytes": b"x", "path": None}]}, (b"x", "<OD>", None)),
        (user("<OD>"), {"images": [{"bytes": None, "path": "a.png"}]}, ("a.png", "<OD>", None)),
        ([*user("<OD>"), {"role": "assistant", "content": "cat"}], {"images": ["a.png"]}, ("a.png", "<OD>", None)),
        (
            user("<image><OPEN_VOCABULARY_DETECTION><ref-object>"),
            {"images": ["a.png"], "objects": {"ref": ["a cat"], "bbox": []}},
            ("a.png", "<OPEN_VOCABULARY_DETECTION>a cat", None),
        ),
        (
            user("<REGION_TO_CATEGORY><bbox>"),
            {"images": ["a.png"], "objects": {"bbox": [[1, 2, 5, 5]]}},
            ("a.png", "<REGION_TO_CATEGORY>", (1, 2, 5, 5)),
        ),
    ],
)
def test_a_request_is_one_question_about_one_image(messages, fields, expected):
    assert InferRequest(messages=messages, **fields).parse() == expected


def test_an_image_may_be_the_base64_of_a_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    text = base64.b64encode((tmp_path / "noise.png").read_bytes()).decode()
    image = load_image(InferRequest(user("<OD>"), images=text).parse().image)
    assert (np.asarray(image) == pixels).all()


@pytest.mark.parametrize(
    ("messages", "fields", "message"),
    [
        (user("<OD>"), {}, "one image, got 0"),
        (user("<image><image><OD>"), {"images": ["a", "b"]}, "<image> must stand once|one image, got 2"),
        (user("<OD>"), {"images": ["a", "b"]}, "one image, got 2"),
        (user("what <image> is"), {"images": ["a"]}, "<image> must stand once"),
        ([{"role": "system", "content": "x"}, *user("<OD>")], {"images": ["a"]}, "system"),
        ([*user("a"), {"role": "assistant", "content": "b"}, *user("c")], {"images": ["a"]}, "one turn"),
        ([], {"images": ["a"]}, "one turn"),
        ([{"role": "tool", "content": "x"}], {"images": ["a"]}, "a message needs role"),
        ([{"content": "x"}], {"images": ["a"]}, "a message needs role"),
        (user(5), {"images": ["a"]}, "content must be a string or a list of parts"),
        (user(None), {"images": ["a"]}, "content must be"),
        (user("\ud800"), {"images": ["a"]}, "surrogate"),
        (user([5]), {"images": ["a"]}, "a part must be"),
        (user([{"type": "video", "video": "a.mp4"}]), {}, "a part must be"),
        (user("<OD>"), {"images": ["a"], "videos": ["b"]}, "videos cannot be used"),
        (user("<OD>"), {"images": ["a"], "audios": "b"}, "audios cannot be used"),
        (user("<OD>"), {"images": ["a"], "tools": [{}]}, "tools cannot be used"),
        (user("<OD>"), {"images": ["a"], "objects": {"point": [1]}}, "point"),
        (user("<OD>"), {"images": ["a"], "objects": {"bbox": [[1, 2, 3, 4]]}}, "one value for each <bbox>"),
        (user("<OD><ref-object>"), {"images": ["a"], "objects": {"ref": [5]}}, "must be strings"),
        (user("<bbox><bbox>"), {"images": ["a"], "objects": {"bbox": [[1, 2, 3, 4]] * 2}}, "one region, got 2"),
    ],
)
def test_what_florence_cannot_read_is_refused(messages, fields, message):
    with pytest.raises(ArgumentError, match=message):
        InferRequest(messages=messages, **fields).parse()


@pytest.mark.parametrize(
    "fields", [{"messages": "x"}, {"messages": [5]}, {"images": 5}, {"objects": []}, {"tools": 5}, {"videos": 5}]
)
def test_fields_of_other_types_are_refused(fields):
    with pytest.raises(ArgumentTypeError, match=next(iter(fields))):
        InferRequest(**({"messages": user("<OD>")} | fields))


@pytest.mark.parametrize(
    ("options", "kwargs"),
    [
        ({}, {"num_beams": 1, "do_sample": False}),
        ({"max_tokens": 5, "temperature": 0}, {"num_beams": 1, "do_sample": False, "max_new_tokens": 5}),
        ({"temperature": 0, "top_p": 0.5}, {"num_beams": 1, "do_sample": False}),
        ({"temperature": 0.5, "top_k": 1}, {"num_beams": 1, "do_sample": False}),
        (
            {"temperature": 0.7, "top_p": 0.5, "top_k": 4, "min_p": 0.1},
            {"num_beams": 1, "do_sample": True, "temperature": 0.7, "top_p": 0.5, "top_k": 4, "min_p": 0.1},
        ),
        ({"num_beams": 3, "length_penalty": 2.0}, {"num_beams": 3, "do_sample": False, "length_penalty": 2.0}),
        ({"repetition_penalty": 1.1, "stop": None}, {"num_beams": 1, "do_sample": False, "repetition_penalty": 1.1}),
    ],
)
def test_settings_become_those_of_generate(options, kwargs):
    assert RequestConfig(**options).generate_kwargs() == kwargs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.5}, "top_p=0.5 restricts sampling"),
        ({"top_p": 2, "temperature": 1}, "top_p"),
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 2, "stream": True}, "stream=True requires num_beams=1"),
        ({"seed": -1}, "seed"),
        ({"stream": "yes"}, "stream"),
        *[
            ({name: value}, f"{name}=.* is not offered")
            for name, value in {
                "stop": ["x"],
                "logprobs": True,
                "top_logprobs": 3,
                "n": 2,
                "best_of": 2,
                "presence_penalty": 0.5,
                "frequency_penalty": 0.5,
                "return_details": True,
                "structured_outputs_regex": "x",
                "prompt_logprobs": 1,
            }.items()
        ],
    ],
)
def test_settings_that_do_not_apply_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        RequestConfig(**options)
