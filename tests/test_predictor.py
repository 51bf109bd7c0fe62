"""`Predictor`: encode once, predict, batches, streams, errors."""

import copy
import gc
import logging
import pickle
import time
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from support import PHOTO

from florence_lab import (
    ArgumentError,
    ArgumentTypeError,
    Boxes,
    EncodedImage,
    FlorenceLabWarning,
    ImageError,
    PromptError,
    Result,
    load_image,
)
from florence_lab.exceptions import capture_warnings
from florence_lab.inference import preprocessing, streaming
from florence_lab.interpret import trace
from florence_lab.predictor import Predictor, load
from florence_lab.results import Text
from florence_lab.scenes import sample_path
from florence_lab.tasks import TASKS

INPUTS = {"none": None, "phrase": "a cat", "region": (10, 20, 200, 150)}
SHORT = {"max_new_tokens": 24}
OPEN, REGION = "<OPEN_VOCABULARY_DETECTION>", "<REGION_TO_CATEGORY>"


@pytest.fixture(scope="module")
def cat(small):
    return small.encode_image(PHOTO)


@pytest.fixture
def encoder_runs(small):
    """A list that grows with every run of the image encoder, by the number of images in it."""
    runs = []
    hook = small.model.model.vision_tower.register_forward_hook(lambda _, args, __: runs.append(len(args[0])))
    yield runs
    hook.remove()


def assert_same(one, other):
    assert type(one) is type(other)
    assert (one.raw, one.prompt, one.image_size) == (other.raw, other.prompt, other.image_size)
    if isinstance(one, Text):
        assert one.text == other.text
        return
    assert one.labels.tolist() == other.labels.tolist()
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-3)
    np.testing.assert_allclose(one.xyxy, other.xyxy)


def test_all_tasks_are_answered_from_one_encoded_image(small, encoder_runs):
    encoded = small.encode_image(PHOTO)
    assert encoded.size == encoded.image.size == (451, 300)
    assert encoded.tokens.shape == (1, 37, 32)
    for task in TASKS.values():
        result = small.predict(encoded, task.token, INPUTS[task.input], max_new_tokens=8)
        assert (result.task, result.image_size) == (task.token, (451, 300))
    assert encoder_runs == [1]


def test_an_encoded_image_is_returned_as_it_is(small, cat):
    assert small.encode_image(cat) is cat


def test_an_image_and_its_encoding_give_the_same_result(small, cat):
    assert_same(small.predict(PHOTO, "<OD>", **SHORT), small.predict(cat, "<OD>", **SHORT))


def test_a_result_carries_its_image(small, cat):
    assert small.predict(cat, "<CAPTION>", max_new_tokens=4).image is cat.image


@pytest.mark.parametrize("method", ["encode_image", "predict", "predict_tasks", "predict_batch", "stream"])
def test_an_image_encoded_by_another_model_is_refused(small, nano, cat, method):
    arguments = {
        "encode_image": (cat,),
        "predict": (cat, "<OD>"),
        "predict_tasks": (cat, ["<OD>"]),
        "predict_batch": ([cat], "<OD>"),
        "stream": (cat, "<OD>"),
    }[method]
    with pytest.raises(ValueError, match=r"expects image tokens of shape .*, got \(1, 37, 32\); .* another model"):
        list(getattr(nano, method)(*arguments))


@pytest.fixture(scope="module")
def images(small, cat):
    """Three images of different sizes; the second is already encoded."""
    image = cat.image
    return [image, small.encode_image(image.rotate(90, expand=True)), image.crop((0, 0, 100, 80))]


@pytest.mark.parametrize("kwargs", [{"num_beams": 1}, {}, {"num_beams": 2}])
def test_a_batch_is_answered_as_one_by_one(small, images, kwargs):
    texts = ["cat", "the whiskers of a very sleepy cat on a blanket", "an ear"]  # prompts of different lengths
    task = "<CAPTION_TO_PHRASE_GROUNDING>"
    together = small.predict_batch(images, task, texts, **SHORT, **kwargs)
    assert [result.phrase for result in together] == texts
    for result, image, text in zip(together, images, texts, strict=True):
        assert_same(result, small.predict(image, task, text, **SHORT, **kwargs))


