"""The decoder with a KV cache, its attention, and greedy search."""

import pytest
import torch
from support import PHOTO

from florence_lab.inference.decoding import (
    IncrementalDecoder,
    TokenScoreRecorder,
    language_attention,
)
from florence_lab.inference.generation import encode_prompts, generate, resolve_generation_kwargs


@pytest.fixture(scope="module")
def states(small):
    """Three prompts of different lengths about one image."""
    encoded = small.encode_image(PHOTO)
    prompts = ["OCR", "Locate the objects in the image, with their descriptions.", "What does the image describe?"]
    return encode_prompts(small.model, small.processor.tokenizer, encoded.tokens.expand(3, -1, -1), prompts)


@torch.inference_mode()
def test_incremental_states_are_those_of_barts_decoder(small, states):
    ids = torch.randint(
        5, 900, (3, 70), generator=torch.Generator().manual_seed(0)
    )  # beyond the cache's first capacity
    decoder = IncrementalDecoder(small.model, states.hidden_states, states.attention_mask)
    found = torch.stack([decoder(ids[:, i]) for i in range(ids.shape[1])], dim=1)
    expected = small.model.model.language_model.decoder(
        input_ids=ids,
        encoder_hidden_states=states.hidden_states,
        encoder_attention_mask=states.attention_mask,
        use_cache=False,
    ).last_hidden_state
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_dropped_sequences_do_not_change_the_others(small, states):
    ids = torch.randint(5, 900, (3, 6), generator=torch.Generator().manual_seed(1))
    all_rows = IncrementalDecoder(small.model, states.hidden_states, states.attention_mask)
    some_rows = IncrementalDecoder(small.model, states.hidden_states, states.attention_mask)
    rows = torch.tensor([0, 2])
    for i in range(3):
        all_rows(ids[:, i])
        some_rows(ids[:, i])
    some_rows.keep(rows)
    for i in range(3, 6):
        torch.testing.assert_close(some_rows(ids[rows, i]), all_rows(ids[:, i])[rows], atol=1e-5, rtol=1e-4)


def test_finished_sequences_leave_the_batch(small, states, monkeypatch):
    batch_sizes = []
    original = IncrementalDecoder.__call__

    def spy(decoder, token_ids):
        batch_sizes.append(len(token_ids))
        return original(decoder, token_ids)

    monkeypatch.setattr(IncrementalDecoder, "__call__", spy)
    eos = small.model.generation_config.eos_token_id
    kwargs = resolve_generation_kwargs(small.model, {"num_beams": 1, "max_new_tokens": 12})
    ends = iter([None, None, 1])  # the second sequence ends at the third step

    def end_early(ids, logits):
        row = next(ends, None)
        if row is not None:
            logits[row] = -torch.inf
            logits[row, eos] = 0
        return logits

    monkeypatch.setattr(
        "transformers.generation.logits_process.LogitsProcessorList.__call__", lambda _, i, s: end_early(i, s)
    )
    lengths = [len(generation.token_ids) for generation in generate(small.model, states, kwargs)]
    assert lengths[1] == 3
    assert batch_sizes[:3] == [3, 3, 3]
    assert set(batch_sizes[3:]) <= {1, 2}


@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_equals_the_formula(queries, masked):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 8, generator=generator) for n in (queries, 5, 5))
    mask = torch.ones(2, 1, queries, 5, dtype=torch.bool)
    mask[1, ..., 3:] = not masked
    module = torch.nn.Module()
    module.is_causal = False
    output, weights = language_attention(module, query, key, value, mask if masked else None, scaling=0.3)
    logits = (query * 0.3 @ key.transpose(-1, -2)).masked_fill(
        ~mask if masked else torch.zeros(1, dtype=torch.bool), -1e9
    )
    expected = (logits.softmax(dim=-1) @ value).transpose(1, 2)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
    assert weights is None


def test_attention_is_scaled_by_the_root_of_the_head_size_by_default():
    query, key, value = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 3, 16), torch.randn(1, 1, 3, 16)
    module = torch.nn.Module()
    default, _ = language_attention(module, query, key, value, None)
    explicit, _ = language_attention(module, query, key, value, None, scaling=0.25)
    torch.testing.assert_close(default, explicit)


def test_only_requested_sequences_are_recorded():
    recorder = TokenScoreRecorder([1], range(4, 1004), image_token_id=0)
    logits = torch.zeros(2, 1010)
    recorder(torch.tensor([0, 1]), logits.clone(), torch.tensor([5, 6]))
    recorder(torch.tensor([1]), logits[:1].clone(), torch.tensor([7]))
    recorder(torch.tensor([0]), logits[:1].clone(), torch.tensor([7]))
    assert recorder.probabilities(0) is None
    found = recorder.probabilities(1)
    assert found.generated.tolist() == pytest.approx([1 / 1009] * 2)  # the image token has probability 0
    assert found.locations.shape == (2, 1000)


def test_a_recorder_without_steps_has_no_probabilities():
    assert TokenScoreRecorder([0], range(4, 1004), image_token_id=0).probabilities(0) is None
