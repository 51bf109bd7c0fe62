"""The interface that users of ms-swift know: the listing of the seed, and what its functions promise."""

import pkgutil
import re

import pytest
import torch
from support import PHOTO

import florence_lab
from florence_lab import get_default_template_type, get_model_tokenizer, get_template, inference, inference_stream
from florence_lab.results import Boxes, Text

# As in the seed, with `florence_lab` for its two imports; only the picture and the length are named by the test.
LISTING = """
import os
os.environ['CUDA_VISIBLE_DEVICES'] = '0'

from florence_lab import (
    get_model_tokenizer, get_template, inference,
    get_default_template_type, inference_stream, seed_everything
)
import torch

model_type = "florence-2-large-ft"
template_type = get_default_template_type(model_type)
print(f'template_type: {template_type}')
model, tokenizer = get_model_tokenizer(model_type, torch.float32, model_kwargs={'device_map': None})

model.generation_config.max_new_tokens = LENGTH
template = get_template(template_type, tokenizer)
seed_everything(42)

images = ['PICTURE']
query = 'Describe the image'
response, history = inference(model, template, query, images=images)
print(f'query: {query}')
print(f'response: {response}')
"""


def test_no_module_hides_a_public_name():
    # a submodule, once imported, is an attribute of its package: one named `inference` would stand in for the function
    modules = {module.name for module in pkgutil.iter_modules(florence_lab.__path__)}
    assert modules & set(florence_lab.__all__) == set(florence_lab._MODULES) & modules


@pytest.fixture
def pair(small):
    """Model and template, as the listing gets them."""
    model, tokenizer = get_model_tokenizer("florence-2-base", model_id_or_path=small.name)
    model.generation_config.max_new_tokens = 24
    return model, get_template(get_default_template_type("florence-2-base"), tokenizer)


def test_the_listing_of_the_seed(small, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("florence_lab.predictor.resolve", lambda name, hub: asked.append(name) or small.name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is put back
    names = {}
    exec(LISTING.replace("LENGTH", "24").replace("PICTURE", str(PHOTO)), names)
    assert asked == ["florence-2-large-ft"]

    expected = small.predict(PHOTO, "Describe the image", max_new_tokens=24)
    response = names["response"]
    assert capsys.readouterr().out.splitlines() == [
        "template_type: florence",
        "query: Describe the image",
        f"response: {{'Describe the image': {expected.raw!r}}}",
    ]
    assert type(response).__mro__[1] is dict
    assert response == {"Describe the image": expected.raw}
    assert names["history"] == [["Describe the image", response]]


def test_a_response_has_the_prompt_the_text_and_the_result(pair):
    response, _ = inference(*pair, "<OD>", images=[PHOTO])
    ((prompt, text),) = response.items()
    assert prompt == "Locate the objects with category name in the image."
    assert re.search(r"<loc_\d+>", text)
    assert isinstance(response.result, Boxes)
    assert response.result.raw == text
    assert response.result.image_size == (451, 300)


def test_history_grows_and_is_not_seen_by_the_model(pair):
    first, history = inference(*pair, "<CAPTION>", images=[PHOTO])
    before = list(history)
    second, longer = inference(*pair, "<CAPTION>", history, images=[PHOTO])
    assert second == first
    assert longer == [["<CAPTION>", first], ["<CAPTION>", second]]
    assert history == before  # the caller's own is left alone


@pytest.mark.parametrize("given", [{}, {"max_new_tokens": 6}])
def test_the_length_is_obeyed(pair, given, monkeypatch):
    model, template = pair
    monkeypatch.setattr(model.generation_config, "max_new_tokens", 9)
    lengths = []
    generate = model.generate

    def spy(**settings):
        sequences = generate(**settings)
        lengths.append(sequences.shape[1] - 1)  # without the start token
        return sequences

    monkeypatch.setattr(model, "generate", spy)
    inference(model, template, "<OD>", images=[PHOTO], **given)
    assert lengths == [given.get("max_new_tokens", 9)]


def test_a_stream_ends_with_the_answer(pair):
    *growing, (response, history) = inference_stream(*pair, "<CAPTION>", [["earlier", {}]], images=[PHOTO])
    assert len(growing) > 1
    assert [row[0] for row in history] == ["earlier", "<CAPTION>"]
    assert history[1][1] is response
    assert response == inference(*pair, "<CAPTION>", images=[PHOTO], num_beams=1)[0]
    assert isinstance(response.result, Text)
    assert len({str(partial) for partial, _ in growing}) == len(growing)


def test_any_floating_dtype_and_device(small):
    model, tokenizer = get_model_tokenizer(
        "florence-2-base", torch.bfloat16, {"device_map": "cpu"}, model_id_or_path=small.name
    )
    assert (model.dtype, model.device.type) == (torch.bfloat16, "cpu")
    assert tokenizer.processor.tokenizer is tokenizer


def test_unknown_names(pair):
    with pytest.raises(ValueError, match=r"unknown template type 'florense'; did you mean 'florence'\?"):
        get_template("florense", pair[1].tokenizer)
    for ask in (get_default_template_type, get_model_tokenizer):
        with pytest.raises(
            ValueError, match=r"unknown model_type 'florence-2-larg'; did you mean 'florence-2-large'\?"
        ):
            ask("florence-2-larg")
    with pytest.raises(ValueError, match="model_kwargs takes device_map only, but got load_in_8bit"):
        get_model_tokenizer("florence-2-base", model_kwargs={"load_in_8bit": True})


def test_a_tokenizer_from_elsewhere(pair, small):
    with pytest.raises(ValueError, match="get it from get_model_tokenizer"):
        inference(pair[0], get_template("florence", small.processor.tokenizer), "<OD>", images=[PHOTO])


@pytest.mark.parametrize("images", [[], [PHOTO, PHOTO], str(PHOTO), None])
@pytest.mark.parametrize("ask", [inference, lambda *args, **kwargs: list(inference_stream(*args, **kwargs))])
def test_images_are_one_in_a_list(pair, ask, images):
    with pytest.raises(ValueError, match="looks at one image: give a list of one"):
        ask(*pair, "<OD>", images=images)
