"""A compiled model says what the plain one says; it is compiled once for a machine, and can always be done without."""

import shutil
import warnings

import pytest
import torch
from support import PHOTO, TINY
from transformers import Florence2ForConditionalGeneration

from florence_lab import load
from florence_lab.inference import compilation as compiled
from florence_lab.scenes import sample_path
from florence_lab.tasks import TASKS

INPUTS = {"none": None, "phrase": "a cat", "region": (10, 20, 200, 150)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where compiled towers are kept, for the tests of this file."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def fast(cache):
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # that it could not be compiled
        return load(TINY, device="cpu", compile=True)


@pytest.fixture
def never_compiled(monkeypatch):
    def fail(*_):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "_compile", fail)


@pytest.mark.parametrize("beams", [1, 3])
def test_its_tokens_are_those_of_the_plain_model(fast, tiny, beams):
    ours, plain = fast.encode_image(PHOTO), tiny.encode_image(PHOTO)
    torch.testing.assert_close(ours.tokens, plain.tokens, rtol=1e-4, atol=1e-4)
    for task in TASKS.values():
        asked = task.token, INPUTS[task.input]
        answers = [
            predictor.predict(picture, *asked, num_beams=beams, max_new_tokens=40)
            for predictor, picture in ((fast, ours), (tiny, plain))
        ]
        assert answers[0].raw == answers[1].raw, task.token


