"""What the tests share: a real checkpoint of 0.6 M random weights, what the published code computed from it, a photograph."""

import json
import os
import shutil
from pathlib import Path

import pytest
import skimage

# before torch is imported: models this small run three times as fast on one thread as on busy cores' all
os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY = Path(__file__).parent / "data" / "tiny-original"
DEAD = "http://127.0.0.1:1"  # nobody listens there
PHOTO = Path(skimage.__file__).parent / "data" / "chelsea.png"


@pytest.fixture(scope="module")
def one_thread():
    """Results to the last bit, for tests that compare training runs; in another process it is so by OMP_NUM_THREADS."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def expected():
    """What the published modelling code computed from `tiny` and `PHOTO`."""
    return json.loads((TINY / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tiny():
    """A predictor on the checkpoint of the oracle, in the published layout. Its answers are noise, but always the same."""
    from florence_lab.predictor import load

    return load(TINY, device="cpu")


@pytest.fixture(scope="session")
def encoded(tiny):
    """`PHOTO` as `tiny` sees it."""
    return tiny.encode_image(PHOTO)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The weights of `tiny` for pictures of 192 x 192, so 37 image tokens: for tests that run the vision tower often."""
    from florence_lab.predictor import load

    folder = copy_of_tiny(tmp_path_factory.mktemp("small") / "checkpoint")
    edit_json(folder / "preprocessor_config.json", size={"height": 192, "width": 192}, image_seq_length=37)
    return load(folder, device="cpu")


@pytest.fixture
def hubs_are_dead(tmp_path, monkeypatch):
    """No hub can be reached, and nothing lies in a cache."""
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", DEAD)
    monkeypatch.delenv("FLORENCE_LAB_HUB", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", DEAD)


def copy_of_tiny(folder):
    """The checkpoint without its oracle, as a folder to change."""
    return Path(shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("expected.json")))


def edit_json(path, **changes):
    """Sets fields of a JSON file; `None` removes one."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}), encoding="utf-8")
