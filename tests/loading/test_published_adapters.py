"""Adapters that were trained with the published modelling code: their names, their layers, and the answers of the merged weights."""

import json
import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from support import TINY, copy_of_tiny, edit_json

from florence_lab import CheckpointError
from florence_lab.exceptions import ArgumentError, HubError
from florence_lab.loading.adapters import load_model
from florence_lab.loading.checkpoint import load_checkpoint
from florence_lab.loading.saving import save_model

RANK, ALPHA = 2, 6
VISION = "vision_tower.blocks"
ENCODER = "language_model.model.encoder.layers"
DECODER = "language_model.model.decoder.layers"

# Layers of the published code that get LoRA: name -> target_modules in adapter_config.json that select just these
LAYERS = {
    "attention of the encoder": (
        [f"{ENCODER}.{n}.self_attn.q_proj" for n in (0, 1)],
        r".*encoder\.layers\.\d\.self_attn\.q_proj",
    ),
    "cross attention": ([f"{DECODER}.{n}.encoder_attn.v_proj" for n in (0, 1)], r".*encoder_attn\.v_proj"),
    "feed-forward": ([f"{DECODER}.1.fc1"], ["decoder.layers.1.fc1"]),
    "window attention": (
        [f"{VISION}.{s}.{b}.spatial_block.window_attn.fn.qkv" for s, b in ((0, 0), (1, 0), (2, 0), (2, 1), (3, 0))],
        ["window_attn.fn.qkv"],
    ),
    "channel attention": (
        [f"{VISION}.2.1.channel_block.channel_attn.fn.proj"],
        ["2.1.channel_block.channel_attn.fn.proj"],
    ),
    "feed-forward of the image encoder": (
        [f"{VISION}.3.0.channel_block.ffn.fn.net.fc2"],
        r".*3\.0\.channel_block\.ffn\.fn\.net\.fc2",
    ),
    "patch embedding": (["vision_tower.convs.1.proj"], ["convs.1.proj"]),
    "projection": (["image_projection"], ["image_projection"]),
}
LAYERS["all of them"] = (
    [name for names, _ in LAYERS.values() for name in names],
    [name for names, _ in LAYERS.values() for name in names],
)


def random_lora(weight, seed, rank=RANK):
    """Random matrices for a weight: (A, B, the update of the weight)."""
    generator = torch.Generator().manual_seed(seed)
    rows, *columns = weight.shape
    a = torch.randn(rank, *columns, generator=generator) * 0.3
    b = torch.randn(rows, rank, *[1] * (len(columns) - 1), generator=generator) * 0.3
    update = (b.reshape(rows, rank).double() @ a.reshape(rank, -1).double()).reshape(weight.shape)
    return a, b, update


def write_adapter(folder, tensors, base=TINY, prefix="base_model.model.", **config):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {prefix + name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors"
    )
    defaults = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(defaults | config))
    return folder


def write_lora(folder, names, target_modules, own_part="lora_{}.weight", scale=ALPHA / RANK, ranks=(), **config):
    """Write a LoRA in the published names, and the same merged into the published weights."""
    weights = load_file(TINY / "model.safetensors")
    tensors = {}
    for seed, name in enumerate(names):
        key = name if name in weights else f"{name}.weight"
        a, b, update = random_lora(weights[key], seed, dict(ranks).get(name, RANK))
        tensors |= {f"{name}.{own_part.format('A')}": a, f"{name}.{own_part.format('B')}": b}
        weights[key] = weights[key] + scale * update
    merged = copy_of_tiny(folder / "merged")
    save_file(weights, merged / "model.safetensors")
    return write_adapter(folder / "adapter", tensors, target_modules=target_modules, **config), merged


@torch.inference_mode()
def logits(model):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, 192, 192, generator=generator).to(model.dtype)
    image = model.get_image_features(pixels).pooler_output
    text = model.get_input_embeddings()(torch.tensor([[0, 100, 200, 2]]))
    decoder_ids = torch.tensor([[2, 0, 300, 400]])
    return model(inputs_embeds=torch.cat([image, text], 1), decoder_input_ids=decoder_ids).logits


