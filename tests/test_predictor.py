"""`Predictor`: one look at a picture, many questions; batches and streams that say the same; settings, scores, errors."""

import copy
import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from support import PHOTO
from PIL import Image

from florence_lab import ImageError, load_image
from florence_lab.predictor import Predictor, load
from florence_lab.results import Text
from florence_lab.tasks import TASKS
from florence_lab.template.confidence import LOCATION_TOLERANCE

INPUTS = {"none": None, "phrase": "a cat", "region": (10, 20, 200, 150)}
SHORT = {"max_new_tokens": 24}


@pytest.fixture(scope="module")
def cat(small):
    return small.encode_image(PHOTO)


@pytest.fixture
def tower_runs(small):
    """A list that grows with every run of the vision tower, by the number of pictures in it."""
    runs = []
    hook = small.model.model.vision_tower.register_forward_hook(lambda _, args, __: runs.append(len(args[0])))
    yield runs
    hook.remove()


@pytest.fixture
def generated(small, monkeypatch):
    """What went into `generate` and what came out, call by call."""
    calls = []
    generate = small.model.generate

    def spy(**settings):
        calls.append((settings, generate(**settings)))
        return calls[-1][1]

    monkeypatch.setattr(small.model, "generate", spy)
    return calls


def assert_same(one, other):
    assert type(one) is type(other)
    assert (one.raw, one.prompt, one.image_size) == (other.raw, other.prompt, other.image_size)
    if isinstance(one, Text):
        assert one.text == other.text
        return
    assert one.labels == other.labels
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-3)
    np.testing.assert_allclose(one._extents(), other._extents())


# ---------------------------------------------------------------------- encode once


def test_all_tasks_on_one_encoded_image(small, tower_runs):
    picture = small.encode_image(PHOTO)
    assert picture.image.size == (451, 300)
    assert picture.tokens.shape == (1, 37, 32)
    for task in TASKS.values():
        result = small.predict(picture, task.token, INPUTS[task.input], max_new_tokens=8)
        assert (result.task, result.image_size) == (task.token, (451, 300))
    assert len(TASKS) == 15
    assert tower_runs == [1]


def test_an_encoded_image_is_not_encoded_again(small, cat):
    assert small.encode_image(cat) is cat


def test_a_picture_and_its_encoding_give_the_same(small, cat):
    assert_same(small.predict(PHOTO, "<OD>", **SHORT), small.predict(cat, "<OD>", **SHORT))


def test_the_result_carries_its_picture(small, cat):
    assert small.predict(cat, "<CAPTION>", max_new_tokens=4).image is cat.image


# ---------------------------------------------------------------------- batches


@pytest.fixture(scope="module")
def pictures(small, cat):
    """Of different sizes; the second is already encoded."""
    image = cat.image
    return [image, small.encode_image(image.rotate(90, expand=True)), image.crop((0, 0, 100, 80))]


@pytest.mark.parametrize("generation", [{"num_beams": 1}, {}, {"num_beams": 2}])
def test_a_batch_is_answered_as_one_by_one(small, pictures, generation):
    texts = ["cat", "the whiskers of a very sleepy cat on a blanket", "an ear"]  # prompts of different lengths
    task = "<CAPTION_TO_PHRASE_GROUNDING>"
    together = small.predict_batch(pictures, task, texts, **SHORT, **generation)
    assert [result.phrase for result in together] == texts
    for result, picture, text in zip(together, pictures, texts, strict=True):
        assert_same(result, small.predict(picture, task, text, **SHORT, **generation))


