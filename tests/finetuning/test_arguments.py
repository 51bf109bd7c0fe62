"""The options of fine-tuning."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from florence_lab.exceptions import ArgumentError
from florence_lab.finetuning.arguments import SftArguments


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"dataset": "train.jsonl"}, ("train.jsonl",)),
        ({"dataset": Path("train.jsonl")}, ("train.jsonl",)),
        ({"dataset": [Path("a.jsonl"), "b.jsonl"]}, ("a.jsonl", "b.jsonl")),
        ({"lora_target_modules": "ALL"}, ("ALL",)),
        ({"output_dir": Path("out")}, "out"),
        ({"model_id_or_path": Path("model")}, "model"),
        ({"feature_dir": Path("features")}, "features"),
        ({"resume_from_checkpoint": Path("run")}, "run"),
        ({"batch_size": np.int64(3)}, 3),
        ({"learning_rate": np.float32(0.5)}, 0.5),
        ({"num_train_epochs": 2}, 2.0),
        ({"max_steps": -1}, -1),
        ({"skip_bad_rows": np.bool_(True)}, True),
    ],
)
def test_paths_single_values_and_numbers_of_numpy_are_accepted(given, stored):
    (name,) = given
    value = getattr(SftArguments(**given), name)
    assert (value, type(value)) == (stored, type(stored))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *[("max_steps", value, "--max_steps") for value in (0, -2, 1.5, "1", True, 10**30)],
        *[("learning_rate", value, "--learning_rate") for value in (0, -1e-4, math.nan, math.inf, "1e-4")],
        *[("num_train_epochs", value, "--num_train_epochs") for value in (0, -1, math.nan, math.inf)],
        *[("weight_decay", value, "--weight_decay") for value in (-0.1, math.nan, math.inf)],
        *[("lora_dropout", value, "--lora_dropout") for value in (-0.1, 1, 1.5)],
        *[("warmup_ratio", value, "--warmup_ratio") for value in (-0.1, 1, 5)],
        *[("device", value, "--device .*auto, cpu, cuda, cuda:0 or mps") for value in ("hpu", "cuda:x", "", "cpu:1x")],
        ("batch_size", 0, "--batch_size must be at least 1, got 0"),
        ("lora_rank", 0, "--lora_rank must be at least 1"),
        ("gradient_accumulation_steps", -1, "--gradient_accumulation_steps"),
        ("seed", -1, "--seed"),
        ("hub", "huggingface", "--hub 'huggingface': must be modelscope or hf"),
        ("dataset", 5, "--dataset must be"),
        ("dataset", (5,), "--dataset must be"),
        ("output_dir", None, "--output_dir must be a string"),
        ("output_dir", "a\0b", "--output_dir.*null byte"),
        ("dataset", "a\0b", "--dataset.*null byte"),
        ("model_type", "\ud800", "--model_type.*surrogate"),
        ("dtype", 16, "--dtype must be a string"),
        ("freeze_vision", "true", "--freeze_vision must be True or False or None"),
    ],
)
def test_a_value_that_means_nothing_is_refused_with_its_option(name, value, message):
    with pytest.raises(ArgumentError, match=message):
        SftArguments(**{name: value})


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
    [(None, "lora", 1e-4), (None, "full", 1e-5), (0.1, "lora", 0.1)],
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
        ({"sft_type": "qlora"}, "'qlora': must be one of lora, full"),
        ({"dtype": "fp8"}, "'fp8': must be one of auto"),
        ({"cache_image_features": True, "freeze_vision": False}, "--freeze_vision true"),
        ({"cache_image_features": True, "freeze_aligner": False}, "--freeze_vision true"),
        ({"freeze_vision": True, "freeze_vit": False}, "--freeze_vit false contradicts --freeze_vision true"),
        ({"freeze_vision": False, "freeze_aligner": True}, "--freeze_aligner true contradicts --freeze_vision false"),
        ({"freeze_llm": True}, "nothing is left to train"),
        ({"sft_type": "full", "freeze_vision": True, "freeze_llm": True}, "nothing is left to train"),
        *[
            ({"sft_type": "full", name: value}, f"--{name} requires --sft_type lora")
            for name, value in {
                "use_dora": True,
                "use_rslora": True,
                "modules_to_save": "multi_modal_projector",
                "target_regex": ".*q_proj",
            }.items()
        ],
        ({"modules_to_save": ""}, "--modules_to_save.*empty name"),
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
