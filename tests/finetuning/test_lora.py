"""Which layers LoRA trains, and merging."""

import copy

import pytest

from florence_lab.exceptions import CheckpointError
from florence_lab.finetuning.lora import add_lora, freeze_image_encoder, merge_lora, resolve_target_modules


@pytest.mark.parametrize(
    ("target_modules", "is_frozen", "expected"),
    [
        (("DEFAULT",), True, {"q_proj", "k_proj", "v_proj", "out_proj"}),
        (("DEFAULT",), False, {"q_proj", "k_proj", "v_proj", "out_proj", "qkv", "proj"}),
        (("ALL",), True, {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
        (("v_proj", "fc1"), True, {"v_proj", "fc1"}),
    ],
)
def test_lora_trains_the_named_layers_only(small, target_modules, is_frozen, expected):
    model = copy.deepcopy(small.model)
    if is_frozen:
        freeze_image_encoder(model)
    layers = resolve_target_modules(model, target_modules)
    assert {name.rpartition(".")[2] for name in layers} == expected
    assert any("vision_tower" in name for name in layers) == (not is_frozen)
    adapted = add_lora(model, target_modules, 4, 8, 0.0)
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert all("lora_" in name for name in trained)
    assert len(trained) == 2 * len(layers)


@pytest.mark.parametrize(
    ("target_modules", "message"), [(["q_porj"], "q_porj.*DEFAULT, ALL, .*q_proj"), ([], "is empty")]
)
def test_an_unknown_layer_name_is_refused(small, target_modules, message):
    with pytest.raises(ValueError, match=message):
        resolve_target_modules(small.model, target_modules)


def test_a_folder_without_an_adapter_is_not_merged(tmp_path):
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        merge_lora(tmp_path)