def assert_same_logits(folder, other):
    """Compare in float64, where the order of additions does not matter."""
    found, expected = (logits(load_model(path, torch.float64)[0]) for path in (folder, other))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    return found


@pytest.fixture(scope="module")
def base_logits():
    return logits(load_checkpoint(TINY, torch.float64)[0])


@pytest.mark.parametrize(("names", "target_modules"), LAYERS.values(), ids=LAYERS)
def test_an_adapter_in_published_names_gives_the_logits_of_the_merged_weights(
    tmp_path, names, target_modules, base_logits
):
    adapter, merged = write_lora(tmp_path, names, target_modules)
    found = assert_same_logits(adapter, merged)
    assert (found - base_logits).abs().max() > 1e-3


def test_names_with_the_name_of_the_adapter_are_accepted(tmp_path):
    names, target_modules = LAYERS["cross attention"]
    adapter, merged = write_lora(tmp_path, names, target_modules, own_part="lora_{}.default.weight")
    assert_same_logits(adapter, merged)


def test_layers_to_transform_are_those_of_the_published_names(tmp_path):
    names = [f"{part}.1.{layer}" for part in (ENCODER, DECODER) for layer in ("self_attn.k_proj", "fc2")]
    adapter, merged = write_lora(tmp_path, names, ["k_proj", "fc2"], layers_to_transform=[1], layers_pattern="layers")
    with pytest.raises(CheckpointError, match=r"target_modules .* no weights"):  # encoder_attn.k_proj is selected too
        load_model(
            write_lora(tmp_path / "b", names, ["k_proj", "fc2"], layers_to_transform=[1], layers_pattern="layers")[0]
        )
    edit_json(adapter / "adapter_config.json", target_modules=["self_attn.k_proj", "fc2"])
    assert_same_logits(adapter, merged)


def test_patterns_of_ranks_and_scales_are_those_of_the_published_names(tmp_path):
    name = f"{VISION}.0.0.channel_block.channel_attn.fn.qkv"
    adapter, merged = write_lora(
        tmp_path,
        [name],
        ["0.0.channel_block.channel_attn.fn.qkv"],
        scale=20 / 4,
        ranks={name: 4}.items(),
        rank_pattern={"channel_attn.fn.qkv": 4},
        alpha_pattern={r".*channel_block.*qkv": 20},
    )
    assert_same_logits(adapter, merged)


def test_an_adapter_of_the_language_model_alone(tmp_path):
    names, _ = LAYERS["cross attention"]
    adapter, merged = write_lora(tmp_path, names, ["encoder_attn.v_proj"])
    state = load_file(adapter / "adapter_model.safetensors")
    short = {name.replace("base_model.model.language_model.", "base_model.model."): t for name, t in state.items()}
    save_file(short, adapter / "adapter_model.safetensors")
    assert_same_logits(adapter, merged)


