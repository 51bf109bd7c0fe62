"""`trace`: cross-attention and token probabilities of a prediction."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from florence_lab.inference.generation import encode_prompts
from florence_lab.interpret import AnswerSpan, trace

PROMPTS = [("<CAPTION>", None), ("<OD>", None), ("<REGION_TO_CATEGORY>", (20, 20, 200, 150)), ("What is it?", None)]


@pytest.mark.parametrize(("task", "text"), PROMPTS)
@pytest.mark.parametrize("model", ["nano", "small"])
def test_the_result_is_that_of_predict(model, task, text, scene, request):
    predictor = request.getfixturevalue(model)
    encoded = predictor.encode_image(scene.image)
    traced = trace(predictor, encoded, task, text, max_new_tokens=20)
    predicted = predictor.predict(encoded, task, text, max_new_tokens=20)
    assert traced.result.raw == predicted.raw
    assert traced.result.prompt == predicted.prompt
    if task == "<OD>":
        np.testing.assert_allclose(traced.result.scores, predicted.scores, rtol=1e-4)
    assert len(traced.tokens) == len(traced.probabilities) == 20 or traced.tokens[-1] == "</s>"


def test_the_tokens_spell_the_result(caption):
    assert "".join(token for token in caption.tokens if token not in ("<s>", "</s>")) == caption.result.raw


def test_the_result_with_beams_is_the_best_beam(nano, scene):
    kwargs = {"num_beams": 3, "max_new_tokens": 20}
    assert (
        trace(nano, scene.image, "<CAPTION>", **kwargs).result.raw
        == nano.predict(scene.image, "<CAPTION>", **kwargs).raw
    )


@pytest.mark.parametrize("model", ["nano", "small"])
def test_attention_sums_to_one_over_all_positions(model, scene, request):
    predictor = request.getfixturevalue(model)
    traced = trace(predictor, scene.image, "<OD>", max_new_tokens=12)
    config = predictor.model.config.text_config
    cells = traced.token_grid[0] * traced.token_grid[1]
    assert predictor.processor.num_image_tokens == 1 + cells
    positions = 1 + cells + len(traced.prompt_tokens)
    shape = (config.decoder_layers, config.decoder_attention_heads, len(traced.tokens), positions)
    assert traced.cross_attention.shape == shape
    assert traced.cross_attention.dtype == np.float32
    np.testing.assert_allclose(traced.cross_attention.sum(axis=-1), 1, atol=1e-5)


def test_attention_equals_that_of_a_step_of_generation(nano, scene):
    traced = trace(nano, scene.image, "<OD>", max_new_tokens=8)
    model = copy.deepcopy(nano.model.model.language_model)
    model.set_attn_implementation("eager")  # transformers' own attention with weights
    encoded = nano.encode_image(scene.image)
    states = encode_prompts(nano.model, nano.processor.tokenizer, encoded.tokens, [traced.result.prompt])
    with torch.inference_mode():
        start = nano.model.config.text_config.decoder_start_token_id
        step = model.decoder(
            input_ids=torch.tensor([[start, nano.processor.tokenizer.convert_tokens_to_ids("<s>")]]),
            encoder_hidden_states=states.hidden_states,
            encoder_attention_mask=states.attention_mask,
            output_attentions=True,
        )
    for layer, weights in enumerate(step.cross_attentions):
        np.testing.assert_allclose(traced.cross_attention[layer, :, :2], weights[0].numpy(), atol=1e-5)


def test_tracing_does_not_change_the_attention_of_other_threads(nano, scene):
    config = nano.model.model.language_model.config
    before, seen = config._attn_implementation, set()
    encoded = nano.encode_image(scene.image)
    expected = nano.predict(encoded, "<OD>", max_new_tokens=6).raw

    def predict(_):
        seen.add(config._attn_implementation)
        return nano.predict(encoded, "<OD>", max_new_tokens=6).raw

    def record(_):
        return trace(nano, encoded, "<OD>", max_new_tokens=6).result.raw

    with ThreadPoolExecutor(4) as threads:
        answers = [*threads.map(predict, range(4)), *threads.map(record, range(4))]
    assert set(answers) == {expected}
    assert seen == {before} == {config._attn_implementation}


def test_each_token_has_its_candidates_in_descending_order(detection):
    assert len(detection.tokens) == len(detection.probabilities) == len(detection.top_tokens)
    for position, candidates in enumerate(detection.top_tokens):
        probabilities = [candidate.probability for candidate in candidates]
        assert len(candidates) == 3
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1 + 1e-6
        # greedy decoding selects the first
        assert candidates[0].token == detection.tokens[position]
        assert candidates[0].probability == pytest.approx(detection.probabilities[position])


def test_location_probabilities_contain_that_of_the_generated_bin(detection):
    box = detection.span("box 1")
    for position in box.positions:
        bin_ = int(detection.tokens[position][5:-1])
        assert detection.location_probabilities[position, bin_] == pytest.approx(detection.probabilities[position])
        assert detection.location_probabilities[position].sum() > 0.9


def test_the_shares_of_attention_of_a_token_sum_to_one(detection):
    table = detection.to_dataframe()
    columns = ["attention_to_mean_token", "attention_to_image", "attention_to_prompt"]
    assert table.columns.tolist() == ["token", "probability", *columns]
    np.testing.assert_allclose(table[columns].sum(axis=1), 1, atol=1e-5)
    assert table["token"].tolist() == list(detection.tokens)


def test_an_attention_map_has_the_grid_of_the_image_tokens(detection):
    attention = detection.attention_map("box 1")
    assert attention.shape == detection.token_grid
    assert 0 < attention.sum() <= 1
    layers, heads = detection.cross_attention.shape[:2]
    each = [detection.attention_map("box 1", layer, head) for layer in range(layers) for head in range(heads)]
    np.testing.assert_allclose(np.mean(each, axis=0), attention, atol=1e-6)


def test_a_span_is_found_by_its_words(caption):
    words = caption.spans
    assert caption.span(words[1].text) == words[1]
    two = caption.span(f"{words[1].text.upper()} {words[2].text}!")
    assert two.positions == words[1].positions + words[2].positions
    assert caption.span(two) is two


def test_a_span_is_found_by_the_position_of_its_token(caption, detection):
    assert caption.span(0) == caption.span(np.int64(0)) == AnswerSpan("token", "<s>", (0,))
    box = detection.span("box 1")
    token = detection.span(box.positions[2])
    assert (token.kind, token.positions) == ("token", (box.positions[2],))
    np.testing.assert_array_equal(token.points, box.points)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("zebra", "no 'zebra' in the answer; it contains 'A', "),
        ("", "no '' in the answer"),
        (-1, r"no token -1: the answer has the tokens 0 … \d+"),
        (10_000, "no token 10000"),
    ],
)
def test_a_span_that_does_not_exist_is_refused(caption, query, message):
    with pytest.raises(ValueError, match=message):
        caption.span(query)


@pytest.mark.parametrize(("index", "message"), [({"layer": 9}, "no layer 9: .* 0 … 2"), ({"head": -1}, "no head -1")])
def test_a_layer_or_head_that_does_not_exist_is_refused(caption, index, message):
    with pytest.raises(ValueError, match=message):
        caption.attention_map(1, **index)


@pytest.mark.parametrize(
    ("arguments", "kwargs", "message"),
    [
        (("<OD>",), {"top_k": 0}, "top_k must be 1 to 1815, got 0"),
        (("<OD>",), {"top_k": 10**6}, "top_k must be 1 to 1815, got 1000000"),
        (("<OOD>",), {}, "<OOD>"),
        (("<OD>", "a cat"), {}, "takes no input"),
        (("<OD>",), {"num_beems": 2}, "num_beems"),
    ],
)
def test_wrong_arguments_are_refused_before_the_model_runs(nano, scene, arguments, kwargs, message, monkeypatch):
    monkeypatch.setattr(nano, "encode_image", None)
    with pytest.raises(ValueError, match=message):
        trace(nano, scene.image, *arguments, **kwargs)
