"""Fixtures that several test files share. Predictors are session-scoped: do not modify them, use `copy.deepcopy`."""

import gc
import json
import os

import pytest

# before torch is imported: small models run three times as fast on one thread
os.environ.setdefault("OMP_NUM_THREADS", "1")

from support import PHOTO, TINY, UNREACHABLE, copy_of_tiny, edit_json


def pytest_collection_finish(session):
    """Keep imported objects out of garbage collections, which otherwise walk through all of torch and transformers."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs CUDA"))


@pytest.fixture(scope="module")
def browser():
    """Chromium."""
    from explorer.browser.harness import launched_browser

    with launched_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """A server of JupyterLab."""
    from explorer.browser.harness import jupyter_served

    with jupyter_served("jupyterlab", tmp_path_factory.mktemp("jupyterlab")) as server:
        yield server


@pytest.fixture(scope="module")
def one_thread():
    """Run torch on one thread, so that training runs are reproducible to the last bit."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def expected():
    """The outputs of the published modelling code for `TINY` and `PHOTO`."""
    return json.loads((TINY / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tiny():
    """A predictor on `TINY`, at 768 x 768 pixels. Its answers are deterministic noise."""
    from florence_lab.predictor import load

    return load(TINY, device="cpu")


@pytest.fixture(scope="session")
def encoded(tiny):
    """`PHOTO`, encoded by `tiny`."""
    return tiny.encode_image(PHOTO)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A predictor on the weights of `TINY` at 192 x 192 pixels (37 image tokens), whose image encoder is fast."""
    from florence_lab.predictor import load

    folder = copy_of_tiny(tmp_path_factory.mktemp("small") / "checkpoint")
    edit_json(folder / "preprocessor_config.json", size={"height": 192, "width": 192}, image_seq_length=37)
    return load(folder, device="cpu")


@pytest.fixture(scope="session")
def nano():
    """A predictor on florence-2-nano."""
    from florence_lab.predictor import load

    return load("florence-2-nano", device="cpu")


@pytest.fixture
def unreachable_hubs(tmp_path, monkeypatch):
    """No hub is reachable, and the caches are empty."""
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", UNREACHABLE)
    monkeypatch.delenv("FLORENCE_LAB_HUB", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", UNREACHABLE)