def test_whole_modules_are_replaced(tmp_path, base_logits):
    stored = load_file(TINY / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(stored["language_model.model.shared.weight"].shape, generator=generator)
    norm = torch.rand(stored["image_proj_norm.weight"].shape, generator=generator)
    tensors = {
        "language_model.lm_head.weight": table,
        "image_proj_norm.weight": norm,
        "image_proj_norm.bias": norm * 0,
    }
    a, b, _ = random_lora(torch.zeros(32, 32), 0)
    q_proj = f"{ENCODER}.0.self_attn.q_proj"
    tensors |= {f"{q_proj}.lora_A.weight": a, f"{q_proj}.lora_B.weight": b * 0}
    adapter = write_adapter(
        tmp_path / "adapter", tensors, target_modules=[q_proj], modules_to_save=["lm_head", "image_proj_norm"]
    )
    model, _ = load_model(adapter)
    by_hand, _ = load_checkpoint(TINY)
    with torch.no_grad():
        by_hand.model.multi_modal_projector.image_proj_norm.weight.copy_(norm)
        by_hand.model.multi_modal_projector.image_proj_norm.bias.zero_()
        by_hand.lm_head = torch.nn.Linear(*reversed(table.shape), bias=False)
        by_hand.lm_head.weight.copy_(table)
    found = logits(model)
    torch.testing.assert_close(found[..., : len(table)], logits(by_hand), atol=1e-5, rtol=1e-4)
    assert found[..., len(table) :].count_nonzero() == 0  # <image>
    assert torch.equal(model.get_input_embeddings().weight[:-1], stored["language_model.model.shared.weight"])


def test_the_vocabulary_gets_lora(tmp_path):
    stored = load_file(TINY / "model.safetensors")["language_model.model.shared.weight"]
    a, b, head_update = random_lora(stored, 0)
    column, row, update = random_lora(stored.T, 1)  # of an embedding: A is rank x vocabulary
    tensors = {
        "language_model.lm_head.lora_A.weight": a,
        "language_model.lm_head.lora_B.weight": b,
        "language_model.model.decoder.embed_tokens.lora_embedding_A": column,
        "language_model.model.decoder.embed_tokens.lora_embedding_B": row,
    }
    adapter = write_adapter(tmp_path / "adapter", tensors, target_modules=["lm_head", "decoder.embed_tokens"])
    by_hand, _ = load_checkpoint(TINY)
    scale = ALPHA / RANK
    with torch.no_grad():
        by_hand.lm_head = torch.nn.Linear(*reversed(stored.shape), bias=False)
        by_hand.lm_head.weight.copy_(stored + scale * head_update)
        decoder = by_hand.model.language_model.decoder
        decoder.embed_tokens = type(decoder.embed_tokens)(*stored.shape, padding_idx=1)
        decoder.embed_tokens.weight.copy_(stored + scale * update.T)
    found = logits(load_model(adapter)[0])
    torch.testing.assert_close(found[..., : len(stored)], logits(by_hand), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("end", ["", ".weight", ".default.weight"])
def test_dora_is_loaded(tmp_path, end):
    name = f"{ENCODER}.0.self_attn.q_proj"
    weight = load_file(TINY / "model.safetensors")[f"{name}.weight"]
    a, b, update = random_lora(weight, 0)
    magnitude = torch.rand(len(weight), generator=torch.Generator().manual_seed(2)) + 0.5
    tensors = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b, f"{name}.lora_magnitude_vector{end}": magnitude}
    adapter = write_adapter(tmp_path / "adapter", tensors, target_modules=[name], use_dora=True)
    merged = copy_of_tiny(tmp_path / "merged")
    direction = weight.double() + ALPHA / RANK * update
    state = load_file(merged / "model.safetensors")
    state[f"{name}.weight"] = magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)
    save_file(state, merged / "model.safetensors")
    assert_same_logits(adapter, merged)


