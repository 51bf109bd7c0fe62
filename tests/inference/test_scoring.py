"""Log-likelihoods of given answers equal transformers' own loss and the probabilities of generated tokens."""

import numpy as np
import pytest
import torch
from support import PHOTO
from transformers.modeling_outputs import BaseModelOutput

from florence_lab.exceptions import ArgumentError, PromptError
from florence_lab.inference import scoring
from florence_lab.inference.generation import encode_prompts, score
from florence_lab.inference.ranking import RankedCandidates, ScoredCandidate
from florence_lab.results import Boxes, Quads
from florence_lab.scenes import sample_path

ANSWERS = ["A drawing of a dog", "", "sheep<loc_10><loc_20><loc_300><loc_400>", "sheep", "sheep dog", "sheep"]
TREE = (35, 237, 157, 337)


@pytest.fixture(scope="module")
def states(nano):
    image = nano.encode_image(sample_path("sheep"))
    prompts = ["What does the image describe?", "Locate sheep in the image."]
    return encode_prompts(nano.model, nano.processor.tokenizer, image.tokens.expand(2, -1, -1), prompts)


@pytest.fixture(scope="module")
def image(nano):
    return nano.encode_image(sample_path("sheep"))


def log_likelihoods(predictor, states, rows, answers, **kwargs):
    return scoring.answer_log_likelihoods(
        predictor.model, predictor.processor.tokenizer, states, rows, answers, **kwargs
    )


def token_ids(predictor, answer):
    return torch.tensor(scoring.encode_answers(predictor.model, predictor.processor.tokenizer, [answer])[0])


def transformers_loss(predictor, states, answer):
    """The summed cross-entropy of an answer, without the first token, which generation forces."""
    labels = token_ids(predictor, answer)[None]
    start = torch.tensor([[predictor.model.generation_config.decoder_start_token_id]])
    decoder_input_ids = torch.cat([start, labels[:, :-1]], dim=1)
    labels[0, 0] = -100
    with torch.inference_mode():
        output = predictor.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states.hidden_states),
            attention_mask=states.attention_mask,
            decoder_input_ids=decoder_input_ids,
            labels=labels,
        )
    return output.loss.item() * (labels.shape[1] - 1)


@pytest.mark.parametrize("row", [0, 1])
def test_log_likelihoods_equal_the_loss_of_transformers(nano, states, row):
    found = log_likelihoods(nano, states, [row] * len(ANSWERS), ANSWERS)
    expected = [-transformers_loss(nano, states[row : row + 1], answer) for answer in ANSWERS]
    np.testing.assert_allclose([values.sum() for values in found], expected, rtol=1e-5, atol=1e-5)


def test_log_likelihoods_equal_the_probabilities_of_generation(nano, states):
    found = log_likelihoods(nano, states, [0, 1, 0, 1, 0, 1], ANSWERS)
    for row, answer, values in zip([0, 1] * 3, ANSWERS, found, strict=True):
        expected = score(nano.model, token_ids(nano, answer), states[row : row + 1], nano.template.location_ids)
        np.testing.assert_allclose(np.exp(values[1:]), expected.generated[1:], atol=1e-5)
        assert values[0] == 0