def test_several_pictures_at_once(fast):
    pixels = torch.randn(3, 3, 768, 768, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together, alone = fast._tower(pixels), torch.cat([fast._tower(one[None]) for one in pixels])
    assert torch.equal(together, alone)


def test_it_is_compiled_once(fast, cache, never_compiled):
    again = load(TINY, device="cpu", compile=True)
    assert torch.equal(again.encode_image(PHOTO).tokens, fast.encode_image(PHOTO).tokens)
    assert len(list((cache / "florence_lab" / "compiled").iterdir())) == 1


def test_other_weights_are_compiled_anew(fast):
    keys = [compiled._key(fast.model, (768, 768))]
    keys += [compiled._key(fast.model, (384, 384))]
    weight = next(fast.model.model.vision_tower.parameters())
    with torch.no_grad():
        weight += 1
        keys += [compiled._key(fast.model, (768, 768))]
        weight -= 1
    assert len(set(keys)) == 3


def test_without_a_compiler_there_is_one_warning_and_the_same_answer(tmp_path, monkeypatch, tiny):
    import torch._inductor.config as settings

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(settings.cpp, "cxx", ("/no/such/compiler",))
    from torch._inductor import cpp_builder

    for name in ("get_cpp_compiler", "is_gcc", "is_clang"):
        getattr(getattr(cpp_builder, name), "cache_clear", lambda: None)()
    with pytest.warns(UserWarning, match="could not be compiled") as caught:
        predictor = load(TINY, device="cpu", compile=True)
    assert len([w for w in caught if "could not be compiled" in str(w.message)]) == 1
    assert predictor.predict(PHOTO, "<OD>", max_new_tokens=40).raw == tiny.predict(PHOTO, "<OD>", max_new_tokens=40).raw
    assert list(tmp_path.rglob("*.pt2")) == []


def test_a_cache_that_can_not_be_written(tmp_path, monkeypatch, small):
    (tmp_path / "florence_lab").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.warns(UserWarning, match="could not be compiled"):
        predictor = load(small.name, device="cpu", compile=True)
    assert predictor.predict(PHOTO, "<OD>", max_new_tokens=9).raw == small.predict(PHOTO, "<OD>", max_new_tokens=9).raw


def test_what_is_saved_is_the_model(tmp_path, never_compiled, tiny, monkeypatch):
    """In the format of the weights that a model without a compiled tower uses, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="no compiler here"):
        predictor = load(TINY, device="cpu", compile=True)
    predictor.save(tmp_path / "saved")
    state = Florence2ForConditionalGeneration.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in tiny.model.state_dict().items())


def test_bf16(cache, small, never_compiled):
    with pytest.warns(UserWarning, match="no compiler here"):
        predictor = load(small.name, device="cpu", dtype="bf16", compile=True)
    tokens = predictor.encode_image(PHOTO).tokens
    torch.testing.assert_close(tokens.float(), small.encode_image(PHOTO).tokens, rtol=0.1, atol=0.1)
    assert predictor.predict(PHOTO, "<CAPTION>", max_new_tokens=9).raw


def test_auto_says_what_it_picked(capsys, small):
    from florence_lab.inference.device import has_native_bf16

    predictor = load(small.name, device="cpu", dtype="auto")
    good = has_native_bf16(torch.device("cpu"))
    assert predictor.model.dtype == (torch.bfloat16 if good else torch.float32)
    assert f"computes in {'bfloat16' if good else 'float32'} on cpu" in capsys.readouterr().err


# ---------------------------------------------------------------------- decoding


@pytest.fixture(scope="module")
def nano():
    return load("florence-2-nano", device="cpu")


@pytest.fixture
def rows(nano):
    """How many rows the decoder is given, call by call."""
    counts = []
    layer = nano.model.model.language_model.decoder.layers[0].fc1
    hook = layer.register_forward_hook(lambda _, args, __: counts.append(len(args[0])))
    yield counts
    hook.remove()


TASKS_OF_ONE = [(task.token, INPUTS[task.input]) for task in TASKS.values()]


@pytest.mark.parametrize("settings", [{}, {"no_repeat_ngram_size": 2}, {"repetition_penalty": 1.5}, {"min_length": 20}])
def test_our_greedy_decoding_writes_what_transformers_writes(tiny, encoded, settings):
    questions = [tiny._question(encoded.image.size, *asked) for asked in TASKS_OF_ONE]
    read = tiny._read([encoded] * len(questions), [prompt for _, _, prompt in questions])
    states, mask = read["encoder_outputs"].last_hidden_state, read["attention_mask"]
    chosen = tiny._settings({"num_beams": 1, "max_new_tokens": 40} | settings)
    ours = tiny._generate(states, mask, chosen)
    with torch.inference_mode():
        theirs = tiny.model.generate(encoder_outputs=read["encoder_outputs"], attention_mask=mask, **chosen)
    assert ours.tolist() == theirs.tolist()


def test_rows_that_are_finished_leave(nano, rows):
    """The decoder has fewer and fewer rows to write, and what it writes is what transformers would."""
    encoded = nano.encode_image(sample_path("sheep"))
    questions = [nano._question(encoded.image.size, *asked) for asked in TASKS_OF_ONE]
    read = nano._read([encoded] * len(questions), [prompt for _, _, prompt in questions])
    states, mask = read["encoder_outputs"].last_hidden_state, read["attention_mask"]
    settings = nano._settings({"num_beams": 1})
    rows.clear()
    ours = nano._generate(states, mask, settings)
    lengths = (ours[:, 1:] != nano.processor.tokenizer.pad_token_id).sum(1)
    assert rows == [int((lengths > step).sum()) for step in range(ours.shape[1] - 1)]
    assert rows[0] == 15 > rows[-1]
    with torch.inference_mode():
        theirs = nano.model.generate(encoder_outputs=read["encoder_outputs"], attention_mask=mask, **settings)
    assert ours.tolist() == theirs.tolist()


def test_what_it_thinks_while_it_writes_is_what_it_thinks_of_the_whole(nano):
    encoded = nano.encode_image(sample_path("sheep"))
    results = nano.predict_tasks(encoded, ["<OD>", "<CAPTION>", "<OCR_WITH_REGION>", "<REGION_PROPOSAL>"], num_beams=1)
    for result in (results[0], results[3]):
        question = nano._question(encoded.image.size, result.task, None)
        read = nano._read([encoded], [question[2]])
        states, mask = read["encoder_outputs"].last_hidden_state, read["attention_mask"]
        sequence = nano._generate(states, mask, nano._settings({"num_beams": 1}))[0]
        whole = nano._result(sequence, encoded, question, states, mask)
        assert len(whole) >= 4
        assert result.scores == pytest.approx(whole.scores, rel=1e-3)