def test_a_bin_is_loaded_without_running_its_code(tmp_path):
    adapter, merged = write_lora(tmp_path, *LAYERS["cross attention"])
    path = adapter / "adapter_model.safetensors"
    torch.save(load_file(path), adapter / "adapter_model.bin")
    path.unlink()
    assert_same_logits(adapter, merged)
    torch.save({"a": re.compile("a")}, adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model.bin is a pickle .* refused"):
        load_model(adapter)


TRANSFORMERS_PARTS = {
    "whole model": lambda model: model,
    "without the head": lambda model: model.model,
    "language model": lambda model: model.model.language_model,
    "image encoder": lambda model: model.model.vision_tower,
}


@pytest.mark.parametrize("part", TRANSFORMERS_PARTS.values(), ids=TRANSFORMERS_PARTS)
def test_an_adapter_of_a_part_in_the_names_of_transformers(tmp_path, part):
    model, _ = load_checkpoint(TINY)
    config = LoraConfig(r=2, target_modules=["q_proj", "qkv"], init_lora_weights=False)
    if part(model) is model.model.vision_tower:
        config.target_modules = {"qkv"}
    get_peft_model(part(model), config).save_pretrained(tmp_path)
    edit_json(tmp_path / "adapter_config.json", base_model_name_or_path=str(TINY))
    torch.testing.assert_close(logits(load_model(tmp_path)[0]), logits(model.eval()), atol=1e-6, rtol=1e-5)


def edit_tensors(edit):
    def change(folder):
        path = folder / "adapter_model.safetensors"
        state = load_file(path)
        save_file(edit(state), path)

    return change


def set_config(**changes):
    return lambda folder: edit_json(folder / "adapter_config.json", **changes)


def point_to_itself(folder):
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(folder))


def rename(old, new):
    return edit_tensors(lambda state: {name.replace(old, new): tensor for name, tensor in state.items()})


def first(change):
    """Change the first tensor."""
    return edit_tensors(lambda state: state | {min(state): change(state[min(state)])})


def of_other_model(folder):
    path = folder / "adapter_model.safetensors"
    save_file({"base_model.model.h.0.attn.c_attn.lora_A.weight": torch.ones(2, 3)}, path)


DAMAGED = {
    "no layer of the model": (rename("v_proj", "w_proj"), "find no place .*w_proj"),
    "another model": (of_other_model, "find no place .*c_attn"),
    "one layer too much": (
        edit_tensors(lambda s: s | {n.replace("layers.1", "layers.7"): t.clone() for n, t in s.items()}),
        "find no place .*layers.7",
    ),
    "one layer more than targeted": (
        edit_tensors(lambda s: s | {n.replace("v_proj", "k_proj"): t.clone() for n, t in s.items()}),
        "target_modules .* does not name: .*k_proj",
    ),
    "a missing layer": (
        edit_tensors(lambda s: {n: t for n, t in s.items() if "layers.1" not in n}),
        "no weights, for .*layers.1",
    ),
    "a missing matrix": (
        edit_tensors(lambda s: {n: t for n, t in s.items() if "layers.1" not in n or "_B" not in n}),
        "lacks the weights .*lora_B",
    ),
    "no tensors": (edit_tensors(lambda s: {}), "contains no weights"),
    "NaN": (first(lambda t: t * torch.nan), "NaN or infinite: .*lora_A"),
    "infinity": (first(lambda t: t / 0), "NaN or infinite"),
    "integers": (first(lambda t: t.int()), "not floating-point"),
    "another shape": (first(lambda t: t[:, :5].contiguous()), "another shape: .*lora_A"),
    "another rank": (set_config(r=3), "the rank 3, but .* has 2"),
    "a huge rank": (set_config(r=65_536), "the rank 65536, but .* has 2"),
    "rank of a word": (set_config(r="two"), "r must be a whole number, got 'two'"),
    "rank of 0": (set_config(r=0), "r must be at least 1 .*got 0"),
    "alpha of a word": (set_config(lora_alpha="big"), "lora_alpha must be a number"),
    "dropout above 1": (set_config(lora_dropout=1.5), "lora_dropout must be .*got 1.5"),
    "target_modules a number": (set_config(target_modules=5), "target_modules must be .*got 5"),
    "rank_pattern of a word": (set_config(rank_pattern={"v_proj": "x"}), r"rank_pattern\.v_proj must be"),
    "another kind": (set_config(peft_type="SPARKLE"), "SPARKLE"),
    "prompt tuning": (
        set_config(peft_type="PROMPT_TUNING", task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3),
        "PROMPT_TUNING",
    ),
    "parameters": (set_config(target_parameters=["image_projection"]), "target_parameters is not supported"),
    "itself as base": (point_to_itself, "is an adapter of an adapter"),
    "base a number": (set_config(base_model_name_or_path=5), "base_model_name_or_path must be a string or None, got 5"),
    "base a list": (set_config(base_model_name_or_path=["a"]), "base_model_name_or_path must be"),
    "base unknown": (set_config(base_model_name_or_path="nope"), "base=.*--model_id_or_path"),
    "config too deep": (lambda f: (f / "adapter_config.json").write_text("[" * 100_000), "nested too deeply"),
    "weights cut short": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x10" + bytes(20)),
        "adapter_model.safetensors as an adapter of",
    ),
    "no weights": (
        lambda f: (f / "adapter_model.safetensors").unlink(),
        "has no adapter_model.safetensors or adapter_model.bin",
    ),
}


