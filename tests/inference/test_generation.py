"""Encoding prompts, generating sequences and scoring them."""

import copy
import math

import numpy as np
import pytest
import torch
from support import PHOTO

from florence_lab import ArgumentError
from florence_lab.exceptions import GenerationInterrupted
from florence_lab.inference import generation as generation_module
from florence_lab.inference.generation import (
    DEFAULT_MAX_NEW_TOKENS,
    EncodedPrompts,
    encode_prompts,
    generate,
    interruptible,
    max_prompt_tokens,
    next_token_probabilities,
    prepare_model,
    resolve_generation_kwargs,
    run_decoder,
    score,
    trim_at_eos,
)
from florence_lab.predictor import Predictor
from florence_lab.template.confidence import LOCATION_TOLERANCE

PROMPTS = ["Locate the objects with category name in the image.", "What does the image describe?"]


@pytest.fixture(scope="module")
def cat(small):
    return small.encode_image(PHOTO)


@pytest.fixture(scope="module")
def states(small, cat) -> EncodedPrompts:
    """The two prompts about one image."""
    return encode_prompts(small.model, small.processor.tokenizer, cat.tokens.expand(2, -1, -1), PROMPTS)


@pytest.fixture(scope="module")
def location_ids(small):
    return small.template.location_ids


def greedy(model, **kwargs):
    return resolve_generation_kwargs(model, {"num_beams": 1, "max_new_tokens": 40, **kwargs})


def test_prompts_are_padded_and_masked(small, states):
    lengths = [37 + len(small.processor.tokenizer(prompt).input_ids) for prompt in PROMPTS]
    assert states.hidden_states.shape == (2, max(lengths), 32)
    assert states.attention_mask.sum(dim=1).tolist() == lengths
    assert len(states) == 2
    assert len(states[1:]) == 1


@torch.inference_mode()
def test_encoder_states_are_those_of_the_plain_model(small, cat, states):
    ids = small.processor.tokenizer([PROMPTS[0]], return_tensors="pt").input_ids
    embeddings = torch.cat([cat.tokens, small.model.get_input_embeddings()(ids)], dim=1)
    expected = small.model.get_encoder()(inputs_embeds=embeddings).last_hidden_state[0]
    torch.testing.assert_close(states.hidden_states[0, : len(expected)], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kwargs", [{"num_beams": 1}, {"num_beams": 3}])
def test_sequences_are_those_of_transformers(small, states, kwargs):
    kwargs = greedy(small.model, **kwargs)
    from transformers.modeling_outputs import BaseModelOutput

    expected = small.model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=states.hidden_states.clone()),
        attention_mask=states.attention_mask,
        **kwargs,
    )
    for generation, sequence in zip(generate(small.model, states, kwargs), expected, strict=True):
        tokens = generation.token_ids.tolist()
        assert tokens == sequence[1 : len(tokens) + 1].tolist()
        assert set(sequence[len(tokens) + 1 :].tolist()) <= {1}  # padding
        assert generation.probabilities is None


def test_a_sequence_is_trimmed_after_its_first_end(small):
    trim = lambda ids: trim_at_eos(small.model, torch.tensor(ids)).tolist()  # noqa: E731
    assert trim([0, 5, 2, 1, 1]) == [0, 5, 2]
    assert trim([0, 5, 2, 7, 2]) == [0, 5, 2]
    assert trim([0, 5]) == [0, 5]
    assert trim([2]) == [2]


@pytest.mark.parametrize("eos", [None, [2, 7], 7])
def test_the_end_token_is_that_of_the_generation_config(small, monkeypatch, eos):
    monkeypatch.setattr(small.model.generation_config, "eos_token_id", eos)
    expected = {None: [0, 7, 5, 2], 7: [0, 7]}.get(eos if not isinstance(eos, list) else 7)
    assert trim_at_eos(small.model, torch.tensor([0, 7, 5, 2, 1])).tolist() == expected