def test_the_size_of_a_batch_does_not_change_results(small, images):
    in_parts = small.predict_batch(images, OPEN, "cat", batch_size=2, **SHORT)
    at_once = small.predict_batch(images, f"{OPEN}cat", **SHORT)
    assert len(in_parts) == len(at_once) == 3
    for one, other in zip(in_parts, at_once, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("region", [(10, 20, 90, 70), [10, 20, 90, 70], np.array([10, 20, 90, 70])])
def test_one_region_for_all_images_is_in_the_pixels_of_each(small, images, region):
    results = small.predict_batch(images, REGION, region, max_new_tokens=4)
    assert len({result.phrase for result in results}) == 3  # the same pixels are other bins in images of other sizes
    assert small.predict(images[2], REGION, region, max_new_tokens=4).phrase == results[2].phrase
    assert results[2].phrase == "<loc_100><loc_250><loc_900><loc_875>"


def test_a_batch_takes_one_region_for_each_image(small, images):
    regions = [(10, 20, 90, 70), [0, 0, 50, 50], "<loc_1><loc_2><loc_3><loc_4>"]
    results = small.predict_batch(images, REGION, regions, max_new_tokens=4)
    assert results[1].phrase == "<loc_0><loc_0><loc_166><loc_110>"
    assert results[2].phrase == "<loc_1><loc_2><loc_3><loc_4>"


def test_the_images_of_a_folder_are_answered_in_the_order_of_their_names(small, tmp_path):
    for name, angle in (("b.png", 90), ("a.jpg", 0), ("c.PNG", 180)):
        load_image(PHOTO).rotate(angle).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.warns(FlorenceLabWarning, match="notes.txt"):
        results = small.predict_batch(tmp_path, "<OD>", batch_size=2, **SHORT)
    assert len(results) == 3
    for result, name in zip(results, ("a.jpg", "b.png", "c.PNG"), strict=True):
        assert_same(result, small.predict(tmp_path / name, "<OD>", **SHORT))


def test_images_are_read_at_most_a_few_batches_ahead(small, cat):
    read = []

    def endless():
        while True:
            read.append(None)
            yield cat.image

    results = small.predict_iter(endless(), "<CAPTION>", batch_size=2, **SHORT)
    for number in range(1, 8):
        next(results)
        assert number <= len(read) <= number + 2 + 2 * 2 + 1
    results.close()


def test_texts_are_matched_with_the_images_of_an_iterator(small, images):
    texts = ["cat", "an ear", "a very sleepy cat"]
    results = small.predict_batch(iter(images), OPEN, texts, **SHORT)
    assert [result.phrase for result in results] == texts


def test_an_empty_batch_gives_no_results(small):
    assert small.predict_batch([], "<OD>") == []
    assert small.predict_tasks(PHOTO, []) == []


def test_images_need_not_be_kept(small):
    results = small.predict_iter((Image.new("RGB", (9, 9)) for _ in range(2)), "<OD>", keep_images=False, **SHORT)
    assert [result.image for result in results] == [None, None]


def test_images_that_are_not_kept_are_freed(small):
    references = []

    def images():
        for _ in range(6):
            image = Image.new("RGB", (9, 9))
            references.append(weakref.ref(image))
            yield image

    results = small.predict_batch(images(), "<CAPTION>", batch_size=2, keep_images=False, max_new_tokens=2)
    gc.collect()
    assert len(results) == 6
    assert [reference() for reference in references] == [None] * 6


@pytest.mark.parametrize("kwargs", [{}, {"num_beams": 3}])
def test_many_tasks_are_answered_as_one_by_one(small, cat, kwargs, monkeypatch):
    tasks = [token if task.input == "none" else (token, INPUTS[task.input]) for token, task in TASKS.items()]
    alone = [small.predict(cat, *([t] if isinstance(t, str) else t), **SHORT, **kwargs) for t in tasks]
    monkeypatch.setattr(small.model, "get_image_features", None)  # `cat` is already encoded
    together = small.predict_tasks(cat, tasks, batch_size=7, **SHORT, **kwargs)
    for result, one in zip(together, alone, strict=True):
        assert_same(result, one)


@pytest.mark.parametrize("task", ["<OD>", "<CAPTION>", "<OCR_WITH_REGION>", "<CAPTION_TO_PHRASE_GROUNDING>"])
def test_a_stream_grows_into_the_result(small, cat, task):
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
        assert result.labels.tolist() == results[-1].labels[: len(result)].tolist()
        np.testing.assert_allclose(result.scores, results[-1].scores[: len(result)], rtol=1e-4)
        np.testing.assert_array_equal(result.xyxy, results[-1].xyxy[: len(result)])


def script(predictor, monkeypatch, text):
    """Let the model generate a given text."""
    ids = [0, *predictor.processor.tokenizer(text, add_special_tokens=False).input_ids, 2]
    steps = [(token, i == len(ids) - 1) for i, token in enumerate(ids)]
    monkeypatch.setattr(predictor.model, "generate", lambda **_: iter(steps))
    monkeypatch.setattr(streaming.StreamStep, "probabilities", None)
    return ids


def test_a_box_is_streamed_with_its_last_coordinate(small, cat, monkeypatch):
    script(small, monkeypatch, "cat<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>ear<loc_9>")
    raws = [result.raw for result in small.stream(cat, "<OD>")]
    assert raws[0] == "cat<loc_1><loc_2><loc_3><loc_4>"
    assert raws[1] == "cat<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>"
    assert len(raws) == 3  # and the complete answer


@pytest.mark.parametrize("task", ["<REFERRING_EXPRESSION_SEGMENTATION>", "<OPEN_VOCABULARY_DETECTION>"])
def test_a_polygon_is_streamed_when_it_is_complete(small, cat, monkeypatch, task):
    square, triangle = (4 * "<loc_1><loc_9>", 3 * "<loc_2><loc_5>")
    script(small, monkeypatch, f"<poly>{square}<sep>{triangle}</poly><poly>{square}</poly>")
    results = list(small.stream(cat, task, "a cat"))
    assert [[len(polygon) for polygon in polygons] for polygons in results[-1].polygons] == [[4, 3], [4]]
    for result in results:
        assert [[len(p) for p in polygons] for polygons in result.polygons] == [[4, 3], [4]][: len(result)]


def test_an_incomplete_character_is_not_streamed(small, cat, monkeypatch):
    ids = script(small, monkeypatch, "ü 鼠 ok")
    assert len(ids) > 8  # some characters have several tokens
    results = list(small.stream(cat, "<CAPTION>"))
    assert results[-1].text == "ü 鼠 ok"
    assert all("\ufffd" not in result.text + result.raw for result in results)


@pytest.fixture
def decoder_steps(small):
    steps = []
    head = small.model.lm_head.register_forward_hook(lambda *_: steps.append(None))
    yield steps
    head.remove()


def test_leaving_a_stream_stops_the_generation(small, cat, decoder_steps):
    for _ in small.stream(cat, "<CAPTION>", max_new_tokens=1000):
        break
    assert 0 < len(decoder_steps) < 20


def test_closing_a_stream_before_its_first_result_generates_nothing(small, cat, decoder_steps):
    small.stream(cat, "<CAPTION>").close()
    assert decoder_steps == []


def test_an_error_of_the_generation_reaches_the_caller_of_a_stream(small, cat, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    hook = small.model.lm_head.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(small.stream(cat, "<CAPTION>"))
    hook.remove()


def test_beams_are_not_streamed(small, cat):
    with pytest.raises(ValueError, match="streaming supports num_beams=1 only, got 3"):
        small.stream(cat, "<OD>", num_beams=3)  # at once, not with the first result


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "auto", "float32", "bfloat16", "float16", torch.bfloat16])
def test_a_model_runs_in_its_dtype(small, dtype):
    predictor = load(small.name, device="cpu", dtype=dtype)
    names = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    name = str(dtype).removeprefix("torch.")
    assert str(predictor.model.dtype).removeprefix("torch.") in (
        {names.get(name, name)} if dtype != "auto" else {"float32", "bfloat16"}
    )
    assert predictor.encode_image(PHOTO).tokens.dtype == predictor.model.dtype
    result = predictor.predict(PHOTO, "<OD>", max_new_tokens=40)
    assert len(result) > 0
    assert np.isfinite(result.scores).all()