def test_a_batch_larger_than_fits_at_once(small, pictures):
    one_for_all = small.predict_batch(pictures, "<OPEN_VOCABULARY_DETECTION>", "cat", batch_size=2, **SHORT)
    in_one_go = small.predict_batch(pictures, "<OPEN_VOCABULARY_DETECTION>cat", **SHORT)
    assert len(one_for_all) == len(in_one_go) == 3
    for one, other in zip(one_for_all, in_one_go, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("region", [(10, 20, 90, 70), [10, 20, 90, 70], np.array([10, 20, 90, 70])])
def test_one_region_for_all(small, pictures, region):
    results = small.predict_batch(pictures, "<REGION_TO_CATEGORY>", region, max_new_tokens=4)
    assert len({result.phrase for result in results}) == 3  # the same pixels are other bins of other sizes
    assert small.predict(pictures[2], "<REGION_TO_CATEGORY>", region, max_new_tokens=4).phrase == results[2].phrase
    assert results[2].phrase == "<loc_100><loc_250><loc_900><loc_875>"


def test_one_region_each(small, pictures):
    regions = [(10, 20, 90, 70), [0, 0, 50, 50], "<loc_1><loc_2><loc_3><loc_4>"]
    results = small.predict_batch(pictures, "<REGION_TO_CATEGORY>", regions, max_new_tokens=4)
    assert results[1].phrase == "<loc_0><loc_0><loc_166><loc_110>"
    assert results[2].phrase == "<loc_1><loc_2><loc_3><loc_4>"


def test_a_folder_is_answered_by_name(small, tmp_path):
    for name, angle in (("b.png", 90), ("a.jpg", 0), ("c.PNG", 180)):
        load_image(PHOTO).rotate(angle).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    answers = small.predict_batch(tmp_path, "<OD>", batch_size=2, **SHORT)
    assert len(answers) == 3
    for answer, name in zip(answers, ("a.jpg", "b.png", "c.PNG"), strict=True):
        assert_same(answer, small.predict(tmp_path / name, "<OD>", **SHORT))


def test_a_folder_without_pictures(small, tmp_path):
    with pytest.raises(ValueError, match="holds no pictures"):
        small.predict_batch(tmp_path, "<OD>")
    with pytest.raises(ValueError, match="is no folder"):
        small.predict_batch(tmp_path / "missing", "<OD>")


def test_pictures_are_opened_only_a_little_ahead(small, cat):
    """Of an endless stream of pictures no more is in memory than a few batches."""
    given = []

    def endless():
        while True:
            given.append(None)
            yield cat.image

    answers = small.predict_iter(endless(), "<CAPTION>", batch_size=2, **SHORT)
    for number in range(1, 8):
        next(answers)
        assert number <= len(given) <= number + 2 + 2 * 2 + 1
    answers.close()


def test_texts_of_an_iterator(small, pictures):
    texts = ["cat", "an ear", "a very sleepy cat"]
    answers = small.predict_batch(iter(pictures), "<OPEN_VOCABULARY_DETECTION>", texts, **SHORT)
    assert [answer.phrase for answer in answers] == texts


def test_an_empty_batch(small):
    assert small.predict_batch([], "<OD>") == []


def test_texts_that_do_not_match(small, pictures):
    with pytest.raises(ValueError, match="3 images, but 2 texts"):
        small.predict_batch(pictures, "<OPEN_VOCABULARY_DETECTION>", ["a cat", "an ear"])


@pytest.mark.parametrize("generation", [{}, {"num_beams": 3}])
def test_many_questions_are_answered_as_one_by_one(small, cat, generation, monkeypatch):
    questions = [token if task.input == "none" else (token, INPUTS[task.input]) for token, task in TASKS.items()]
    alone = [small.predict(cat, *([q] if isinstance(q, str) else q), **SHORT, **generation) for q in questions]
    monkeypatch.setattr(small.model, "get_image_features", None)  # `cat` is encoded already
    together = small.predict_tasks(cat, questions, batch_size=7, **SHORT, **generation)
    for result, one in zip(together, alone, strict=True):
        assert_same(result, one)
    assert small.predict_tasks(cat, []) == []


def test_a_wrong_question_among_many_is_found_before_any_is_asked(small, monkeypatch):
    monkeypatch.setattr(small.model, "get_image_features", None)
    with pytest.raises(ValueError, match="<OPEN_VOCABULARY_DETECTION>"):
        small.predict_tasks(Image.new("RGB", (9, 9)), ["<OD>", "<OPEN_VOCABULARY_DETECTION>"])


# ---------------------------------------------------------------------- streams


@pytest.mark.parametrize("task", ["<OD>", "<CAPTION>", "<OCR_WITH_REGION>", "<CAPTION_TO_PHRASE_GROUNDING>"])
def test_a_stream_grows_into_the_answer(small, cat, task):
    text = INPUTS[TASKS[task].input]
    results = list(small.stream(cat, task, text, max_new_tokens=60))
    assert_same(results[-1], small.predict(cat, task, text, num_beams=1, max_new_tokens=60))
    assert len(results) > 2
    if task == "<CAPTION>":
        texts = [result.text for result in results]
        assert all(later.startswith(earlier) and later != earlier for earlier, later in pairwise(texts[:-1]))
        return
    counts = [len(result) for result in results]
    assert counts == [*range(1, counts[-1] + 1), *counts[len(set(counts)) :]]  # one by one
    for result in results[:-1]:
        assert result.labels == results[-1].labels[: len(result)]
        np.testing.assert_allclose(result.scores, results[-1].scores[: len(result)], rtol=1e-4)
        np.testing.assert_array_equal(result._extents(), results[-1]._extents()[: len(result)])


def scripted(predictor, monkeypatch, text):
    """Has the model answer with that text."""
    ids = predictor.processor.tokenizer(text, add_special_tokens=False).input_ids

    def generate(streamer, **_):
        for token in [2, 0, *ids, 2]:
            streamer.put(torch.tensor([token]))

    monkeypatch.setattr(predictor.model, "generate", generate)
    return ids


def test_a_box_is_shown_with_its_last_coordinate(small, cat, monkeypatch):
    scripted(small, monkeypatch, "cat<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>ear<loc_9>")
    raws = [result.raw for result in small.stream(cat, "<OD>")]
    assert raws[0] == "cat<loc_1><loc_2><loc_3><loc_4>"
    assert raws[1] == "cat<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>"
    assert len(raws) == 3  # and the whole


@pytest.mark.parametrize("task", ["<REFERRING_EXPRESSION_SEGMENTATION>", "<OPEN_VOCABULARY_DETECTION>"])
def test_a_polygon_is_shown_when_it_can_grow_no_more(small, cat, monkeypatch, task):
    square, triangle = (4 * "<loc_1><loc_9>", 3 * "<loc_2><loc_5>")
    scripted(small, monkeypatch, f"<poly>{square}<sep>{triangle}</poly><poly>{square}</poly>")
    results = list(small.stream(cat, task, "a cat"))
    assert [[len(outline) for outline in outlines] for outlines in results[-1].polygons] == [[4, 3], [4]]
    for result in results:
        assert [[len(o) for o in outlines] for outlines in result.polygons] == [[4, 3], [4]][: len(result)]


def test_half_a_character_is_not_shown(small, cat, monkeypatch):
    ids = scripted(small, monkeypatch, "ü 鼠 ok")
    assert len(ids) > 6  # so there are halves
    results = list(small.stream(cat, "<CAPTION>"))
    assert results[-1].text == "ü 鼠 ok"
    assert all("\ufffd" not in result.text + result.raw for result in results)


def decoder_steps(small):
    steps = []
    decoder = small.model.model.language_model.decoder
    return steps, decoder.register_forward_hook(lambda *_: steps.append(threading.current_thread()))


def test_leaving_a_stream_stops_the_generation(small, cat):
    steps, hook = decoder_steps(small)
    for _ in small.stream(cat, "<CAPTION>", max_new_tokens=1000):
        break
    done = len(steps)
    worker = steps[0]
    assert worker is not threading.current_thread()
    assert not worker.is_alive()
    assert done < 100
    hook.remove()


def test_closing_before_the_first_result_starts_nothing(small, cat):
    steps, hook = decoder_steps(small)
    small.stream(cat, "<CAPTION>").close()
    assert steps == []
    hook.remove()


def test_an_error_in_the_generation_reaches_the_caller(small, cat, monkeypatch):
    def broken(**_):
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(small.model, "generate", broken)
    with pytest.raises(RuntimeError, match="out of memory, say"):
        list(small.stream(cat, "<CAPTION>"))


def test_an_error_outside_the_generation_stops_it(small, cat, monkeypatch):
    steps, hook = decoder_steps(small)

    def broken(*_, **__):
        raise RuntimeError("a bug in parsing")

    monkeypatch.setattr(type(small.template), "parse", broken)
    with pytest.raises(RuntimeError, match="a bug in parsing") as caught:
        list(small.stream(cat, "<CAPTION>", max_new_tokens=1000))
    assert caught.tb is not None  # whoever holds the error holds the frames too
    assert not any(worker.is_alive() for worker in steps)
    assert len(steps) < 100
    hook.remove()


def test_beams_are_not_streamed(small, cat):
    with pytest.raises(ValueError, match="can't be streamed with num_beams=3"):
        small.stream(cat, "<OD>", num_beams=3)  # at once, not with the first result


# ---------------------------------------------------------------------- scores


@torch.inference_mode()
def expected_scores(predictor, picture, prompt, sequence):
    """The docstring's formula for `<OD>`, from the logits of the model itself."""
    tokenizer = predictor.processor.tokenizer
    embeddings = predictor.model.get_input_embeddings()(torch.tensor([tokenizer(prompt).input_ids]))
    logits = predictor.model(
        inputs_embeds=torch.cat([picture.tokens, embeddings], 1), decoder_input_ids=sequence[None, :-1]
    ).logits[0, :, :-1]  # without <image>
    probabilities = logits.double().softmax(-1).numpy()
    first = tokenizer.convert_tokens_to_ids("<loc_0>")
    scores, label, place, was_location = [], 1.0, [], False
    for step, token in enumerate(sequence[1:].tolist()):
        if not 0 <= token - first < 1000:
            # words behind a box begin a new label, words behind words go on with it
            label = (1.0 if was_location else label) * probabilities[step, token] if token > 2 else label
            place, was_location = [], False
            continue
        was_location = True
        place.append((token - first, probabilities[step, first : first + 1000]))
        if len(place) == 4:
            xyxy = np.array([n for n, _ in place])
            tolerance = np.maximum(1, LOCATION_TOLERANCE * np.abs(xyxy[2:] - xyxy[:2]))
            masses = [
                sum(p[max(0, int(np.ceil(n - t))) : int(np.floor(n + t)) + 1])
                for (n, p), t in zip(place, [*tolerance, *tolerance], strict=True)
            ]
            scores.append(label * np.prod(masses))
            place = []
    return scores


def test_scores_are_the_formula_on_the_models_probabilities(small, cat, generated):
    result = small.predict(cat, "<OD>", num_beams=1, max_new_tokens=80)
    scores = expected_scores(small, cat, result.prompt, generated[0][1][0])
    assert len(result.scores) == len(scores) > 3
    np.testing.assert_allclose(result.scores, scores, rtol=1e-4)


def test_the_place_of_the_image_takes_no_probability(small, cat):
    model = copy.deepcopy(small.model)
    words = model.get_input_embeddings().weight
    words.data[model.config.image_token_id] = 9 * words.data.mean(dim=0)  # as if it were trained, to be likely
    result = Predictor(model, small.processor).predict(cat, "<OD>", num_beams=1, max_new_tokens=80)
    known = small.predict(cat, "<OD>", num_beams=1, max_new_tokens=80)
    assert result.raw == known.raw
    np.testing.assert_allclose(result.scores, known.scores, rtol=1e-5)


@pytest.mark.parametrize("generation", [{"num_beams": 1}, {"num_beams": 3}, {"do_sample": True, "temperature": 3.0}])
def test_every_instance_has_a_score(small, cat, generation):
    torch.manual_seed(0)
    result = small.predict(cat, "<OD>", max_new_tokens=80, **generation)
    assert len(result.scores) == len(result.labels) == len(result.boxes) > 0
    assert np.isfinite(result.scores).all()
    assert ((result.scores >= 0) & (result.scores <= 1)).all()


def test_a_batch_scores_each_by_its_own_picture(small, pictures):
    together = small.predict_batch(pictures, "<OD>", num_beams=1, max_new_tokens=60)
    for result, picture in zip(together, pictures, strict=True):
        np.testing.assert_allclose(
            result.scores, small.predict(picture, "<OD>", num_beams=1, max_new_tokens=60).scores, rtol=1e-3
        )


# ---------------------------------------------------------------------- settings


def test_the_checkpoints_settings_are_used(small, cat, generated):
    for generation in ({}, {"num_beams": 3}, {"num_beams": 1}):
        small.predict(cat, "<OD>", **SHORT, **generation)
    default, beams, greedy_search = (output[0].tolist() for _, output in generated)
    assert default == beams != greedy_search
    assert default[:2] == [2, 0]  # forced_bos_token_id
    assert default[-1] == 2  # forced_eos_token_id


@pytest.mark.parametrize("generation", [{"max_new_tokens": 5}, {"max_length": 6}])
def test_the_length_can_be_set(small, cat, generated, generation):
    small.predict(cat, "<OD>", **generation)
    assert len(generated[0][1][0]) == 6  # with the start token


def test_the_models_own_length_is_obeyed(small, cat, generated, monkeypatch):
    monkeypatch.setattr(small.model.generation_config, "max_new_tokens", 7)
    small.predict(cat, "<OD>")
    assert len(generated[0][1][0]) == 8


def test_other_settings_reach_the_generation(small, cat, generated):
    small.predict(cat, "<OD>", num_beams=1, no_repeat_ngram_size=1, **SHORT)
    tokens = generated[0][1][0].tolist()[1:-1]
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize(("asked", "used"), [(5000, 1024), (None, 1024), (9, 9)])
def test_no_answer_is_longer_than_the_models_positions(small, cat, monkeypatch, asked, used):
    settings = {}

    def generate(**given):
        settings.update(given)
        return torch.tensor([[2, 0, 2]])

    monkeypatch.setattr(small.model, "generate", generate)
    small.predict(cat, "<CAPTION>", max_new_tokens=asked)
    assert settings["max_new_tokens"] == used


def test_the_longest_answer(small, cat):
    model = copy.deepcopy(small.model)
    model.config.text_config.max_position_embeddings = 100
    positions = model.model.language_model.decoder.embed_positions
    positions.weight = torch.nn.Parameter(positions.weight[:102])  # BART keeps two more
    result = Predictor(model, small.processor).predict(cat, "<OD>", num_beams=1, min_new_tokens=99)
    assert len(result.scores) == len(result) > 0  # and no position was missing


def test_sampling_is_one_answer_by_chance(small, cat, generated):
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        small.predict(cat, "<OD>", do_sample=True, temperature=5.0, **SHORT)
    first, again, other = (output[0].tolist() for _, output in generated)
    assert first == again != other
    assert generated[0][0]["num_beams"] == 1


# ---------------------------------------------------------------------- devices and dtypes


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "auto", torch.bfloat16])
def test_dtypes(small, dtype):
    predictor = load(small.name, device="cpu", dtype=dtype)
    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, torch.bfloat16: torch.bfloat16}
    assert predictor.model.dtype in ({known[dtype]} if dtype != "auto" else {torch.float32, torch.bfloat16})
    assert predictor.encode_image(PHOTO).tokens.dtype == predictor.model.dtype
    result = predictor.predict(PHOTO, "<OD>", max_new_tokens=40)
    assert len(result) > 0
    assert np.isfinite(result.scores).all()


