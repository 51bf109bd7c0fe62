"""The models that are measured."""

import pytest
import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration

from florence_lab.benchmark.models import SIZES, build_model


@pytest.mark.parametrize(("name", "millions"), [("florence-2-base", 231), ("florence-2-large", 777)])
def test_random_weights_have_the_published_number_of_parameters(name, millions):
    vision, text = SIZES[name]
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(Florence2Config(vision_config=vision, text_config=text))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=1)


def test_answers_do_not_end_by_themselves(checkpoint):
    model, _ = build_model(checkpoint)
    assert model.generation_config.eos_token_id is None


def test_a_model_of_unknown_size_is_refused(unreachable_hubs):
    with pytest.raises(
        ValueError, match=r"unknown size of a model that is not on this machine 'someone/else'.*florence-2-large"
    ):
        build_model("someone/else")
