"""The engines of ms-swift 3 and 4: responses, batches, streams and refusals."""

import copy
import json

import pytest
import torch
from support import PHOTO

from florence_lab.exceptions import ArgumentError, ArgumentTypeError, ImageError, PromptError
from florence_lab.swift import (
    InferRequest,
    PtEngine,
    RequestConfig,
    TransformersEngine,
    get_model_tokenizer,
    get_template,
)

GREEDY = RequestConfig(max_tokens=12, temperature=0)


@pytest.fixture(scope="module")
def engine(small):
    return PtEngine(small.name, device_map="cpu", max_batch_size=2)


@pytest.fixture
def lenient(engine):
    """An engine that puts an exception in the place of a response."""
    engine = copy.copy(engine)
    engine.strict = False
    return engine


def ask(query, image=PHOTO, **fields):
    return InferRequest(messages=[{"role": "user", "content": query}], images=[image], **fields)


def test_a_listing_of_ms_swift_runs(small, capsys):
    listing = """
from florence_lab.swift import PtEngine, RequestConfig, InferRequest
engine = PtEngine(MODEL, max_batch_size=2)
request_config = RequestConfig(max_tokens=8, temperature=0)
infer_requests = [
    InferRequest(messages=[{'role': 'user', 'content': '<image><CAPTION>'}], images=[IMAGE]),
    InferRequest(messages=[{'role': 'user', 'content': [
        {'type': 'image', 'image': IMAGE}, {'type': 'text', 'text': '<OD>'}]}]),
]
resp_list = engine.infer(infer_requests, request_config)
query0 = infer_requests[0].messages[0]['content']
print(f'response0: {resp_list[0].choices[0].message.content}')
request_config = RequestConfig(max_tokens=8, temperature=0, stream=True)
gen_list = engine.infer(infer_requests[:1], request_config)
for resp in gen_list[0]:
    if resp is None:
        continue
    print(resp.choices[0].delta.content, end='', flush=True)
print()
"""
    exec(listing, {"MODEL": small.name, "IMAGE": str(PHOTO)})
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"response0: {second}"
    assert json.loads(second) == {
        "<CAPTION>": small.predict(PHOTO, "<CAPTION>", max_new_tokens=8, num_beams=1).raw.strip()
    }


def test_a_response_has_the_fields_of_openai_and_the_result(engine, small):
    (response,) = engine.infer([ask("<OD>")], RequestConfig(max_tokens=40))
    result = small.predict(PHOTO, "<OD>", max_new_tokens=40, num_beams=1)
    (choice,) = response.choices
    answer = json.loads(choice.message.content)["<OD>"]
    assert answer == {name: value for name, value in result.to_dict()["<OD>"].items() if name != "scores"}
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "length")
    assert response.result.raw == result.raw
    assert response.model == small.name
    assert response.id.startswith("chatcmpl-")
    assert response.object == "chat.completion"
    assert response.created > 1.7e9
    usage = response.usage
    assert usage.prompt_tokens > 37
    assert 0 < usage.completion_tokens <= 40
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_an_answer_that_ends_by_itself_is_finished_by_stop(nano):
    from florence_lab.scenes import sample_path

    (response,) = TransformersEngine(nano).infer([ask("<CAPTION>", sample_path("sheep"))])
    assert response.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "requests",
    [
        [ask("<CAPTION>"), ask("<OD>"), ask("<CAPTION_TO_PHRASE_GROUNDING>a cat"), ask("What is this?")],
        [ask("<OD>"), ask("<OD>", PHOTO.with_name("coffee.png")), ask("<OD>", PHOTO.with_name("astronaut.png"))],
        [
            ask(f"<OPEN_VOCABULARY_DETECTION>{name}", PHOTO.with_name(f"{file}.png"))
            for name, file in (("a cat", "chelsea"), ("a cup", "coffee"))
        ],
        [
            ask("<REGION_TO_CATEGORY><bbox>", objects={"bbox": [[1, 2, 200, 150]]}),
            ask("<REGION_TO_CATEGORY><bbox>", PHOTO.with_name("coffee.png"), objects={"bbox": [[5, 2, 99, 150]]}),
        ],
    ],
    ids=["one image", "one task", "phrases", "regions"],
)
def test_many_requests_have_the_answers_of_each(engine, requests):
    together = engine.infer(requests, GREEDY)
    alone = [engine.infer([request], GREEDY)[0] for request in requests]
    assert [r.choices[0].message.content for r in together] == [r.choices[0].message.content for r in alone]
    assert len({response.id for response in together}) == len(requests)


def test_requests_of_one_image_encode_it_once(engine, monkeypatch):
    encoded = []
    encode = engine.predictor.image_encoder
    monkeypatch.setattr(engine.predictor, "image_encoder", lambda x: encoded.append(len(x)) or encode(x))
    engine.infer([ask("<CAPTION>"), ask("<OD>"), ask("<OCR>")], GREEDY)
    assert encoded == [1]


