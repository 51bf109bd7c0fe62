"""The options of fine-tuning."""

import dataclasses
import subprocess
import sys

import pytest

from florence_lab.finetuning.arguments import SftArguments


def test_a_single_string_is_one_dataset():
    assert SftArguments(dataset="train.jsonl", lora_target_modules="ALL").dataset == ("train.jsonl",)
    assert SftArguments(lora_target_modules="ALL").lora_target_modules == ("ALL",)


def test_resuming_can_be_a_boolean():
    assert SftArguments(resume_from_checkpoint=True).resume_from_checkpoint == "true"
    assert SftArguments(resume_from_checkpoint=False) == SftArguments()


@pytest.mark.parametrize(
    ("name", "short"), [("bfloat16", "bf16"), ("float32", "fp32"), ("fp16", "fp16"), ("auto", "auto")]
)
def test_long_dtype_names_are_accepted(name, short):
    assert SftArguments(dtype=name).dtype == short


@pytest.mark.parametrize(
    ("rate", "sft_type", "expected"),
    [(None, "lora", 1e-4), (None, "full", 1e-5), (0.0, "full", 0.0), (0.1, "lora", 0.1)],
)
def test_the_default_learning_rate_applies_only_if_none_is_given(rate, sft_type, expected):
    assert SftArguments(learning_rate=rate, sft_type=sft_type).effective_learning_rate == expected


@pytest.mark.parametrize(
    ("sft_type", "freeze_vision", "frozen"),
    [("lora", None, True), ("full", None, False), ("lora", False, False), ("full", True, True)],
)
def test_the_image_encoder_is_frozen_by_default_with_lora(sft_type, freeze_vision, frozen):
    assert SftArguments(sft_type=sft_type, freeze_vision=freeze_vision).is_vision_frozen == frozen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sft_type": "qlora"}, "qlora: must be one of lora, full"),
        ({"dtype": "fp8"}, "fp8: must be one of auto"),
        ({"cache_image_features": True, "freeze_vision": False}, "--freeze_vision true"),
        ({"early_stopping_patience": 2}, "--val_dataset"),
        ({"metric_for_best_model": "OD/mAP@0.5"}, "OD/mAP@0.5 requires a --val_dataset"),
    ],
)
def test_contradicting_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SftArguments(**changes)


def test_every_option_has_a_help_text():
    assert all(field.metadata["help"] for field in dataclasses.fields(SftArguments))


def test_the_options_import_neither_torch_nor_transformers():
    code = "import sys, florence_lab.finetuning.arguments; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