@pytest.mark.parametrize("kwargs", [{"num_beams": 1}, {"num_beams": 3}, {"do_sample": True, "temperature": 3.0}])
def test_requested_probabilities_are_those_of_a_teacher_forced_pass(small, states, location_ids, kwargs):
    torch.manual_seed(0)
    kwargs = greedy(small.model, **kwargs)
    first, second = generate(small.model, states, kwargs, location_ids=location_ids, score_rows=[0])
    assert second.probabilities is None
    expected = score(small.model, first.token_ids, states[:1], location_ids)
    assert first.probabilities.locations.shape == (len(first.token_ids), 1000)
    np.testing.assert_allclose(first.probabilities.generated, expected.generated, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(first.probabilities.locations, expected.locations, rtol=1e-4, atol=1e-7)


@torch.inference_mode()
def test_scores_are_the_softmax_of_the_plain_models_logits(small, cat, states, location_ids):
    (generation, _) = generate(small.model, states, greedy(small.model))
    ids = generation.token_ids
    prompt_ids = small.processor.tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    embeddings = torch.cat([cat.tokens, small.model.get_input_embeddings()(prompt_ids)], dim=1)
    start = torch.tensor([[2, *ids[:-1].tolist()]])
    logits = small.model(inputs_embeds=embeddings, decoder_input_ids=start).logits[0]
    logits[:, small.model.config.image_token_id] = -torch.inf
    probabilities = logits.double().softmax(dim=-1)
    found = score(small.model, ids, states[:1], location_ids)
    np.testing.assert_allclose(found.generated, probabilities.gather(1, ids[:, None])[:, 0], rtol=1e-4)
    np.testing.assert_allclose(found.locations, probabilities[:, location_ids.start : location_ids.stop], rtol=1e-4)


def test_long_sequences_are_scored_in_chunks(small, states, location_ids, monkeypatch):
    (generation, _) = generate(small.model, states, greedy(small.model))
    whole = score(small.model, generation.token_ids, states[:1], location_ids)
    monkeypatch.setattr(generation_module, "_POSITIONS_PER_CHUNK", 3)
    chunked = score(small.model, generation.token_ids, states[:1], location_ids)
    np.testing.assert_allclose(chunked.generated, whole.generated, rtol=1e-5)
    assert chunked.locations.shape == whole.locations.shape


@torch.inference_mode()
def test_the_image_token_has_no_probability(small, states, location_ids):
    (generation, _) = generate(small.model, states, greedy(small.model))
    hidden, _ = run_decoder(small.model, generation.token_ids, states[:1])
    probabilities = torch.cat(list(next_token_probabilities(small.model, hidden)))
    assert probabilities.shape == (len(generation.token_ids), small.model.lm_head.out_features)
    assert (probabilities[:, small.model.config.image_token_id] == 0).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(len(probabilities)))


def test_the_image_token_takes_no_probability_while_decoding(small, cat):
    model = copy.deepcopy(small.model)
    weight = model.get_input_embeddings().weight
    weight.data[model.config.image_token_id] = 9 * weight.data.mean(dim=0)  # makes the token likely
    result = Predictor(model, small.processor).predict(cat, "<OD>", num_beams=1, max_new_tokens=80)
    known = small.predict(cat, "<OD>", num_beams=1, max_new_tokens=80)
    assert result.raw == known.raw
    np.testing.assert_allclose(result.scores, known.scores, rtol=1e-5)


@torch.inference_mode()
def test_the_cross_attention_of_the_decoder_sums_to_one(small, states):
    (generation, _) = generate(small.model, states, greedy(small.model))
    _, attention = run_decoder(small.model, generation.token_ids, states[:1], output_attentions=True)
    layers, heads, tokens, positions = attention.shape
    assert (tokens, positions) == (len(generation.token_ids), states.hidden_states.shape[1])
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(layers, heads, tokens))


def test_preparing_a_model_twice_changes_nothing(small):
    model = prepare_model(small.model)
    assert model is small.model
    assert model.config.vision_config._attn_implementation == "florence_lab_davit"
    assert model.config.text_config._attn_implementation == "florence_lab_language"


def test_a_prompt_may_fill_the_positions_beside_the_image(small):
    assert max_prompt_tokens(small.model, 37) == 1024 - 37


def test_scores_equal_the_formula_on_the_models_probabilities(small, cat, states, location_ids):
    """The confidences of `<OD>`, computed independently of the parser."""
    result = small.predict(cat, "<OD>", num_beams=1, max_new_tokens=80)
    (generation, _) = generate(small.model, states, greedy(small.model, max_new_tokens=80))
    probabilities = score(small.model, generation.token_ids, states[:1], location_ids)
    scores, label, corners, was_location = [], 1.0, [], False
    for step, token in enumerate(generation.token_ids.tolist()):
        if token not in location_ids:
            # a word after a box starts a new label, a word after a word continues it
            label = (1.0 if was_location else label) * probabilities.generated[step] if token > 2 else label
            corners, was_location = [], False
            continue
        was_location = True
        corners.append((token - location_ids.start, probabilities.locations[step]))
        if len(corners) == 4:
            xyxy = np.array([n for n, _ in corners])
            tolerance = np.maximum(1, LOCATION_TOLERANCE * np.abs(xyxy[2:] - xyxy[:2]))
            masses = [
                sum(p[max(0, int(np.ceil(n - t))) : int(np.floor(n + t)) + 1])
                for (n, p), t in zip(corners, [*tolerance, *tolerance], strict=True)
            ]
            scores.append(label * np.prod(masses))
            corners = []
    assert len(result.scores) == len(scores) > 3
    np.testing.assert_allclose(result.scores, scores, rtol=1e-4)


