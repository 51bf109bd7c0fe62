"""Requests, settings and engines with values that nobody expects: each is answered, or refused by an error of the package."""

import dataclasses
from contextlib import suppress

import pytest
from robustness.odd_values import ODD_VALUES
from support import PHOTO

from florence_lab.exceptions import FlorenceLabError
from florence_lab.swift import (
    InferRequest,
    RequestConfig,
    TransformersEngine,
    get_default_template_type,
    get_model_tokenizer,
    get_template,
    inference,
    inference_stream,
    seed_everything,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

FIELDS = [field.name for field in dataclasses.fields(InferRequest)]
SETTINGS = [field.name for field in dataclasses.fields(RequestConfig)]
ENGINE_OPTIONS = (
    *("template", "adapters", "max_batch_size", "torch_dtype"),
    *("model_type", "device_map", "use_hf", "template_type"),
)
FUNCTION_ARGUMENTS = ("model", "template", "query", "history", "images")


def user(content):
    return [{"role": "user", "content": content}]


CONTENTS = {
    "content": lambda odd: {"messages": user(odd)},
    "role": lambda odd: {"messages": [{"role": odd, "content": "<OD>"}]},
    "message": lambda odd: {"messages": [odd]},
    "part": lambda odd: {"messages": user(["<OD>", odd])},
    "kind of a part": lambda odd: {"messages": user([{"type": odd, "image": PHOTO}]), "images": []},
    "text of a part": lambda odd: {"messages": user([{"type": "text", "text": odd}])},
    "image of a part": lambda odd: {"messages": user([{"type": "image", "image": odd}, {"type": "text", "text": "a"}])},
    "address": lambda odd: {"messages": user([{"type": "image_url", "image_url": {"url": odd}}]), "images": []},
    "image": lambda odd: {"images": [odd]},
    "bytes and path": lambda odd: {"images": [{"bytes": odd, "path": odd}]},
    "box": lambda odd: {"messages": user("<REGION_TO_CATEGORY><bbox>"), "objects": {"bbox": [odd]}},
    "boxes": lambda odd: {"messages": user("<REGION_TO_CATEGORY><bbox>"), "objects": {"bbox": odd}},
    "reference": lambda odd: {"messages": user("<OPEN_VOCABULARY_DETECTION><ref-object>"), "objects": {"ref": [odd]}},
    "references": lambda odd: {"messages": user("<OPEN_VOCABULARY_DETECTION><ref-object>"), "objects": {"ref": odd}},
}


@pytest.fixture(scope="module")
def engine(small):
    return TransformersEngine(small)


@pytest.fixture(scope="module")
def pair(small):
    model, tokenizer = get_model_tokenizer("florence-2-base", model_id_or_path=small.name)
    model.generation_config.max_new_tokens = 3
    return model, get_template("florence", tokenizer)


def call_with_each_value(function):
    """Call a function with each odd value. Other exceptions than those of the package fail the test."""
    for name, make in ODD_VALUES.items():
        with suppress(FlorenceLabError):
            try:
                function(make())
            except FlorenceLabError:
                raise
            except Exception as error:
                raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error


def ask(engine, **fields):
    request = InferRequest(**({"messages": user("<OD>"), "images": [PHOTO]} | fields))
    return engine.infer([request], RequestConfig(max_tokens=3))


@pytest.mark.parametrize("field", FIELDS)
def test_fields_of_a_request(engine, field):
    call_with_each_value(lambda odd: ask(engine, **{field: odd}))


@pytest.mark.parametrize("fields", CONTENTS.values(), ids=CONTENTS)
def test_contents_of_a_request(engine, fields):
    call_with_each_value(lambda odd: ask(engine, **fields(odd)))


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings(engine, setting):
    def call(odd):
        needed = {"temperature": 1.0} if setting in ("top_k", "top_p", "min_p") else {}
        config = RequestConfig(**(needed | {setting: odd}))
        config.max_tokens = 3
        (response,) = engine.infer([InferRequest(user("<OD>"), images=[PHOTO])], config)
        if config.stream:
            list(response)

    call_with_each_value(call)


@pytest.mark.parametrize("argument", ["infer_requests", "request_config", "metrics", "use_tqdm"])
def test_arguments_of_infer(engine, argument):
    call_with_each_value(lambda odd: engine.infer(**({"infer_requests": []} | {argument: odd})))


@pytest.mark.parametrize("option", ENGINE_OPTIONS)
@pytest.mark.usefixtures("unreachable_hubs")
def test_options_of_an_engine(small, option):
    call_with_each_value(lambda odd: TransformersEngine(small.name, **{option: odd}))


@pytest.mark.usefixtures("unreachable_hubs")
def test_models_of_an_engine(pair):
    call_with_each_value(TransformersEngine)
    call_with_each_value(lambda odd: TransformersEngine(odd, template=pair[1]))


@pytest.mark.parametrize("argument", FUNCTION_ARGUMENTS)
@pytest.mark.parametrize("function", [inference, inference_stream])
def test_arguments_of_the_functions_of_ms_swift_2(pair, function, argument):
    valid = dict(zip(FUNCTION_ARGUMENTS, (*pair, "<OD>", None, [PHOTO]), strict=True))
    call_with_each_value(lambda odd: list(function(**(valid | {argument: odd}))))


@pytest.mark.parametrize("argument", ["model_type", "torch_dtype", "model_kwargs", "model_id_or_path"])
@pytest.mark.usefixtures("unreachable_hubs")
def test_arguments_of_get_model_tokenizer(small, argument):
    valid = {"model_type": "florence-2-base", "model_id_or_path": small.name}
    call_with_each_value(lambda odd: get_model_tokenizer(**(valid | {argument: odd})))


@pytest.mark.parametrize("function", [get_default_template_type, seed_everything])
def test_the_only_argument(function):
    call_with_each_value(function)


def test_arguments_of_get_template(pair):
    call_with_each_value(lambda odd: get_template(odd, pair[1].tokenizer))
    call_with_each_value(lambda odd: get_template("florence", odd))