@pytest.mark.parametrize(("change", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_adapter_is_refused(tmp_path, change, message):
    adapter, _ = write_lora(tmp_path, *LAYERS["cross attention"])
    change(adapter)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(adapter)
    assert str(adapter) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_base_names_the_base_model_of_another_machine(tmp_path):
    adapter, merged = write_lora(tmp_path, *LAYERS["cross attention"], base_model_name_or_path="/home/them/florence")
    with pytest.raises(HubError, match=r"/home/them/florence does not exist.*base=.*--model_id_or_path"):
        load_model(adapter)
    expected = logits(load_model(merged)[0])
    torch.testing.assert_close(logits(load_model(adapter, base=TINY)[0]), expected, atol=1e-5, rtol=1e-4)
    edit_json(adapter / "adapter_config.json", base_model_name_or_path=None)
    torch.testing.assert_close(logits(load_model(adapter, base=str(TINY))[0]), expected, atol=1e-5, rtol=1e-4)


def test_another_base_model_is_refused(tmp_path):
    adapter, _ = write_lora(tmp_path, *LAYERS["cross attention"])
    with pytest.raises(CheckpointError, match=r"another shape|no place|no weights"):
        load_model(adapter, base="florence-2-nano")


def test_adapters_of_adapters_are_refused(tmp_path):
    first, _ = write_lora(tmp_path / "1", *LAYERS["cross attention"])
    second, _ = write_lora(tmp_path / "2", *LAYERS["cross attention"], base_model_name_or_path=str(first))
    edit_json(first / "adapter_config.json", base_model_name_or_path=str(second))
    for adapter, base in ((second, None), (first, None), (first, second), (first, first)):
        with pytest.raises(CheckpointError, match="is an adapter of an adapter"):
            load_model(adapter, base=base)


def test_a_base_for_a_checkpoint_is_refused():
    with pytest.raises(ArgumentError, match="is not one"):
        load_model(TINY, base="florence-2-nano")


def test_a_model_with_an_adapter_is_saved_merged(tmp_path):
    names, target_modules = LAYERS["window attention"]
    adapter, _ = write_lora(tmp_path, names, target_modules, modules_to_save=["image_proj_norm"])
    path = adapter / "adapter_model.safetensors"
    norm = {f"base_model.model.image_proj_norm.{part}": torch.rand(32) for part in ("weight", "bias")}
    save_file(load_file(path) | norm, path)
    model, processor = load_model(adapter, torch.float64)
    save_model(model, processor, tmp_path / "saved")
    torch.testing.assert_close(
        logits(load_model(tmp_path / "saved", torch.float64)[0]), logits(model), atol=1e-6, rtol=1e-6
    )


def test_an_adapter_of_the_shared_embeddings_is_not_merged(tmp_path):
    a, b, _ = random_lora(torch.zeros(1411, 32), 0)
    tensors = {"language_model.lm_head.lora_A.weight": a, "language_model.lm_head.lora_B.weight": b}
    model, processor = load_model(write_adapter(tmp_path / "adapter", tensors, target_modules=["lm_head"]))
    with pytest.raises(CheckpointError, match=r"lm_head.*shares its weight"):
        save_model(model, processor, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
