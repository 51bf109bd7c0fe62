"""Which layers LoRA trains, and merging."""

import copy

import pytest
import torch
from support import PHOTO, edit_json

from florence_lab import load
from florence_lab.exceptions import ArgumentError, CheckpointError, FlorenceLabWarning
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.lora import (
    add_lora,
    freeze_image_encoder,
    freeze_parts,
    merge_lora,
    resolve_modules_to_save,
    resolve_target_modules,
)


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
    adapted = add_lora(model, SftArguments(lora_target_modules=target_modules, freeze_vision=is_frozen))
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert all("lora_" in name for name in trained)
    assert len(trained) == 2 * len(layers)


PARTS = {"vision_tower": "vit", "multi_modal_projector": "aligner", "language_model": "llm"}


def trained_parts(model):
    """The parts with weights that require gradients, by the names in the options."""
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    return {short for part, short in PARTS.items() if any(part in name for name in names)}


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, {"vit", "aligner", "llm"}),
        ({"freeze_vision": True}, {"llm"}),
        ({"freeze_vit": True}, {"aligner", "llm"}),
        ({"freeze_aligner": True}, {"vit", "llm"}),
        ({"freeze_llm": True}, {"vit", "aligner"}),
        ({"freeze_llm": True, "freeze_vit": True}, {"aligner"}),
    ],
)
def test_full_fine_tuning_trains_the_parts_that_are_not_frozen(small, options, trained):
    model = copy.deepcopy(small.model)
    freeze_parts(model, SftArguments(sft_type="full", **options))
    assert trained_parts(model) == trained
    assert model.lm_head.weight.requires_grad == ("llm" in trained)


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, {"llm"}),
        ({"freeze_vit": False}, {"vit", "llm"}),
        ({"freeze_aligner": False}, {"aligner", "llm"}),
        ({"freeze_vision": False, "freeze_llm": True}, {"vit", "aligner"}),
        ({"modules_to_save": "image_proj_norm"}, {"aligner", "llm"}),
    ],
)
def test_lora_is_in_the_parts_that_are_not_frozen(small, options, trained):
    model, arguments = copy.deepcopy(small.model), SftArguments(lora_target_modules="ALL", **options)
    freeze_parts(model, arguments)
    assert trained_parts(add_lora(model, arguments)) == trained


def test_an_unfrozen_part_without_lora_is_reported(small):
    model, arguments = copy.deepcopy(small.model), SftArguments(freeze_aligner=False)
    freeze_parts(model, arguments)
    with pytest.warns(FlorenceLabWarning, match="--freeze_aligner false has no effect"):
        add_lora(model, arguments)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"^(language_model).*\.(q_proj|v_proj)$", {"q_proj", "v_proj"}),
        (r"model\.language_model\.decoder.*fc1", {"fc1"}),
    ],
)
def test_a_pattern_selects_layers(small, pattern, expected):
    layers = resolve_target_modules(small.model, ["DEFAULT"], pattern)
    assert {name.rpartition(".")[2] for name in layers} == expected


@pytest.mark.parametrize("pattern", ["q_proj", "(", "lm_head"])
def test_a_pattern_that_matches_no_layer_is_refused(small, pattern):
    with pytest.raises(ArgumentError, match="--target_regex"):
        resolve_target_modules(small.model, ["DEFAULT"], pattern)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image_projektion", "did you mean 'image_projection'"),
        ("lm_head", "share"),
        ("embed_tokens", "share"),
        ("shared", "share"),
        ("decoder", "share"),
        ("language_model", "share"),
    ],
)
def test_modules_that_cannot_be_saved_are_refused(small, name, message):
    with pytest.raises(ArgumentError, match=f"--modules_to_save.*{message}"):
        resolve_modules_to_save(small.model, [name])


def test_a_saved_module_does_not_change_cached_image_features(small):
    arguments = SftArguments(cache_image_features=True, modules_to_save="image_proj_norm")
    with pytest.raises(ArgumentError, match=r"--modules_to_save .*image_proj_norm"):
        freeze_parts(copy.deepcopy(small.model), arguments)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"use_dora": True}, marks=pytest.mark.slow),  # both are part of the last one
        pytest.param({"use_rslora": True}, marks=pytest.mark.slow),
        {"modules_to_save": ("image_projection", "encoder.layers.0.fc1")},
        {"use_dora": True, "use_rslora": True, "modules_to_save": "multi_modal_projector", "freeze_vision": False},
    ],
    ids=str,
)
def test_an_adapter_of_every_kind_loads_and_merges_with_the_same_answer(small, options, tmp_path):
    torch.manual_seed(0)
    model, arguments = copy.deepcopy(small.model), SftArguments(lora_target_modules="ALL", **options)
    freeze_parts(model, arguments)
    adapted = add_lora(model, arguments)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    adapted.peft_config["default"].base_model_name_or_path = small.name
    adapted.save_pretrained(tmp_path / "adapter")

    def answer(folder):
        return load(folder, device="cpu").predict(PHOTO, "<OD>", max_new_tokens=10, num_beams=1).raw

    found = answer(tmp_path / "adapter")
    assert found != answer(small.name)
    assert found == answer(merge_lora(tmp_path / "adapter"))
    if arguments.use_rslora:  # the scale is part of the answer: that of plain LoRA is smaller
        edit_json(tmp_path / "adapter" / "adapter_config.json", use_rslora=False)
        assert answer(tmp_path / "adapter") != found


@pytest.mark.parametrize(
    ("target_modules", "message"), [(["q_porj"], "q_porj.*DEFAULT, ALL, .*q_proj"), ([], "is empty")]
)
def test_an_unknown_layer_name_is_refused(small, target_modules, message):
    with pytest.raises(ValueError, match=message):
        resolve_target_modules(small.model, target_modules)


def test_a_folder_without_an_adapter_is_not_merged(tmp_path):
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        merge_lora(tmp_path)
