"""Constrained decoding: the grammar of answers, labels, characters, and what it leaves unchanged."""

import copy
import itertools
import random
import string

import pytest
import torch
from support import PHOTO

from florence_lab.exceptions import ArgumentError, ArgumentTypeError
from florence_lab.inference.answer_states import FINISHED
from florence_lab.inference.generation import encode_prompts, generate, resolve_generation_kwargs
from florence_lab.interpret import trace
from florence_lab.results import Instances
from florence_lab.scenes import HELD_OUT_SEEDS, draw_scene
from florence_lab.tasks import TASKS, Task, register_task
from florence_lab.template.grammar import validate_target
from florence_lab.template.prompts import Prompt, build_prompt
from florence_lab.template.targets import format_target, to_instances

CAPTION = "A red car, another and the old car's tail; it sees all other objects"
REGION = "<loc_100><loc_100><loc_600><loc_600>"
INPUTS = {"none": None, "phrase": CAPTION, "region": REGION}
QUERIES = [(token, INPUTS[task.input]) for token, task in TASKS.items()] + [("what is it?", None)]
B, C = "<loc_10><loc_20><loc_300><loc_400>", "<loc_5><loc_6><loc_7><loc_8>"
TRIANGLE = "<loc_1><loc_2><loc_3><loc_40><loc_50><loc_6>"
OD, OPEN, OCR, REFER = "<OD>", "<OPEN_VOCABULARY_DETECTION>", "<OCR_WITH_REGION>", "<REFERRING_EXPRESSION_SEGMENTATION>"
GROUND, CATEGORY, PROPOSAL = "<CAPTION_TO_PHRASE_GROUNDING>", "<REGION_TO_CATEGORY>", "<REGION_PROPOSAL>"
LABELS = {"allowed_labels": ["cat", "cats", "red cat", "Ünïcode 犬", "a < b"]}
DIGITS = {"allowed_characters": "0123456789-"}


def prompt_of(query):
    return build_prompt(query, INPUTS[TASKS[query].input] if query in TASKS else None, warn_of_language=False)


@pytest.fixture(scope="module")
def is_allowed(small):
    """Whether tokens, or the tokens of a text, are an answer to a prompt from beginning to end."""

    def check(prompt, answer, **settings):
        ids = answer if isinstance(answer, list) else small.processor.tokenizer(answer).input_ids
        constraint = small.constraints.processor([prompt], {"constrain": True, "no_repeat_ngram_size": 0, **settings})
        scores = torch.zeros(1, small.model.lm_head.out_features)
        for end in range(1, len(ids)):
            scores_after = constraint(torch.tensor([[2, *ids[:end]]]), scores)
            if scores_after[0, ids[end]] == -torch.inf:
                return False
        return True

    return check


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        *((query, "") for query, _ in QUERIES),
        (OD, f"sheep{B}"),
        (OD, f"sheep{B}{C}a dog{C}sheep{C}"),
        (OD, f"a < b, 50%{B}"),
        (OD, f"Ünïcode 犬{B}"),
        (OD, "dot<loc_5><loc_5><loc_5><loc_5>"),
        (PROPOSAL, B + C),
        (PROPOSAL, f"thing{B}{C}"),
        (OCR, f"stop{B}{C}go{C}{B}"),
        (GROUND, f"A red car{B}the old car{C}{B}car's tail{C}another and{B}"),
        (OPEN, f"a sheep{B}<poly>{TRIANGLE}<sep>{B}{C}</poly>{B}a dog<poly>{B}{C}</poly><poly>{TRIANGLE}</poly>"),
        (REFER, f"{TRIANGLE}<and>{B}{C}<sep>{TRIANGLE}"),
        (REFER, f"<poly>{TRIANGLE}</poly>{TRIANGLE}<poly>{TRIANGLE}</poly>"),
        (REFER, f"a sheep{TRIANGLE}<sep>{B}{C}"),
        (CATEGORY, "cat"),
        (CATEGORY, f"cat{REGION}"),
        ("<OCR>", "Any text. 犬"),
        ("what is it?", "Any text. 犬"),
    ],
)
def test_a_whole_answer_is_allowed(is_allowed, query, answer):
    assert is_allowed(prompt_of(query), answer)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (OD, B),
        (OD, "sheep"),
        (OD, "sheep<loc_1><loc_2><loc_3>"),
        (OD, "sheep<loc_10><loc_2><loc_9><loc_4>"),
        (OD, "sheep<loc_1><loc_20><loc_9><loc_4>"),
        (OD, f"sheep{B}<sep>{C}"),
        (OD, f"<od>sheep{B}"),
        (PROPOSAL, f"{B}thing{B}"),
        (OCR, f"stop{B}"),
        (OCR, B + C),
        (GROUND, f"a blue car{B}"),
        (GROUND, f"red c{B}"),
        (GROUND, f"it{B}"),
        (GROUND, f"other objects{B}"),
        (OPEN, f"a sheep<poly>{B}</poly>"),
        (OPEN, f"a sheep<poly>{TRIANGLE}"),
        (OPEN, f"a sheep{B}<and>{B}"),
        (REFER, B),
        (REFER, f"{TRIANGLE}<loc_4>"),
        (REFER, f"<poly>{TRIANGLE}</poly><and>{TRIANGLE}"),
        (CATEGORY, REGION),
        (CATEGORY, f"cat{B}"),
        (CATEGORY, "cat<loc_100><loc_100>"),
        ("<CAPTION>", f"a sheep{B}"),
        ("what is it?", "a <sep> b"),
    ],
)
def test_what_is_no_whole_answer_is_not(is_allowed, query, answer):
    assert not is_allowed(prompt_of(query), answer)