@pytest.fixture
def calls(small, monkeypatch):
    """The arguments and outputs of transformers' `generate`, call by call."""
    recorded = []
    original = small.model.generate

    def spy(**kwargs):
        recorded.append((kwargs, original(**kwargs)))
        return recorded[-1][1]

    monkeypatch.setattr(small.model, "generate", spy)
    return recorded


def test_the_generation_config_of_the_checkpoint_is_used(small, cat, calls):
    for kwargs in ({}, {"num_beams": 3}, {"num_beams": 1}):
        small.predict(cat, "<OD>", max_new_tokens=24, **kwargs)
    default, beams, greedy_tokens = (output[0].tolist() for _, output in calls)
    assert default == beams != greedy_tokens
    assert default[:2] == [2, 0]  # forced_bos_token_id
    assert default[-1] == 2  # forced_eos_token_id


@pytest.mark.parametrize("kwargs", [{"max_new_tokens": 5}, {"max_length": 6}])
def test_the_number_of_tokens_can_be_limited(small, cat, calls, kwargs):
    small.predict(cat, "<OD>", **kwargs)
    assert len(calls[0][1][0]) == 6  # with the start token


def test_other_arguments_reach_the_generation(small, cat, calls):
    small.predict(cat, "<OD>", num_beams=1, no_repeat_ngram_size=1, max_new_tokens=24)
    tokens = calls[0][1][0].tolist()[1:-1]
    assert len(set(tokens)) == len(tokens)


def test_sampling_depends_on_the_seed_only(small, cat, calls):
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        small.predict(cat, "<OD>", do_sample=True, temperature=5.0, max_new_tokens=24)
    first, again, other = (output[0].tolist() for _, output in calls)
    assert first == again != other
    assert calls[0][0]["num_beams"] == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, DEFAULT_MAX_NEW_TOKENS),
        ({"max_new_tokens": None}, DEFAULT_MAX_NEW_TOKENS),
        ({"max_new_tokens": 9}, 9),
        ({"max_new_tokens": 5000}, 1024),  # the positions of the model
        ({"max_length": 9}, 8),
        ({"max_length": 9, "max_new_tokens": 3}, 3),
    ],
)
def test_the_length_is_resolved(small, overrides, expected):
    kwargs = resolve_generation_kwargs(small.model, overrides)
    assert (kwargs["max_new_tokens"], kwargs["max_length"]) == (expected, None)


def test_the_length_of_the_generation_config_is_a_default(small, monkeypatch):
    monkeypatch.setattr(small.model.generation_config, "max_new_tokens", 7)
    assert resolve_generation_kwargs(small.model, {})["max_new_tokens"] == 7
    assert resolve_generation_kwargs(small.model, {"max_new_tokens": 9})["max_new_tokens"] == 9


