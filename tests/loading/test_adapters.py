"""Loading LoRA adapters with their base models."""

import json
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support import PHOTO, edit_json

from florence_lab import CheckpointError, FlorenceLabWarning, load
from florence_lab.loading.adapters import load_model, read_adapter_config
from florence_lab.loading.checkpoint import load_checkpoint
from florence_lab.loading.registry import MODELS


@pytest.fixture(scope="module")
def adapter(small, tmp_path_factory):
    """An adapter of `small` that changes its answers."""
    model, _ = load_checkpoint(small.name)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(folder)
    edit_json(folder / "adapter_config.json", base_model_name_or_path=small.name)
    return folder


def test_an_adapter_is_loaded_with_its_base_model(adapter, small):
    predictor = load(adapter, device="cpu")
    image = small.encode_image(PHOTO)
    assert (
        predictor.predict(image, "<OD>", max_new_tokens=30).raw != small.predict(image, "<OD>", max_new_tokens=30).raw
    )


def test_an_adapter_is_loaded_in_a_dtype(adapter):
    model, _ = load_model(adapter, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not model.training


@pytest.fixture
def copy_of_adapter(adapter, tmp_path):
    for path in adapter.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not an adapter: it has no adapter_config.json"):
        read_adapter_config(tmp_path)


def test_an_adapter_without_a_base_model_is_refused(copy_of_adapter):
    edit_json(copy_of_adapter / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match=r"adapter_config.json has no base_model_name_or_path"):
        load_model(copy_of_adapter)


def test_an_adapter_without_weights_is_refused(copy_of_adapter):
    (copy_of_adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model.safetensors"):
        load_model(copy_of_adapter)


def test_an_adapter_with_invalid_weights_is_refused(copy_of_adapter):
    (copy_of_adapter / "adapter_model.safetensors").write_text("{}")
    with pytest.raises(CheckpointError, match=r"cannot read .* as an adapter of"):
        load_model(copy_of_adapter)


def test_an_adapter_of_a_model_of_scenes_does_not_warn_about_other_images(tmp_path):
    model, _ = load_checkpoint(MODELS["florence-2-nano"].path)
    adapted = get_peft_model(model, LoraConfig(r=1, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path)
    edit_json(tmp_path / "adapter_config.json", base_model_name_or_path="florence-2-nano")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FlorenceLabWarning)
        load(tmp_path, device="cpu").encode_image(PHOTO)


def test_a_model_of_scenes_loaded_by_its_folder_warns_once_about_other_images():
    folder = MODELS["florence-2-nano"].path
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["trained_on"] == "florence_lab scene"
    predictor = load(folder, device="cpu")
    with pytest.warns(FlorenceLabWarning, match="trained on florence_lab's cartoon scenes only") as caught:
        predictor.predict_tasks(PHOTO, ["<CAPTION>", "<OD>"], max_new_tokens=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FlorenceLabWarning)
        predictor.encode_image(PHOTO)
    assert sum("cartoon scenes" in str(warning.message) for warning in caught) == 1