@pytest.mark.parametrize(
    ("query", "answer", "settings", "expected"),
    [
        (OD, f"cat{B}red cat{B}{C}Ünïcode 犬{C}cats{B}a < b{B}", LABELS, True),
        (OD, f"dog{B}", LABELS, False),
        (OD, f"red{B}", LABELS, False),
        (OD, f"cat cat{B}", LABELS, False),
        (OCR, f"cats{B}{C}", LABELS, True),
        (CATEGORY, f"red cat{REGION}", LABELS, True),
        (CATEGORY, "red cat", LABELS, True),
        ("<CAPTION>", "cats", LABELS, True),
        ("<CAPTION>", "cats cat", LABELS, False),
        ("what is it?", "Ünïcode 犬", LABELS, True),
        (GROUND, f"cat{B}", LABELS, True),
        ("<OCR>", "10-20", DIGITS, True),
        ("<OCR>", "10 20", DIGITS, False),
        ("<OCR>", "1O", DIGITS, False),
        (OCR, f"10{B}{C}20{B}{C}", DIGITS, True),
        (OCR, f"ten{B}{C}", DIGITS, False),
        ("<REGION_TO_OCR>", f"7{REGION}", DIGITS, True),
        ("<OCR>", "犬 €5", {"allowed_characters": "犬€ 5"}, True),
        ("<OCR>", "狗", {"allowed_characters": "犬€ 5"}, False),  # begins with a byte of 犬
    ],
)
def test_labels_and_characters_are_those_of_the_caller(is_allowed, query, answer, settings, expected):
    assert is_allowed(prompt_of(query), answer, **settings) is expected


def test_every_tokenization_of_a_label_is_allowed(small, is_allowed):
    vocabulary = small.processor.tokenizer.get_vocab()
    behind = [*(vocabulary[token] for token in ("<loc_1>", "<loc_2>", "<loc_3>", "<loc_4>")), 2]
    parts = [[0], *([[vocabulary[c] for c in "red"]]), [vocabulary["Ġ"]], [vocabulary[c] for c in "cat"], behind]
    assert is_allowed(prompt_of(OD), list(itertools.chain(*parts)), **LABELS)
    assert not is_allowed(prompt_of(OD), [*itertools.chain(*parts[:-2]), *behind], **LABELS)


@pytest.mark.parametrize("token", [token for token, task in TASKS.items() if task.coco_label or task.input == "none"])
def test_the_ground_truth_of_scenes_is_allowed(is_allowed, token):
    for seed in range(2):
        scene = draw_scene(seed, 64)
        inputs = [None] if TASKS[token].input == "none" else scene.sample_inputs(token, random.Random(seed))[:2]
        for text in inputs:
            assert is_allowed(build_prompt(token, text, scene.size), scene.answer(token, text).raw)


# decoding ------------------------------------------------------------------------------------------------------------