def test_the_dtype_that_auto_selects_is_logged(small, caplog):
    with caplog.at_level(logging.INFO, "florence_lab"):
        load(small.name, device="cpu", dtype="auto")
    assert "runs in" in caplog.text
    assert "float" in caplog.text


@pytest.mark.parametrize("method", ["predict", "stream"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("<ODD>",), "unknown task '<ODD>'; did you mean '<OD>'"),
        ((None,), "expected a task token such as '<OD>', or a question, but got None"),
        (("",), "a free-form question needs a phrase"),
        (("<OPEN_VOCABULARY_DETECTION>",), "needs a phrase"),
        (("<OD>", "a cat"), "takes no input"),
        (("<REGION_TO_OCR>", [1, 2, 3]), r"takes a region: .*; got \[1, 2, 3\]"),
        (("<REGION_TO_OCR>", (0, 0, 999, 10)), "of an image of 451 x 300 pixels lies partly outside the image"),
        (("<OPEN_VOCABULARY_DETECTION>", "cat " * 999), "the prompt has .* tokens; the model accepts at most 987"),
    ],
)
def test_a_wrong_prompt_is_refused_before_the_model_runs(small, encoder_runs, method, arguments, message):
    with pytest.raises(PromptError, match=message):
        getattr(small, method)(PHOTO, *arguments)
    assert encoder_runs == []


