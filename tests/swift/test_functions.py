"""The functions of ms-swift 2: their listing runs as it is, and each function does what it promises."""

import copy
import random
import re

import numpy as np
import pytest
import torch
from support import PHOTO

from florence_lab.exceptions import ArgumentError, ArgumentTypeError
from florence_lab.results import Boxes, Text
from florence_lab.swift import (
    get_default_template_type,
    get_model_tokenizer,
    get_template,
    inference,
    inference_stream,
    seed_everything,
)
from florence_lab.swift.functions import device_from_map

# ms-swift's best practice for Florence-2, with `florence_lab` for its two imports, and places for the image and the length
LISTING = """
import os
os.environ['CUDA_VISIBLE_DEVICES'] = '0'

from florence_lab import (
    get_model_tokenizer, get_template, inference,
    get_default_template_type, inference_stream
)
from florence_lab import seed_everything
import torch

model_type = "florence-2-large-ft"
template_type = get_default_template_type(model_type)
print(f'template_type: {template_type}')
model, tokenizer = get_model_tokenizer(model_type, torch.float32, model_kwargs={'device_map': None})

model.generation_config.max_new_tokens = LENGTH
template = get_template(template_type, tokenizer)
seed_everything(42)

images = ['IMAGE']
query = 'Describe the image'
response, history = inference(model, template, query, images=images)
print(f'query: {query}')
print(f'response: {response}')
"""


@pytest.fixture(scope="module")
def pair(small):
    """A model and its template, as ms-swift's listing gets them."""
    model, tokenizer = get_model_tokenizer("florence-2-base", model_id_or_path=small.name)
    model.generation_config.max_new_tokens = 24
    return model, get_template(get_default_template_type("florence-2-base"), tokenizer)


