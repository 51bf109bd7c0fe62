"""Loading in several threads, and saving whole or not at all."""

import errno
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from support import TINY
from transformers import PreTrainedModel

from florence_lab import load
from florence_lab.exceptions import CheckpointError
from florence_lab.loading.adapters import load_model
from florence_lab.loading.registry import MODELS
from florence_lab.loading.saving import save_model


@pytest.fixture
def adapter(tmp_path):
    name = "base_model.model.language_model.model.encoder.layers.0.self_attn.q_proj.lora_"
    folder = tmp_path / "adapter"
    folder.mkdir()
    tensors = {f"{name}A.weight": torch.full((2, 32), 0.1), f"{name}B.weight": torch.full((32, 2), 0.1)}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": str(TINY)}
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"target_modules": ["encoder.layers.0.self_attn.q_proj"]})
    )
    return folder


def test_eight_threads_load_at_once(adapter):
    tie_weights, filters = PreTrainedModel.tie_weights, list(warnings.filters)
    folders = [MODELS["florence-2-nano"].path, TINY, adapter, MODELS["florence-2-nano"].path] * 2
    dtypes = [torch.float32] * 4 + [torch.bfloat16] * 4
    with ThreadPoolExecutor(8) as threads:
        models = [model for model, _ in threads.map(load_model, folders, dtypes)]
    assert [model.dtype for model in models] == dtypes
    for model in (*models, load_model(folders[0])[0]):
        assert model.lm_head.weight is model.get_input_embeddings().weight
    assert torch.get_default_dtype() == torch.float32
    assert PreTrainedModel.tie_weights is tie_weights
    assert warnings.filters == filters
    assert len({model.model.language_model.shared.weight.sum().item() for model in models}) == 4  # 2 models in 2 dtypes


def test_a_model_is_saved_while_others_are_loaded(tmp_path, small):
    with ThreadPoolExecutor(4) as threads:
        saves = [threads.submit(save_model, small.model, small.processor, tmp_path / str(n)) for n in range(2)]
        loads = [threads.submit(load_model, MODELS["florence-2-nano"].path) for _ in range(2)]
        for future in (*saves, *loads):
            future.result()
    assert load(tmp_path / "1", device="cpu").model.num_parameters() == small.model.num_parameters()


class Failing:
    """A model that writes half of its files."""

    def __init__(self, error):
        self.error = error

    def save_pretrained(self, folder):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise self.error


FAILURES = {
    "full disk": (OSError(errno.ENOSPC, "No space left on device"), CheckpointError),
    "full disk, as safetensors says it": (SafetensorError("No space left on device"), CheckpointError),
    "interruption": (KeyboardInterrupt(), KeyboardInterrupt),
}


@pytest.mark.parametrize(("error", "raised"), FAILURES.values(), ids=FAILURES)
def test_a_model_that_cannot_be_saved_leaves_no_files(tmp_path, error, raised):
    folder = tmp_path / "new" / "model"
    with pytest.raises(raised) as caught:
        save_model(Failing(error), None, folder)
    assert list(tmp_path.iterdir()) == []
    if raised is CheckpointError:
        assert str(folder) in str(caught.value)
        assert "No space left" in str(caught.value)


def test_a_model_that_cannot_be_saved_leaves_the_old_one(tmp_path):
    (tmp_path / "model.safetensors").write_text("old")
    with pytest.raises(CheckpointError):
        save_model(Failing(SafetensorError("No space left on device")), None, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"model.safetensors": "old"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, small):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match=r"cannot save a model in .*file"):
        save_model(small.model, small.processor, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_weights_of_an_older_save_are_replaced_and_other_files_stay(tmp_path, small):
    (tmp_path / "model-00001-of-00002.safetensors").write_text("old")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    save_model(small.model, small.processor, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "config.json", "notes.txt"} <= names
    assert not {"model-00001-of-00002.safetensors", "model.safetensors.index.json"} & names
    load(tmp_path, device="cpu")
