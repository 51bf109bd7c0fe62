"""A compiled model gives the results of the plain one; it is compiled once for a machine."""

import copy
import logging
import shutil
import warnings

import pytest
import torch
from support import PHOTO, TINY
from transformers import Florence2ForConditionalGeneration

from florence_lab import FlorenceLabWarning, load
from florence_lab.inference import compilation
from florence_lab.inference.compilation import ImageEncoderModule
from florence_lab.tasks import TASKS

INPUTS = {"none": None, "phrase": "a cat", "region": (10, 20, 200, 150)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_compiler(cache, monkeypatch):
    def fail(*_):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compilation, "_compile", fail)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A really compiled predictor, and its cache."""
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("compiled")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FlorenceLabWarning)  # that it could not be compiled
        return load(TINY, device="cpu").compile(folder), folder


@pytest.mark.slow
@pytest.mark.parametrize("num_beams", [1, 3])
def test_compiled_results_are_those_of_the_plain_model(compiled, tiny, num_beams):
    predictor, _ = compiled
    fast, plain = predictor.encode_image(PHOTO), tiny.encode_image(PHOTO)
    torch.testing.assert_close(fast.tokens, plain.tokens, rtol=1e-4, atol=1e-4)
    kwargs = {"num_beams": num_beams, "max_new_tokens": 40}
    for task in TASKS.values():
        text = INPUTS[task.input]
        expected = tiny.predict(plain, task.token, text, **kwargs).raw
        assert predictor.predict(fast, task.token, text, **kwargs).raw == expected, task.token


@pytest.mark.slow
def test_a_batch_is_encoded_as_one_by_one(compiled):
    predictor, _ = compiled
    pixel_values = torch.randn(3, 3, 768, 768, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = predictor.image_encoder(pixel_values)
        alone = torch.cat([predictor.image_encoder(image[None]) for image in pixel_values])
    assert torch.equal(together, alone)


@pytest.mark.slow
def test_a_model_is_compiled_once(compiled, no_compiler):
    predictor, folder = compiled
    again = load(TINY, device="cpu").compile(folder)
    assert torch.equal(again.encode_image(PHOTO).tokens, predictor.encode_image(PHOTO).tokens)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.slow
def test_a_missing_compiler_gives_one_warning_and_the_same_results(cache, monkeypatch, tiny):
    import torch._inductor.config as settings
    from torch._inductor import cpp_builder

    monkeypatch.setattr(settings.cpp, "cxx", ("/no/such/compiler",))
    for name in ("get_cpp_compiler", "is_gcc", "is_clang"):
        getattr(getattr(cpp_builder, name), "cache_clear", lambda: None)()
    with pytest.warns(FlorenceLabWarning, match="could not be compiled") as caught:
        predictor = load(TINY, device="cpu", compile=True)
    assert len([w for w in caught if "could not be compiled" in str(w.message)]) == 1
    assert predictor.predict(PHOTO, "<OD>", max_new_tokens=40).raw == tiny.predict(PHOTO, "<OD>", max_new_tokens=40).raw
    assert list(cache.rglob("*.pt2")) == []


def test_a_model_that_cannot_be_compiled_gives_the_same_results(no_compiler, small):
    with pytest.warns(FlorenceLabWarning, match="runs uncompiled: no compiler here") as caught:
        predictor = load(small.name, device="cpu", compile=True)
    assert caught[0].filename == __file__
    assert isinstance(predictor.image_encoder, ImageEncoderModule)
    assert predictor.predict(PHOTO, "<OD>", max_new_tokens=9).raw == small.predict(PHOTO, "<OD>", max_new_tokens=9).raw


def test_a_cache_that_cannot_be_written_gives_a_warning(cache, small):
    cache.mkdir()
    (cache / "florence_lab").write_text("a file where the folder should be")
    with pytest.warns(FlorenceLabWarning, match="could not be compiled"):
        load(small.name, device="cpu", compile=True)


def test_nothing_is_compiled_on_cuda(cache, small, monkeypatch, caplog):
    predictor = copy.deepcopy(small)
    monkeypatch.setattr(type(predictor.model), "device", property(lambda _: torch.device("cuda")))
    encoder = predictor.image_encoder
    with caplog.at_level(logging.INFO, "florence_lab"):
        assert predictor.compile() is predictor
    assert predictor.image_encoder is encoder
    assert "graphs" in caplog.text


def test_the_wait_for_the_compiler_is_announced(cache, small, monkeypatch, caplog):
    monkeypatch.setattr("torch.export.export", lambda *_, **__: None)
    monkeypatch.setattr(
        "torch._inductor.aoti_compile_and_package", lambda *_, package_path, **__: open(package_path, "w").close()
    )
    with caplog.at_level(logging.INFO, "florence_lab"):
        compilation._compile(ImageEncoderModule(small.model), torch.zeros(1, 3, 192, 192), cache / "encoder.pt2")
    levels = {record.message.split()[0]: record.levelname for record in caplog.records}
    assert levels == {"compiling": "WARNING", "compiled": "INFO"}
    assert [path.name for path in cache.iterdir()] == ["encoder.pt2"]


def test_the_original_weights_are_saved(no_compiler, small, tmp_path):
    with pytest.warns(FlorenceLabWarning, match="no compiler here"):
        predictor = load(small.name, device="cpu", compile=True)
    predictor.save_pretrained(tmp_path / "saved")
    state = Florence2ForConditionalGeneration.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in small.model.state_dict().items())


def test_a_model_is_compiled_in_bf16(no_compiler, small):
    with pytest.warns(FlorenceLabWarning, match="no compiler here"):
        predictor = load(small.name, device="cpu", dtype="bf16", compile=True)
    tokens = predictor.encode_image(PHOTO).tokens
    torch.testing.assert_close(tokens.float(), small.encode_image(PHOTO).tokens, rtol=0.1, atol=0.1)
    assert predictor.predict(PHOTO, "<CAPTION>", max_new_tokens=9).raw