@pytest.mark.parametrize("positions", [8, 40])
def test_chunks_do_not_change_log_likelihoods(nano, states, monkeypatch, positions):
    rows = [1, 0, 0, 1, 1, 0]
    whole = log_likelihoods(nano, states, rows, ANSWERS)
    monkeypatch.setattr(scoring, "_POSITIONS_PER_PASS", positions)
    monkeypatch.setattr(scoring, "_POSITIONS_PER_CHUNK", 3)
    for a, b in zip(whole, log_likelihoods(nano, states, rows, ANSWERS), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_no_more_logits_than_a_chunk_exist_at_a_time(nano, states, monkeypatch):
    rows_of_logits = []
    handle = nano.model.lm_head.register_forward_pre_hook(lambda _, args: rows_of_logits.append(len(args[0])))
    try:
        log_likelihoods(nano, states, [0] * 100, [f"a picture of {n} sheep" for n in range(100)])
    finally:
        handle.remove()
    assert max(rows_of_logits) <= 128
    assert sum(rows_of_logits) < 100 * 5  # common beginnings are not repeated


@pytest.mark.parametrize(("forced", "first"), [(0, 0.0), (None, None), (5, -np.inf)])
def test_a_forced_first_token_is_certain(nano, states, monkeypatch, forced, first):
    ids = token_ids(nano, "sheep").tolist()
    monkeypatch.setattr(nano.model.generation_config, "forced_bos_token_id", forced)
    values = log_likelihoods(nano, states, [0], [ids])[0]
    assert values[0] == first if first is not None else values[0] < 0


def test_the_end_stands_for_any_of_several_tokens(nano, states):
    ends = [2, *nano.template.location_ids]
    values = log_likelihoods(nano, states, [1], ["sheep"], end_ids=ends)[0]
    expected = score(nano.model, token_ids(nano, "sheep"), states[1:2], nano.template.location_ids)
    assert np.exp(values[-1]) == pytest.approx(expected.generated[-1] + expected.locations[-1].sum(), abs=1e-5)
    assert np.exp(values[-2]) == pytest.approx(expected.generated[-2], abs=1e-5)


def test_an_answer_beyond_the_positions_of_the_model_is_refused(nano, states):
    with pytest.raises(ArgumentError, match="longer"):
        log_likelihoods(nano, states, [0], ["sheep " * 2000])


@pytest.mark.parametrize("box", [TREE, [68, 463, 306, 659]])
def test_the_category_of_a_region_is_ranked_first(nano, image, box):
    region_format = "xyxy" if box == TREE else "norm_1000"
    ranked = nano.score(
        image, "<REGION_TO_CATEGORY>", ["dog", "", "sheep", "sheep dog"], box, region_format=region_format
    )
    assert ranked[0].candidate == "sheep"
    assert ranked[0].probability > 0.9
    assert sum(item.probability for item in ranked) == pytest.approx(1)
    assert [item.probability for item in ranked] == sorted((item.probability for item in ranked), reverse=True)


def test_a_region_behind_a_category_makes_no_difference(nano, image):
    region = nano.build_prompt(image.size, "<REGION_TO_CATEGORY>", TREE).text
    ranked = nano.score(image, "<REGION_TO_CATEGORY>", ["sheep", f"sheep{region}"], TREE)
    assert ranked[0].log_likelihood == pytest.approx(ranked[1].log_likelihood)


def test_the_generated_caption_is_the_most_likely_one(nano, image):
    caption = nano.predict(image, "<CAPTION>", num_beams=1).text
    ranked = nano.score(image, "<CAPTION>", ["a dog", caption, "four red cars", ""], normalize=True)
    assert ranked[0].candidate == caption
    assert ranked[0].perplexity == pytest.approx(np.exp(-ranked[0].log_likelihood / ranked[0].num_tokens))
    assert ranked[0].perplexity < min(item.perplexity for item in ranked[1:])


def test_normalization_divides_by_the_number_of_tokens(nano, image):
    ranked = nano.score(image, "<CAPTION>", ["a dog", "two dogs on a road", ""], normalize=True)
    means = [item.log_likelihood / item.num_tokens for item in ranked]
    assert means == sorted(means, reverse=True)
    np.testing.assert_allclose(np.diff(np.log([item.probability for item in ranked])), np.diff(means), atol=1e-6)


def test_boxes_of_a_phrase_are_ranked(nano, image):
    found = nano.predict(image, "<OPEN_VOCABULARY_DETECTION>", "sheep", num_beams=1)
    assert len(found) > 1
    candidates = [found, (10, 10, 40, 40), found.boxes.tolist(), found.boxes[:1]]
    ranked = nano.score(image, "<OPEN_VOCABULARY_DETECTION>", candidates, "sheep")
    by_id = {id(item.candidate): item for item in ranked}
    assert by_id[id(found)].log_likelihood == pytest.approx(by_id[id(candidates[2])].log_likelihood)
    one = nano.score(image, "<OPEN_VOCABULARY_DETECTION>", [found.boxes[0], (10, 10, 40, 40)], "sheep")
    assert one[0].candidate is not candidates[1]


@pytest.mark.parametrize(
    ("task", "text", "candidates", "message"),
    [
        ("<CAPTION>", None, [], "at least one"),
        ("<CAPTION>", None, "a dog", "list of answers"),
        ("<CAPTION>", None, [(1, 2, 3, 4)], "a string"),
        ("<CAPTION>", None, ["dog<loc_3>"], "<loc_3>"),
        ("<OD>", None, [(10, 10, 40, 40)], "Boxes with labels"),
        ("<OD>", None, ["<loc_1>"], "incomplete|label"),
        ("<OCR_WITH_REGION>", None, [(10, 10, 40, 40)], "Quads"),
        ("<REFERRING_EXPRESSION_SEGMENTATION>", "sheep", [(10, 10, 40, 40)], "Polygons"),
        ("<OPEN_VOCABULARY_DETECTION>", "sheep", [(10, 10, 40)], "four numbers"),
        ("<OPEN_VOCABULARY_DETECTION>", "sheep", [(10, 10, 9000, 40)], "9000"),
        ("<OPEN_VOCABULARY_DETECTION>", "sheep", [None], "four numbers"),
    ],
)
def test_what_a_task_cannot_answer_is_refused(nano, image, task, text, candidates, message):
    with pytest.raises((ArgumentError, PromptError), match=message):
        nano.score(image, task, candidates, text)


@pytest.mark.parametrize(
    ("task", "text", "candidates"),
    [
        ("<CAPTION>", None, ["a cat", ""]),
        ("Is it a cat?", None, ["yes", "no", ""]),
        ("<REGION_TO_CATEGORY>", (10, 10, 90, 90), ["cat", ""]),
        ("<OD>", None, ["cat<loc_1><loc_1><loc_9><loc_9>", ""]),
        ("<REGION_PROPOSAL>", None, [(10, 10, 90, 90), [(1, 1, 9, 9), (1, 2, 30, 40)]]),
        ("<CAPTION_TO_PHRASE_GROUNDING>", "a cat", [(10, 10, 90, 90), ""]),
    ],
)
def test_random_weights_are_scored(small, task, text, candidates):
    ranked = small.score(PHOTO, task, candidates, text)
    assert len(ranked) == len(candidates)
    assert all(np.isfinite(item.log_likelihood) for item in ranked)


def test_results_with_instances_are_candidates(small):
    quads = Quads(
        raw="", image_size=(451, 300), labels=["a"], quads=np.array([[(1, 1), (9, 1), (9, 5), (1, 5)]], float)
    )
    boxes = Boxes(raw="", image_size=(451, 300), labels=["cat"], boxes=np.array([[1.0, 1, 9, 9]]))
    assert len(small.score(PHOTO, "<OCR_WITH_REGION>", [quads, ""])) == 2
    assert len(small.score(PHOTO, "<OD>", [boxes, "dog<loc_1><loc_1><loc_9><loc_9>"])) == 2


def test_ranked_candidates_print_as_a_table_and_convert():
    items = [ScoredCandidate("dog", -2.0, 2, 0.25), ScoredCandidate("sheep", -1.0, 3, 0.75)]
    ranked = RankedCandidates(items)
    lines = repr(ranked).splitlines()
    assert lines[0].split() == ["candidate", "probability", "log-likelihood", "tokens"]
    assert lines[1].split() == ["'sheep'", "0.7500", "-1.00", "3"]
    frame = ranked.to_dataframe()
    assert frame["candidate"].tolist() == ["sheep", "dog"]
    assert frame["perplexity"].tolist() == pytest.approx([np.exp(1 / 3), np.e])
    assert ranked[0] is items[1]
    assert ranked[:1] == [items[1]]
    with pytest.raises(IndexError, match="2 candidates"):
        ranked[5]