def test_the_listing_of_ms_swift_runs_and_prints_the_response(small, monkeypatch, capsys):
    resolved = []
    monkeypatch.setattr("florence_lab.predictor.loader.resolve", lambda name, hub: resolved.append(name) or small.name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # restored after the listing has set it
    names = {}
    exec(LISTING.replace("LENGTH", "16").replace("IMAGE", str(PHOTO)), names)
    assert resolved == ["florence-2-large-ft"]
    expected = small.predict(PHOTO, "Describe the image", max_new_tokens=16)
    assert capsys.readouterr().out.splitlines() == [
        "template_type: florence",
        "query: Describe the image",
        f"response: {{'Describe the image': {expected.raw!r}}}",
    ]
    assert names["history"] == [["Describe the image", names["response"]]]


def test_a_response_maps_the_prompt_to_the_generated_text_and_has_the_result(pair):
    response, _ = inference(*pair, "<OD>", images=[PHOTO])
    assert isinstance(response, dict)
    ((prompt, text),) = response.items()
    assert prompt == "Locate the objects with category name in the image."
    assert re.search(r"<loc_\d+>", text)
    assert isinstance(response.result, Boxes)
    assert response.result.raw == text


def test_history_grows_without_changing_the_answer_or_the_given_list(pair):
    first, history = inference(*pair, "<CAPTION>", images=[PHOTO])
    before = list(history)
    second, longer = inference(*pair, "<CAPTION>", history, images=[PHOTO])
    assert second == first
    assert longer == [["<CAPTION>", first], ["<CAPTION>", second]]
    assert history == before


@pytest.mark.parametrize(("kwargs", "length"), [({}, 9), ({"max_new_tokens": 6}, 6)])
def test_a_length_given_to_the_call_overrides_that_of_the_generation_config(pair, kwargs, length, monkeypatch):
    model, template = pair
    monkeypatch.setattr(model.generation_config, "max_new_tokens", 9)
    response, _ = inference(model, template, "<OD>", images=[PHOTO], num_beams=1, **kwargs)
    longer, _ = inference(model, template, "<OD>", images=[PHOTO], num_beams=1, max_new_tokens=length + 1)
    (text,), (longer_text,) = response.values(), longer.values()
    assert longer_text.startswith(text)
    assert len(longer_text) > len(text)


def test_a_stream_ends_with_the_answer_of_inference(pair):
    *growing, (response, history) = inference_stream(*pair, "<CAPTION>", [["earlier", {}]], images=[PHOTO])
    assert len(growing) > 1
    assert len({str(partial) for partial, _ in growing}) == len(growing)
    assert history == [["earlier", {}], ["<CAPTION>", response]]
    assert response == inference(*pair, "<CAPTION>", images=[PHOTO], num_beams=1)[0]
    assert isinstance(response.result, Text)


def test_a_model_is_loaded_in_the_given_dtype_on_the_given_device(small):
    model, tokenizer = get_model_tokenizer(
        "florence-2-base", torch.bfloat16, {"device_map": "cpu"}, model_id_or_path=small.name
    )
    assert (model.dtype, model.device.type) == (torch.bfloat16, "cpu")
    assert tokenizer.processor.tokenizer is tokenizer


@pytest.mark.parametrize("function", [get_default_template_type, get_model_tokenizer])
def test_an_unknown_model_type_names_the_closest_one(function):
    with pytest.raises(ValueError, match=r"unknown model_type 'florence-2-larg'; did you mean 'florence-2-large'\?"):
        function("florence-2-larg")


def test_an_unknown_template_type_names_the_known_one(pair):
    with pytest.raises(ValueError, match=r"unknown template type 'florense'; did you mean 'florence'\?"):
        get_template("florense", pair[1].tokenizer)


def test_model_kwargs_other_than_device_map_are_rejected():
    with pytest.raises(ValueError, match="model_kwargs accepts device_map only, got load_in_8bit"):
        get_model_tokenizer("florence-2-base", model_kwargs={"load_in_8bit": True})


def test_a_tokenizer_without_processor_is_rejected(pair):
    tokenizer = copy.copy(pair[1].tokenizer)
    del tokenizer.processor
    with pytest.raises(ArgumentError, match="load it with get_model_tokenizer"):
        inference(pair[0], get_template("florence", tokenizer), "<OD>", images=[PHOTO])


def test_a_model_with_an_adapter_is_accepted(pair):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(copy.deepcopy(pair[0]), LoraConfig(target_modules=["q_proj"]))
    assert inference(adapted, pair[1], "<OD>", images=[PHOTO]) == inference(*pair, "<OD>", images=[PHOTO])


@pytest.mark.parametrize(
    ("device_map", "device"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("cpu", "cpu"),
        (torch.device("cpu"), "cpu"),
        ({"": "cpu"}, "cpu"),
        (1, "cuda:1"),
    ],
)
def test_a_device_map_is_a_device(device_map, device):
    assert device_from_map(device_map) == device


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, t: get_default_template_type(5), ArgumentTypeError, "model_type must be a string, got 5"),
        (lambda m, t: get_model_tokenizer(None), ArgumentTypeError, "model_type"),
        (lambda m, t: get_model_tokenizer("florence-2-nano", 5), ArgumentTypeError, "torch_dtype"),
        (lambda m, t: get_model_tokenizer("florence-2-nano", model_kwargs="x"), ArgumentTypeError, "model_kwargs"),
        (
            lambda m, t: get_model_tokenizer("florence-2-nano", model_kwargs={"device_map": []}),
            ArgumentTypeError,
            "device",
        ),
        (lambda m, t: get_model_tokenizer("x", model_kwargs={"device_map": {"a": 0}}), ArgumentError, "one device"),
        (
            lambda m, t: get_model_tokenizer("florence-2-nano", model_id_or_path=5),
            ArgumentTypeError,
            "model_id_or_path",
        ),
        (lambda m, t: get_template(5, t.tokenizer), ArgumentTypeError, "template_type"),
        (lambda m, t: get_template("florence", None), ArgumentTypeError, "tokenizer"),
        (lambda m, t: inference(m, t, "<OD>", 5, images=[PHOTO]), ArgumentTypeError, "history"),
        (lambda m, t: inference(m, t, 5, images=[PHOTO]), ArgumentTypeError, "query"),
        (lambda m, t: inference("x", t, "<OD>", images=[PHOTO]), ArgumentTypeError, "model must be"),
        (lambda m, t: inference(m, "x", "<OD>", images=[PHOTO]), ArgumentTypeError, "template must be"),
        (lambda m, t: inference_stream(m, t, "<OD>", "x", images=[PHOTO]), ArgumentTypeError, "history"),
        (lambda m, t: seed_everything("1"), ArgumentTypeError, "seed must be a whole number, got '1'"),
        (lambda m, t: seed_everything(1.5), ArgumentTypeError, "seed"),
        (lambda m, t: seed_everything(True), ArgumentTypeError, "seed"),
        (lambda m, t: seed_everything(-1), ArgumentError, "seed must be at least 0"),
        (lambda m, t: seed_everything(2**32), ArgumentError, "seed"),
    ],
)
def test_arguments_of_other_types_are_refused_by_name(pair, call, error, message):
    with pytest.raises(error, match=message):
        call(*pair)


@pytest.mark.parametrize("images", [[], [PHOTO, PHOTO], str(PHOTO), None])
@pytest.mark.parametrize("function", [inference, inference_stream])
def test_images_must_be_a_list_of_one(pair, function, images):
    with pytest.raises(ValueError, match="images must be a list of one image"):
        next(iter(function(*pair, "<OD>", images=images)))


def test_seed_everything_repeats_the_numbers_of_all_three_generators_and_returns_the_seed():
    draws = []
    for _ in range(2):
        assert seed_everything(np.int64(42)) == 42
        draws.append((random.random(), np.random.random(), torch.rand(1).item()))  # noqa: NPY002 - the global generator is seeded
    assert draws[0] == draws[1]