def random_settings(vocabulary, rng):
    """Settings under which random weights give answers of all lengths and forms."""
    biases = [[[2], rng.choice([0.0, 2.0, 6.0])]]
    biases += [[[id_], rng.choice([0.0, 5.0])] for id_, (_, bin_) in vocabulary.markup.items() if bin_ is None]
    biases += [[[id_], 5.0] for id_ in vocabulary.location_ids[:: rng.choice([1, 50])]]
    settings = {
        "sequence_bias": biases,
        "max_new_tokens": rng.choice([4, 30, 60]),
        "no_repeat_ngram_size": rng.choice([0, 1, 3]),
    }
    for name, value in (
        ("forced_bos_token_id", None),
        ("forced_eos_token_id", None),
        ("min_new_tokens", 4),
        ("remove_invalid_values", True),
        ("renormalize_logits", True),
    ):
        if rng.random() < 0.2:
            settings[name] = value
    return settings


METHODS = {
    "greedy": {"num_beams": 1},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "temperature": 0.7, "top_k": 50},
    "stream": {},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rounds", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_constrained_answers_of_random_weights_are_whole_answers(small, method, rounds):
    rng, encoded = random.Random(len(method)), small.encode_image(PHOTO)
    for seed in range(rounds):
        torch.manual_seed(seed)
        image = type(encoded)(encoded.image, encoded.tokens + 2 * torch.randn(encoded.tokens.shape))
        queries = rng.sample(QUERIES, 4)
        settings = random_settings(small.template.vocabulary, rng) | METHODS[method] | {"constrain": True}
        if method == "stream":
            results = [list(small.stream(image, *query, **settings))[-1] for query in queries]
        else:
            results = small.predict_tasks(image, queries, **settings)
        for query, result in zip(queries, results, strict=True):
            prompt = build_prompt(*query, image.size)
            if not result.truncated:
                assert validate_target(result.raw, prompt) == result.raw.strip()
            elif isinstance(result, Instances):  # the parser drops what is incomplete
                validate_target(format_target(prompt.task, to_instances(result), image.size), prompt)


@pytest.mark.parametrize("method", ["greedy", "beams", "sampling"])
def test_answers_do_not_depend_on_the_batch(small, encoded_photo, method):
    queries = [query for query in QUERIES if query[0] not in (PROPOSAL, "<REGION_TO_SEGMENTATION>", REFER)]
    settings = METHODS[method] | LABELS | {"max_new_tokens": 24}
    if method == "sampling":
        settings["top_k"] = 1
    together = small.predict_tasks(encoded_photo, queries, **settings)
    alone = [small.predict(encoded_photo, *query, **settings) for query in queries]
    assert [result.raw for result in together] == [result.raw for result in alone]
    assert len({result.raw for result in together}) > 2


@pytest.fixture(scope="module")
def encoded_photo(small):
    return small.encode_image(PHOTO)


def test_streams_are_constrained_as_predictions_are(small, encoded_photo):
    settings = {"num_beams": 1, "max_new_tokens": 40, "allowed_labels": ["cat", "dog"]}
    results = list(small.stream(encoded_photo, OD, **settings))
    assert results[-1].raw == small.predict(encoded_photo, OD, **settings).raw != ""
    assert all(set(result.labels) <= {"cat", "dog"} for result in results)


def test_a_trace_is_constrained_as_the_prediction_is(small, encoded_photo):
    settings = {"num_beams": 1, "max_new_tokens": 12, "allowed_labels": ["cat"]}
    traced = trace(small, encoded_photo, OD, **settings)
    assert traced.result.raw == small.predict(encoded_photo, OD, **settings).raw != ""


