"""Runs that train other parts than plain LoRA: what they change, and that they resume and load."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from florence_lab import load
from florence_lab.finetuning.run import sft

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True, "target_regex": r"language_model.*\.(q_proj|fc1)"},
    "modules": {"modules_to_save": ("image_projection", "image_proj_norm")},
    "aligner": {"freeze_aligner": False, "freeze_llm": True, "lora_target_modules": "ALL"},
    "full aligner": {"sft_type": "full", "freeze_vit": True, "freeze_llm": True},
    "full without vit": {"sft_type": "full", "freeze_vit": True},
}


def weights_of(checkpoint):
    (path,) = [*checkpoint.glob("adapter_model.safetensors"), *checkpoint.glob("model.safetensors")]
    return load_file(path)


@pytest.mark.slow
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_run_resumes_to_the_same_weights_and_its_checkpoint_answers(options, arguments, checkpoint, rows_folder):
    trained = sft(arguments(**options, learning_rate=0.1))
    assert trained.name == "checkpoint-2"
    weights = weights_of(trained)
    image = next(rows_folder.glob("*.png"))
    before, after = (
        load(folder, device="cpu").predict(image, "<OD>", max_new_tokens=12, num_beams=1).raw
        for folder in (checkpoint, trained)
    )
    assert before != after

    shutil.rmtree(trained)
    resumed = weights_of(sft(arguments(**options, learning_rate=0.1, resume_from_checkpoint=True)))
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({"freeze_vit": True}, {"multi_modal_projector", "language_model"}),
        ({"freeze_aligner": True}, {"vision_tower", "language_model"}),
        ({"freeze_llm": True}, {"vision_tower", "multi_modal_projector"}),
    ],
)
def test_full_fine_tuning_changes_no_frozen_part(options, trained, arguments, checkpoint):
    before, after = (weights_of(folder) for folder in (checkpoint, sft(arguments(sft_type="full", **options))))
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    parts = {"vision_tower", "multi_modal_projector", "language_model"}
    assert {part for part in parts if any(part in name for name in changed)} == trained


def test_the_adapter_records_its_kind(arguments):
    trained = sft(arguments(use_dora=True, use_rslora=True, modules_to_save="image_proj_norm", max_steps=1))
    config = json.loads((trained / "adapter_config.json").read_text())
    assert (config["use_dora"], config["use_rslora"]) == (True, True)
    assert config["modules_to_save"] == ["model.multi_modal_projector.image_proj_norm"]
    assert any("lora_magnitude_vector" in name for name in weights_of(trained))
    assert any("image_proj_norm" in name for name in weights_of(trained))