@pytest.mark.parametrize("method", ["predict", "stream"])
def test_an_unknown_generation_argument_is_refused_before_the_model_runs(small, encoder_runs, method):
    with pytest.raises(ValueError, match="unknown generation argument 'max_new_token'; did you mean"):
        getattr(small, method)(PHOTO, "<OD>", max_new_token=5)
    assert encoder_runs == []


def test_a_wrong_prompt_among_many_is_refused_before_the_model_runs(small, encoder_runs):
    with pytest.raises(PromptError, match="<OPEN_VOCABULARY_DETECTION>"):
        small.predict_tasks(Image.new("RGB", (9, 9)), ["<OD>", "<OPEN_VOCABULARY_DETECTION>"])
    assert encoder_runs == []


def test_the_name_of_a_task_is_not_a_question(small, cat):
    assert small.predict(cat, "od", max_new_tokens=4).task == "<OD>"
    assert small.predict_batch([cat], "Caption", max_new_tokens=4)[0].task == "<CAPTION>"


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(small, cat, batch_size):
    for call in (lambda n: small.predict_batch([cat], "<OD>", batch_size=n), lambda n: small.predict_tasks(cat, [], n)):
        with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
            call(batch_size)


def test_one_task_is_not_a_list_of_tasks(small, cat):
    with pytest.raises(ValueError, match="tasks must be a list of tasks, got '<OD>'"):
        small.predict_tasks(cat, "<OD>")


def test_a_single_image_is_a_batch_of_one(small, cat):
    expected = small.predict(cat, "<OD>", **SHORT)
    for image in (cat, cat.image, np.asarray(cat.image), PHOTO, str(PHOTO), PHOTO.read_bytes(), PHOTO.open("rb")):
        (result,) = small.predict_batch(image, "<OD>", **SHORT)
        assert_same(result, expected)


@pytest.mark.parametrize("images", [None, 7, {"a.png": 1}, object()])
def test_what_holds_no_images_is_refused(small, images):
    with pytest.raises(ArgumentTypeError, match="images must be a list of images, a folder or one image, got"):
        small.predict_batch(images, "<OD>")