@pytest.mark.parametrize("dtype", ["int8", "float", torch.int64, None])
def test_unknown_dtypes(small, dtype):
    with pytest.raises(ValueError, match=r"unknown dtype .*: give fp32, fp16, bf16 or auto"):
        load(small.name, dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "xpu:7"])
def test_unknown_devices(device):
    with pytest.raises(ValueError, match=f"no device '{device}': give auto, cpu, cuda") as caught:
        load("/there/is/no/such/folder/even", device=device)  # said before anything is read
    assert "\n" not in str(caught.value)


def test_auto_picks_a_device_that_is_there(small):
    assert load(small.name).model.device.type in ("cpu", "cuda", "mps")


# ---------------------------------------------------------------------- mistakes cost nothing


@pytest.mark.parametrize("ask", ["predict", "stream"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("<ODD>",), "unknown task '<ODD>'; did you mean '<OD>'"),
        ((None,), "a task is a string such as '<OD>', but got None"),
        (("",), "a free question needs a phrase"),
        (("<OPEN_VOCABULARY_DETECTION>",), "needs a phrase"),
        (("<OD>", "a cat"), "takes no input"),
        (("<REGION_TO_OCR>", [1, 2, 3]), r"takes a region: .*; got \[1, 2, 3\]"),
        (("<REGION_TO_OCR>", (0, 0, 999, 10)), "reaches outside the picture, which is 451 x 300"),
        (("<OPEN_VOCABULARY_DETECTION>", "cat " * 999), "the prompt has .* tokens; beside a picture .* at most 987"),
    ],
)
def test_bad_questions(small, tower_runs, ask, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(small, ask)(PHOTO, *arguments)
    assert tower_runs == []


@pytest.mark.parametrize("ask", ["predict", "stream"])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_new_token": 5}, "'max_new_token' is no setting .*; did you mean 'max_new_tokens'"),
        ({"zzz": 5}, "'zzz' is no setting for the generation of one answer$"),
        ({"num_return_sequences": 2}, "'num_return_sequences' is no setting for the generation of one answer$"),
    ],
)
def test_unknown_settings(small, tower_runs, ask, setting, message):
    with pytest.raises(ValueError, match=message):
        getattr(small, ask)(PHOTO, "<OD>", **setting)
    assert tower_runs == []