@pytest.mark.parametrize("query", ["<CAPTION>", "<OD>", "<OCR_WITH_REGION>", "What is this?"])
def test_the_parts_of_a_stream_join_to_the_response(engine, query):
    (parts,) = engine.infer([ask(query)], RequestConfig(max_tokens=12, stream=True))
    parts = list(parts)
    (response,) = engine.infer([ask(query)], RequestConfig(max_tokens=12))
    assert "".join(part.choices[0].delta.content for part in parts) == response.choices[0].message.content
    assert [part.choices[0].finish_reason for part in parts] == [None] * (len(parts) - 1) + ["length"]
    assert len({part.id for part in parts}) == 1
    assert parts[-1].result.raw == response.result.raw
    assert parts[0].object == "chat.completion.chunk"


def test_the_same_seed_gives_the_same_sample(engine):
    def sample(seed):
        config = RequestConfig(max_tokens=12, temperature=5.0, seed=seed)
        return engine.infer([ask("<CAPTION>")], config)[0].choices[0].message.content

    assert sample(1) == sample(1) != sample(2)


REFUSED = {
    "image": (ask("<OD>", "missing.png"), ImageError),
    "task": (ask("<ODD>"), PromptError),
    "phrase": (ask("<CAPTION>x"), PromptError),
    "system": (InferRequest([{"role": "system", "content": "x"}], images=[PHOTO]), ArgumentError),
    "region": (ask("<REGION_TO_CATEGORY><bbox>", objects={"bbox": [[0, 0, 9999, 9]]}), PromptError),
}


@pytest.mark.parametrize(("request_", "error"), REFUSED.values(), ids=REFUSED)
def test_a_request_that_cannot_be_answered_raises(engine, request_, error):
    with pytest.raises(error):
        engine.infer([ask("<OD>"), request_], GREEDY)


@pytest.mark.parametrize(("request_", "error"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("others", [["<OD>"], ["<OD>", "<CAPTION>"]])
def test_without_strict_the_exception_is_in_the_place_of_the_response(lenient, request_, error, others):
    first, *responses = lenient.infer([request_, *map(ask, others)], GREEDY)
    assert isinstance(first, error)
    expected = [lenient.infer([ask(query)], GREEDY)[0] for query in others]
    assert [r.choices[0].message for r in responses] == [r.choices[0].message for r in expected]


def test_metrics_see_each_response(engine):
    class Count:
        seen = 0

        def update(self, response):
            self.seen += response.usage.completion_tokens > 0

    metric = Count()
    engine.infer([ask("<OD>"), ask("<CAPTION>")], GREEDY, metrics=[metric])
    assert metric.seen == 2


def test_no_requests_have_no_responses(engine):
    assert engine.infer([]) == []


def test_a_loaded_model_is_used_with_its_template(small):
    model, tokenizer = get_model_tokenizer("florence-2-base", torch.bfloat16, {"device_map": "cpu"}, small.name)
    engine = TransformersEngine(model, template=get_template("florence", tokenizer))
    assert engine.model is model
    assert engine.tokenizer is tokenizer
    assert engine.processor is tokenizer.processor
    assert isinstance(engine.infer([ask("<OD>")], GREEDY)[0].choices[0].message.content, str)


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "bf16"])
def test_a_model_is_loaded_in_the_given_dtype(small, dtype):
    assert PtEngine(small.name, dtype, device_map="cpu").model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": 5}, ArgumentTypeError, "model must be"),
        ({"model": "florence-2-nanoo"}, ValueError, "florence-2-nano"),
        ({"model": "florence-2-nano", "adapters": ["a", "b"]}, ArgumentError, "one adapter"),
        ({"model": "florence-2-nano", "max_batch_size": -1}, ArgumentError, "max_batch_size"),
        ({"model": "florence-2-nano", "torch_dtype": "float8"}, ArgumentError, "float8"),
        ({"model": "florence-2-nano", "model_type": "qwen2_vl"}, ArgumentError, "model_type must be 'florence'"),
        ({"model": "florence-2-nano", "template_type": "x"}, ArgumentError, "template_type must be 'florence'"),
        ({"model": "florence-2-nano", "use_hf": "yes"}, ArgumentTypeError, "use_hf"),
    ],
)
def test_an_engine_refuses_other_arguments(options, error, message):
    with pytest.raises(error, match=message):
        TransformersEngine(**options)


@pytest.mark.parametrize("requests", ["<OD>", [5], 5, None])
def test_other_requests_are_refused(engine, requests):
    with pytest.raises(ArgumentTypeError, match="infer_requests"):
        engine.infer(requests)


def test_an_adapter_is_loaded_on_the_named_model(small, tmp_path):
    from florence_lab.finetuning.arguments import SftArguments
    from florence_lab.finetuning.lora import add_lora

    torch.manual_seed(0)
    adapted = add_lora(copy.deepcopy(small.model), SftArguments(use_dora=True))
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    adapted.peft_config["default"].base_model_name_or_path = "/nowhere/base"
    adapted.save_pretrained(tmp_path)
    engine = PtEngine(small.name, adapters=[str(tmp_path)], device_map="cpu")
    (with_adapter,) = engine.infer([ask("<OD>")], GREEDY)
    (without,) = PtEngine(small.name, device_map="cpu").infer([ask("<OD>")], GREEDY)
    assert with_adapter.choices[0].message.content != without.choices[0].message.content
