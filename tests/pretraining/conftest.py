"""A small tokenizer, and the arguments of runs of a few steps."""

import pytest

from florence_lab.pretraining.arguments import PretrainArguments
from florence_lab.pretraining.curriculum import Stage


@pytest.fixture(scope="session")
def tokenizer():
    """A tokenizer learned from 40 scenes."""
    from florence_lab.pretraining.tokenizer import build_tokenizer, tokenizer_corpus

    return build_tokenizer(tokenizer_corpus(scenes=40))


@pytest.fixture
def short_run(tokenizer, tmp_path, monkeypatch):
    """Make arguments of a run of four steps on images of 48 pixels, and of 64 after the third step, without evaluation."""
    from florence_lab.pretraining import curriculum

    tasks = {"<OD>": 1, "<CAPTION>": 1, "<REGION_TO_CATEGORY>": 1}
    monkeypatch.setattr(curriculum, "CURRICULUM", (Stage(3, 48, 2, tasks), Stage(9, 64, 3, tasks)))
    defaults = {
        "steps": 4,
        "batch_size": 4,
        "new_scenes": 2,
        "tasks_per_image": 2,
        "warmup": 2,
        "workers": 0,
        "measure_every": 100,
        "save_every": 2,
        "device": "cpu",
    }

    def make(name: str, **changes) -> PretrainArguments:
        tokenizer.save_pretrained(tmp_path / name / "tokenizer")
        return PretrainArguments(out=str(tmp_path / name), **(defaults | changes))

    return make