def test_a_length_of_nothing(small, cat):
    with pytest.raises(ValueError, match="must be greater than 0"):
        small.predict(cat, "<OD>", max_new_tokens=0)


def test_one_bad_picture_in_a_batch(small, tmp_path):
    """It has its error in its own row; the others are answered as if it were not there."""
    rows = small.predict_batch([PHOTO, tmp_path / "missing.png", PHOTO], "<OD>", batch_size=2, **SHORT)
    assert isinstance(rows[1], ImageError)
    assert "missing.png does not exist" in str(rows[1])
    for row in (rows[0], rows[2]):
        assert_same(row, small.predict(PHOTO, "<OD>", **SHORT))


def test_one_bad_region_in_a_batch(small):
    rows = small.predict_batch([PHOTO, Image.new("RGB", (9, 9))], "<REGION_TO_OCR>", (0, 0, 10, 10), **SHORT)
    assert "which is 9 x 9" in str(rows[1])
    assert_same(rows[0], small.predict(PHOTO, "<REGION_TO_OCR>", (0, 0, 10, 10), **SHORT))


def test_nothing_but_bad_pictures(small, tmp_path):
    rows = small.predict_batch([tmp_path / "a.png", tmp_path / "b.png"], "<OD>")
    assert [type(row) for row in rows] == [ImageError] * 2


@pytest.mark.parametrize(
    ("task", "text", "reason"),
    [("<OO>", None, "<OD>"), ("<REGION_TO_OCR>", (1, 2), "region"), ("<OD>", "a cat", "takes no")],
)
def test_a_mistake_in_the_question_is_told_before_a_picture_is_opened(small, task, text, reason):
    def never():
        raise AssertionError("a picture was asked for")
        yield

    with pytest.raises(ValueError, match=reason):
        small.predict_iter(never(), task, text)


def test_how_a_predictor_looks(small):
    assert repr(small) == f"Predictor({small.name!r}, 0.5 M parameters, torch.float32, cpu)"