@pytest.mark.parametrize("token", [OD, "<CAPTION>", GROUND, REFER, CATEGORY, OPEN])
def test_well_formed_answers_of_nano_are_unchanged(nano, token):
    def tokens(prompts, image, **settings):
        states = encode_prompts(
            nano.model, nano.processor.tokenizer, image.tokens.expand(len(prompts), -1, -1), [p.prompt for p in prompts]
        )
        kwargs = resolve_generation_kwargs(nano.model, settings)
        constraint = nano.constraints.processor(prompts, kwargs)
        return [g.token_ids.tolist() for g in generate(nano.model, states, kwargs, constraint=constraint)]

    num_equal = 0
    for seed in HELD_OUT_SEEDS[:2]:
        scene = draw_scene(seed)
        inputs = [None] if TASKS[token].input == "none" else scene.sample_inputs(token, random.Random(seed))[:2]
        prompts = [build_prompt(token, text, scene.size) for text in inputs]
        image = nano.encode_image(scene.image)
        pairs = zip(prompts, tokens(prompts, image), tokens(prompts, image, constrain=True), strict=True)
        for prompt, free, constrained in pairs:
            try:
                validate_target(nano.template.decode(free), prompt)
            except ArgumentError:
                assert token == CATEGORY  # the region is repeated with other bins
                label = nano.template.parse(free, prompt, scene.size).text
                assert nano.template.decode(constrained) == label + prompt.text
                continue
            num_equal += 1
            assert constrained == free
    assert num_equal > 0 or token == CATEGORY


def test_scores_are_the_models_own(small, encoded_photo):
    free = small.predict(encoded_photo, PROPOSAL, num_beams=1, max_new_tokens=5)
    assert len(free) == 0
    for num_beams in (1, 3):
        settings = {"num_beams": num_beams, "max_new_tokens": 40, "constrain": True}
        result = small.predict(encoded_photo, PROPOSAL, **settings)
        assert len(result) > 0
        assert result.scores.max() < 0.1  # these weights do not predict boxes


def test_an_answer_that_ends_at_the_limit_of_length_is_not_truncated(small, encoded_photo):
    vocabulary = small.processor.tokenizer.get_vocab()
    settings = {"num_beams": 1, "max_new_tokens": 3, "allowed_labels": ["c"], "min_new_tokens": 3}
    result = small.predict(encoded_photo, "<CAPTION>", **settings)
    assert "c" in vocabulary
    assert (result.text, result.truncated) == ("c", False)


def test_forced_and_suppressed_tokens_are_respected(small, encoded_photo):
    vocabulary = small.processor.tokenizer.get_vocab()
    forced = small.predict(
        encoded_photo, OD, constrain=True, num_beams=1, max_new_tokens=4, forced_bos_token_id=vocabulary["x"]
    )
    assert forced.raw.startswith("x")
    locations = list(small.template.location_ids)
    stuck = small.predict(
        encoded_photo, OD, allowed_labels=["c"], num_beams=1, suppress_tokens=locations, min_new_tokens=2
    )
    assert stuck.raw == "c"  # nothing can follow, so the answer ends
    assert len(stuck) == 0


def test_repeated_labels_are_not_replaced_by_others(small, encoded_photo):
    settings = {"num_beams": 1, "no_repeat_ngram_size": 3, "min_new_tokens": 60, "max_new_tokens": 80}
    result = small.predict(encoded_photo, OD, allowed_labels=["a b c d e f"], **settings)
    assert set(result.labels) == {"a b c d e f"}


def test_beams_are_followed_when_they_are_reordered(small):
    constraint = small.constraints.processor([prompt_of(OD), prompt_of("<OCR>")], {"constrain": True})
    scores = torch.zeros(4, small.model.lm_head.out_features)
    ids = torch.tensor([[2], [2], [2], [2]])
    cat, first = small.processor.tokenizer.get_vocab()["c"], small.template.location_ids.start

    def after(ids):
        return (constraint(ids, scores)[:, first] > -torch.inf).tolist()

    assert after(ids) == [False] * 4
    ids = torch.tensor([[2, cat], [2, 2], [2, cat], [2, 2]])
    assert after(ids) == [True, False, False, False]
    ids = torch.tensor([[2, 2, 2], [2, cat, first + 1], [2, cat, cat], [2, cat, cat]])
    assert after(ids) == [False, True, False, False]
    assert after(ids[:, :2]) == [False, True, False, False]  # any sequences can be given


def test_the_last_state_is_shared_and_has_no_tokens_of_its_own():
    assert not FINISHED.exits
    assert FINISHED.text is None


def test_a_copied_predictor_has_constraints_of_its_own(small, encoded_photo):
    small.predict(encoded_photo, OD, constrain=True, max_new_tokens=3)
    other = copy.deepcopy(small)
    other.model.generation_config.no_repeat_ngram_size = 0
    assert other.predict(encoded_photo, OD, allowed_labels=["c"], max_new_tokens=9).labels.tolist() in ([], ["c"])


