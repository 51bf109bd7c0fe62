"""Checkpoints in transformers' layout: the model that `from_pretrained` gives, read tensor by tensor."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Florence2ForConditionalGeneration

from florence_lab.exceptions import CheckpointError
from florence_lab.loading import transformers_layout
from florence_lab.loading.checkpoint import load_checkpoint

SHARED = "model.language_model.shared.weight"
WEIGHTS = "model.safetensors"


@pytest.fixture
def saved(tiny, tmp_path):
    """`tiny` in transformers' layout."""
    tiny.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def _own(monkeypatch):
    """Make sure that the weights are not read by transformers."""
    monkeypatch.setattr(transformers_layout, "_load_with_transformers", None)


def add_copies(folder, change=0.0):
    """Store the output layer and the embeddings of the decoder beside the shared table, as `torch.save` does."""
    weights = load_file(folder / WEIGHTS)
    for name in ("lm_head.weight", "model.language_model.decoder.embed_tokens.weight"):
        weights[name] = weights[SHARED] + change
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def to_pickle(folder, **options):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin", **options)
    (folder / WEIGHTS).unlink()


LAYOUTS = {
    "safetensors": lambda folder: None,
    "with copies": add_copies,
    "pickle": to_pickle,
    "pickle of an old torch": lambda folder: to_pickle(folder, _use_new_zipfile_serialization=False),
}


@pytest.mark.usefixtures("_own")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("change", LAYOUTS.values(), ids=LAYOUTS)
def test_the_model_is_that_of_transformers(saved, change, dtype):
    expected = Florence2ForConditionalGeneration.from_pretrained(saved, dtype=dtype).eval()
    change(saved)
    model, _ = load_checkpoint(saved, dtype)
    a, b = (dict([*m.named_parameters(remove_duplicate=False), *m.named_buffers()]) for m in (model, expected))
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype, name
        assert tensor.requires_grad == b[name].requires_grad, name
        assert torch.equal(tensor, b[name]), name


@pytest.mark.usefixtures("_own")
def test_output_layer_and_embeddings_share_one_table(saved):
    add_copies(saved)
    model, _ = load_checkpoint(saved)
    language = model.model.language_model
    tables = (language.shared, language.encoder.embed_tokens, language.decoder.embed_tokens, model.lm_head)
    assert len({table.weight.data_ptr() for table in tables}) == 1
    assert all(table.weight is model.lm_head.weight for table in tables)


@pytest.mark.usefixtures("_own")
def test_loaded_weights_do_not_depend_on_the_file(saved):
    model, _ = load_checkpoint(saved)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    content = (saved / WEIGHTS).read_bytes()
    with (saved / WEIGHTS).open("r+b") as file:
        file.write(bytes(len(content)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_stored_output_layer_of_its_own_is_read_as_transformers_reads_it(saved):
    add_copies(saved, change=1.0)
    expected = Florence2ForConditionalGeneration.from_pretrained(saved)
    model, _ = load_checkpoint(saved)
    assert torch.equal(model.lm_head.weight, expected.lm_head.weight)
    assert torch.equal(model.model.language_model.shared.weight, expected.model.language_model.shared.weight)


@pytest.mark.usefixtures("_own")
def test_values_that_are_not_finite_are_named(saved):
    weights = load_file(saved / WEIGHTS)
    weights[SHARED][0, 0] = torch.nan
    save_file(weights, saved / WEIGHTS, {"format": "pt"})
    with pytest.raises(CheckpointError, match="shared"):
        load_checkpoint(saved)


def test_a_missing_weight_is_named(saved):
    weights = load_file(saved / WEIGHTS)
    name = next(name for name in weights if name.endswith("fc2.bias"))
    save_file({n: w for n, w in weights.items() if n != name}, saved / WEIGHTS, {"format": "pt"})
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(saved)