def test_a_pattern_and_a_video_are_expanded(small, tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    assert len(small.predict_batch(str(tmp_path / "*.png"), "<OD>", max_new_tokens=2)) == 2
    (tmp_path / "clip.mp4").write_bytes(b"damaged")
    results = small.predict_batch(tmp_path, "<OD>", max_new_tokens=2)
    assert [type(result) for result in results] == [Boxes, Boxes, ImageError]
    assert "clip.mp4 cannot be read as a video" in str(results[2])


@pytest.mark.parametrize("num_good", [1, 2, 3])
def test_results_come_before_the_failure_of_the_source(small, cat, num_good):
    def source():
        yield from [cat] * num_good
        raise KeyError("of the caller")

    results = small.predict_iter(source(), "<OD>", batch_size=2, max_new_tokens=2)
    assert [type(next(results)) for _ in range(num_good)] == [Boxes] * num_good
    with pytest.raises(KeyError, match="of the caller"):
        next(results)


@pytest.mark.parametrize(
    ("num_texts", "message"), [(2, "at least 3 images, but 2 texts"), (4, "3 images, but 4 texts")]
)
def test_texts_that_do_not_match_an_iterator_fail_after_the_pairs(small, cat, num_texts, message):
    results = small.predict_iter(iter([cat] * 3), OPEN, ["a cat"] * num_texts, max_new_tokens=2)
    for _ in range(min(num_texts, 3)):
        assert isinstance(next(results), Boxes)
    with pytest.raises(ArgumentError, match=message):
        next(results)


def test_leaving_a_batch_does_not_wait_for_the_images_that_are_queued(small, monkeypatch):
    def slow_load(source):
        time.sleep(0.5)
        return Image.new("RGB", (9, 9))

    monkeypatch.setattr(preprocessing, "load_image", slow_load)
    results = small.predict_iter(["a.png"] * 50, "<OD>", batch_size=2, max_new_tokens=2)
    next(results)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 0.3


@pytest.mark.parametrize(
    ("kwargs", "is_truncated"),
    [({"max_new_tokens": 3}, True), ({"max_new_tokens": 3, "forced_eos_token_id": None}, True), ({}, False)],
)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_an_answer_that_ends_at_the_limit_is_truncated(nano, kwargs, is_truncated, num_beams):
    image = sample_path("sheep")
    with capture_warnings() as messages:
        result = nano.predict(image, "<OD>", num_beams=num_beams, **kwargs)
    assert result.truncated is is_truncated
    assert [message for message in messages if "truncated" in message] == [
        "the answer is truncated at max_new_tokens=3; see `result.truncated`"
    ] * is_truncated
    with capture_warnings():
        assert list(nano.stream(image, "<OD>", **kwargs))[-1].truncated is is_truncated


def test_an_answer_of_exactly_the_limit_is_complete(nano):
    image = sample_path("sheep")
    num_tokens = len(nano.template.tokenizer(nano.predict(image, "<CAPTION>", num_beams=1).raw).input_ids)
    lengths = [
        nano.predict(image, "<CAPTION>", num_beams=1, max_new_tokens=n).truncated for n in (num_tokens, num_tokens - 1)
    ]
    assert lengths == [False, True]


def test_one_warning_for_all_truncated_answers_of_a_call(small, cat):
    with capture_warnings() as messages:
        results = small.predict_batch([cat] * 5, "<CAPTION>", batch_size=2, max_new_tokens=2)
    assert all(result.truncated for result in results)
    assert messages == ["2 of 2 answers are truncated at max_new_tokens=2; see `result.truncated`"]


@pytest.mark.parametrize("change", ["dtype", "nan", "shape"])
def test_image_tokens_that_do_not_fit_are_refused(small, cat, change):
    tokens = {"dtype": cat.tokens.half(), "nan": cat.tokens * torch.nan, "shape": cat.tokens[:, 1:]}[change]
    with pytest.raises(ArgumentError, match="image tokens"):
        small.predict(EncodedImage(cat.image, tokens), "<OD>")


@pytest.mark.parametrize("method", ["predict", "stream", "predict_batch"])
def test_a_region_is_given_in_other_units(small, cat, method):
    def first(region, **options):
        results = getattr(small, method)(cat, REGION, region, max_new_tokens=2, **options)
        return results if isinstance(results, Result) else next(iter(results))

    width, height = cat.size
    pixels = first((width * 0.1, height * 0.2, width * 0.5, height * 0.6))
    assert first((0.1, 0.2, 0.5, 0.6), region_format="norm_1").phrase == pixels.phrase
    with pytest.raises(PromptError, match="norm_1"):
        first((0.1, 0.2, 0.5, 0.6))


def test_an_array_of_images_is_a_batch(small):
    assert len(small.predict_batch(np.zeros((2, 9, 9, 3), np.uint8), "<CAPTION>", max_new_tokens=2)) == 2


def test_a_folder_without_images_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match="contains no image files"):
        small.predict_batch(tmp_path, "<OD>")
    with pytest.raises(ImageError, match="missing' does not exist"):
        small.predict_batch(tmp_path / "missing", "<OD>")