def test_early_stopping_is_switched_off_without_beams(small):
    assert resolve_generation_kwargs(small.model, {"num_beams": 1})["early_stopping"] is False
    assert "early_stopping" not in resolve_generation_kwargs(small.model, {"num_beams": 3})
    assert "early_stopping" not in resolve_generation_kwargs(small.model, {})  # the checkpoint has three beams


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"max_new_token": 5},
            r"^unknown generation argument 'max_new_token'; did you mean 'max_new_tokens'\? Known: ",
        ),
        ({"zzz": 5}, r"^unknown generation argument 'zzz'\. Known: max_new_tokens, "),
        (
            {"num_return_sequences": 2},
            r"^unsupported generation argument 'num_return_sequences': one answer per prompt",
        ),
        ({"return_dict_in_generate": True}, r"^unsupported generation argument 'return_dict_in_generate': "),
        ({"penalty_alpha": 0.6, "top_k": 4}, r"^unknown generation argument 'penalty_alpha'"),
        ({"num_beams": 0}, r"^num_beams must be at least 1 and at most 1,000, got 0$"),
        ({"num_beams": "3"}, r"^num_beams must be a whole number, got '3'$"),
        ({"num_beams": 10**12}, r"^num_beams must be at least 1 and at most 1,000, got 1000000000000$"),
        ({"max_new_tokens": 1.5}, r"^max_new_tokens must be a whole number, got 1.5$"),
        ({"max_new_tokens": True}, r"^max_new_tokens must be a whole number, got True$"),
        ({"max_length": 1}, r"^max_length must be at least 2, got 1$"),
        ({"do_sample": "false"}, r"^do_sample must be True or False, got 'false'$"),
        ({"temperature": 0}, r"^temperature must be greater than 0, got 0.0$"),
        ({"temperature": math.inf}, r"^temperature must be finite, got inf$"),
        ({"top_p": 2}, r"^top_p must be greater than 0 and at most 1, got 2.0$"),
        ({"top_k": -1}, r"^top_k must be at least 0, got -1$"),
        ({"early_stopping": "x"}, r"^early_stopping must be True or False or one of 'never', got 'x'$"),
        ({"eos_token_id": "x"}, r"^eos_token_id must be a whole number or a sequence of whole numbers, got 'x'$"),
        ({"suppress_tokens": 5}, r"^suppress_tokens must be a sequence of whole numbers, got 5$"),
        ({"forced_bos_token_id": 10**6}, r"^forced_bos_token_id must be less than the \d+ tokens of the vocabulary"),
        ({"min_new_tokens": 9, "max_new_tokens": 3}, r"^min_new_tokens = 9 is greater than max_new_tokens = 3$"),
    ],
)
def test_unsupported_arguments_are_refused(small, kwargs, message):
    with pytest.raises(ValueError, match=message):
        resolve_generation_kwargs(small.model, kwargs)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_beams", 0), ("num_beams", "2"), ("eos_token_id", 10**6), ("return_dict_in_generate", True)],
)
def test_invalid_settings_of_the_checkpoint_are_refused(small, name, value):
    model = copy.copy(small.model)
    model.generation_config = copy.deepcopy(small.model.generation_config)
    setattr(model.generation_config, name, value)
    with pytest.raises(ArgumentError, match=name):
        resolve_generation_kwargs(model, {})


def test_an_error_of_transformers_names_the_settings(small, cat):
    with pytest.raises(ArgumentError, match=r"cannot generate with .*'sequence_bias': \{\}"):
        small.predict(cat, "<OD>", sequence_bias={}, max_new_tokens=3)


def test_none_is_the_default_of_a_setting(small):
    assert resolve_generation_kwargs(small.model, {"num_beams": None}) == resolve_generation_kwargs(small.model, {})


def test_an_answer_of_no_tokens_is_refused(small, cat):
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        small.predict(cat, "<OD>", max_new_tokens=0)


def test_an_answer_may_fill_all_positions_of_the_model(small, cat):
    model = copy.deepcopy(small.model)
    model.config.text_config.max_position_embeddings = 100
    positions = model.model.language_model.decoder.embed_positions
    positions.weight = torch.nn.Parameter(positions.weight[:102])  # BART has two more
    result = Predictor(model, small.processor).predict(cat, "<OD>", num_beams=1, min_new_tokens=99)
    assert len(result.scores) == len(result) > 0


@pytest.mark.parametrize("steps", [0, 3])
def test_a_model_is_interrupted_before_its_next_layer(small, cat, steps):
    checks = iter([False] * steps)
    hooks = sum(len(module._forward_pre_hooks) for module in small.model.modules())
    with pytest.raises(GenerationInterrupted), interruptible(small.model, lambda: next(checks, True)):
        small.predict(cat, "<CAPTION>")
    assert sum(len(module._forward_pre_hooks) for module in small.model.modules()) == hooks


def test_a_model_that_is_not_interrupted_answers(small, cat):
    with interruptible(small.model, lambda: False):
        assert small.predict(cat, "<CAPTION>", max_new_tokens=4).raw


def test_the_tokenizer_is_not_changed_by_encoding(small, cat):
    """Threads share it, and the backend of transformers' tokenizers refuses or mixes up changes by two threads at a time."""
    backend = small.processor.tokenizer.backend_tokenizer
    encode_prompts(small.model, small.processor.tokenizer, cat.tokens.expand(2, -1, -1), ["a", "a cat on a table"])
    assert (backend.padding, backend.truncation) == (None, None)


def test_prompts_of_different_lengths_are_padded_as_by_the_tokenizer(small, cat):
    prompts = ["a", "a cat on a table"]
    encoded = encode_prompts(small.model, small.processor.tokenizer, cat.tokens.expand(2, -1, -1), prompts)
    expected = small.processor.tokenizer(prompts, padding=True, return_tensors="pt").attention_mask
    assert torch.equal(encoded.attention_mask[:, cat.tokens.shape[1] :], expected)
    small.processor.tokenizer(prompts)  # resets the padding
    alone = encode_prompts(small.model, small.processor.tokenizer, cat.tokens, prompts[:1])
    torch.testing.assert_close(encoded.hidden_states[0, : alone.hidden_states.shape[1]], alone.hidden_states[0])
