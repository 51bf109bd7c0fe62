"""`monitoring`: evaluation of a model in training."""

import pytest

from florence_lab.pretraining import monitoring
from florence_lab.pretraining.model import build_nano
from florence_lab.pretraining.monitoring import evaluate_held_out, plot_predictions


@pytest.mark.usefixtures("one_thread")
def test_every_task_is_evaluated_and_drawn(tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(monitoring, "MAX_NEW_TOKENS", 5)
    evaluation = evaluate_held_out(build_nano(tokenizer, 48), tokenizer, 48, count=1)
    assert {"<OD>", "<CAPTION>", "<REGION_TO_SEGMENTATION>"} <= set(evaluation.metrics)
    plot_predictions(evaluation).savefig(tmp_path / "answers.png")
    assert (tmp_path / "answers.png").stat().st_size > 10_000