@pytest.mark.parametrize(
    ("query", "settings", "error", "message"),
    [
        (OD, {"allowed_labels": []}, ArgumentError, "empty list"),
        (OD, {"allowed_labels": "cat,dog"}, ArgumentTypeError, "'cat,dog'"),
        (OD, {"allowed_labels": ["cat", 3]}, ArgumentTypeError, "3"),
        (OD, {"allowed_labels": range(3)}, ArgumentTypeError, "0"),
        (OD, {"allowed_labels": ["cat", " "]}, ArgumentError, "' '"),
        (OD, {"allowed_labels": ["cat<loc_5>"]}, ArgumentError, "<loc_5>"),
        (OD, {"allowed_labels": ["cat<loc_5000>"]}, ArgumentError, "<loc_5000>"),
        (OD, {"allowed_labels": ["a<sep>"]}, ArgumentError, "<sep>"),
        (OD, {"allowed_labels": ["</s>"]}, ArgumentError, "</s>"),
        (OD, {"allowed_labels": ["\udcff"]}, ArgumentError, "surrogate"),
        (OD, {"allowed_labels": ["cat"], "constrain": False}, ArgumentError, "constrain=False"),
        ("<OCR>", {"allowed_labels": ["a"], "allowed_characters": "a"}, ArgumentError, "give one of them"),
        (PROPOSAL, {"allowed_labels": ["cat"]}, ArgumentError, PROPOSAL),
        (REFER, {"allowed_labels": ["cat"]}, ArgumentError, REFER),
        (GROUND, {"allowed_labels": ["it"]}, ArgumentError, "'it'"),
        (OD, DIGITS, ArgumentError, OD),
        (REFER, DIGITS, ArgumentError, REFER),
        ("<OCR>", {"allowed_characters": ""}, ArgumentError, "''"),
        ("<OCR>", {"allowed_characters": " \n"}, ArgumentError, "visible"),
        ("<OCR>", {"allowed_characters": ["0"]}, ArgumentTypeError, "allowed_characters"),
        ("<OCR>", {"constrain": "yes"}, ArgumentTypeError, "'yes'"),
        ("<OCR>", {"allowed_label": ["a"]}, ArgumentError, "allowed_labels"),
    ],
)
def test_what_cannot_restrict_an_answer_is_refused_before_the_model_runs(
    small, monkeypatch, query, settings, error, message
):
    monkeypatch.setattr(small, "image_encoder", None)
    text = INPUTS[TASKS[query].input]
    for ask in (
        lambda: small.predict(PHOTO, query, text, **settings),
        lambda: small.predict_tasks(PHOTO, [(query, text)], **settings),
        lambda: small.predict_batch([PHOTO], query, text, **settings),
        lambda: small.stream(PHOTO, query, text, **settings),
    ):
        with pytest.raises(error, match=message.replace("(", ".")):
            ask()


@pytest.mark.parametrize("result", ["text", "boxes", "grounding", "boxes_or_polygons", "quads", "polygons"])
def test_registered_tasks_are_constrained_by_their_kind_of_result(small, encoded_photo, result):
    task = register_task(Task("<MINE>", "Locate {input}", "phrase", result, "mine", coco_label="category"))
    try:
        settings = {"max_new_tokens": 60, "sequence_bias": [[[2], 4.0]], "min_new_tokens": 12}
        answer = small.predict(encoded_photo, "<MINE>", "a cat and a dog", constrain=True, **settings)
        labelled = small.predict(encoded_photo, "<MINE>", "a cat", **settings, **LABELS)
    finally:
        del TASKS["<MINE>"]
    if not answer.truncated:
        validate_target(answer.raw, Prompt.from_task(task, "a cat and a dog"))
    texts = {labelled.text} if result == "text" else set(labelled.labels.tolist())
    assert texts <= {*LABELS["allowed_labels"], ""}
    assert labelled.raw


def test_characters_of_the_callers_choice_may_be_many(small, encoded_photo):
    settings = {"num_beams": 1, "max_new_tokens": 20, "min_new_tokens": 18}
    result = small.predict(encoded_photo, "<OCR>", allowed_characters=string.ascii_lowercase + " é€犬", **settings)
    assert result.text.rstrip("\ufffd")
    assert set(result.text.rstrip("\ufffd")) <= set(string.ascii_lowercase + " é€犬")