def test_another_number_of_texts_than_of_images_is_refused(small, images):
    with pytest.raises(ValueError, match="3 images, but 2 texts"):
        small.predict_batch(images, OPEN, ["a cat", "an ear"])


def test_an_unreadable_image_in_a_batch_yields_its_error(small, tmp_path):
    results = small.predict_batch([PHOTO, tmp_path / "missing.png", PHOTO], "<OD>", batch_size=2, **SHORT)
    assert isinstance(results[1], ImageError)
    assert "missing.png" in str(results[1])
    for result in (results[0], results[2]):
        assert_same(result, small.predict(PHOTO, "<OD>", **SHORT))


def test_an_image_without_the_region_yields_its_error(small):
    results = small.predict_batch([PHOTO, Image.new("RGB", (9, 9))], "<REGION_TO_OCR>", (0, 0, 11, 11), **SHORT)
    assert isinstance(results[1], PromptError)
    assert "of an image of 9 x 9 pixels" in str(results[1])
    assert_same(results[0], small.predict(PHOTO, "<REGION_TO_OCR>", (0, 0, 11, 11), **SHORT))


def test_a_batch_of_unreadable_images_yields_errors_only(small, tmp_path):
    results = small.predict_batch([tmp_path / "a.png", tmp_path / "b.png"], "<OD>")
    assert [type(result) for result in results] == [ImageError] * 2


def test_other_errors_of_the_preprocessing_are_raised(small, monkeypatch):
    def fail(*_, **__):
        raise ValueError("a bug")

    monkeypatch.setattr(preprocessing, "_resize", fail)
    with pytest.raises(ValueError, match="a bug"):
        small.predict_batch([PHOTO], "<OD>")


@pytest.mark.parametrize(
    ("task", "text", "reason"),
    [
        ("<OO>", None, "<OD>"),
        ("<REGION_TO_OCR>", (1, 2), "region"),
        ("<OD>", "a cat", "takes no"),
        (None, None, "None"),
    ],
)
def test_a_wrong_prompt_of_a_batch_is_refused_before_an_image_is_read(small, task, text, reason):
    def never():
        raise AssertionError("an image was read")
        yield

    with pytest.raises(PromptError, match=reason):
        small.predict_iter(never(), task, text)


def test_a_chinese_phrase_for_many_images_warns_once(small, cat):
    with pytest.warns(FlorenceLabWarning, match="not trained on Chinese") as caught:
        small.predict_batch([cat] * 3, OPEN, "羊", max_new_tokens=2)
    assert sum("Chinese" in str(warning.message) for warning in caught) == 1


def test_a_model_of_scenes_warns_once_about_another_image(nano):
    predictor = Predictor(copy.copy(nano.model), nano.processor, nano.name)
    predictor.encode_image(sample_path("sheep"))
    with pytest.warns(FlorenceLabWarning, match="trained on florence_lab's cartoon scenes only") as caught:
        predictor.encode_image(PHOTO)
    predictor.encode_image(PHOTO)  # warnings of the package are errors in these tests
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_the_representation_names_the_model(small):
    assert repr(small) == f"Predictor({small.name!r}, 0.5 M parameters, torch.float32, cpu)"


def test_a_saved_model_gives_the_same_results(small, cat, tmp_path):
    small.save_pretrained(tmp_path)
    loaded = load(tmp_path, device="cpu")
    assert_same(loaded.predict(PHOTO, "<OD>", **SHORT), small.predict(cat, "<OD>", **SHORT))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda predictor: pickle.loads(pickle.dumps(predictor))])
def test_a_copy_of_a_predictor_that_was_used_answers(small, cat, duplicate):
    settings = {"num_beams": 1, "max_new_tokens": 5, "constrain": True}
    expected = small.predict(cat, "<OD>", **settings)
    before = trace(small, cat, "<CAPTION>", **SHORT).probabilities  # transformers adds hooks to the model
    copied = duplicate(small)
    assert copied.constraints is not small.constraints
    assert copied.predict(cat, "<OD>", **settings).raw == expected.raw
    for predictor in (copied, small):
        np.testing.assert_array_equal(trace(predictor, cat, "<CAPTION>", **SHORT).probabilities, before)
