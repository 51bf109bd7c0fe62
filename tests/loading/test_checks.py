"""Wrong settings and weights are refused at load, by the name of the file and field, before a model is built."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import copy_of_tiny, edit_json

from florence_lab.exceptions import CheckpointError
from florence_lab.loading.checkpoint import load_checkpoint

ENCODER_WEIGHT = "encoder.layers.0.fc1.weight"


@pytest.fixture(scope="module")
def saved_once(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "saved"
    tiny.save_pretrained(folder)
    return folder


@pytest.fixture(params=["published", pytest.param("saved", marks=pytest.mark.slow)])
def folder(request, tmp_path):
    """A copy of either layout, to change."""
    if request.param == "published":
        return copy_of_tiny(tmp_path / "published")
    source = request.getfixturevalue("saved_once")
    target = tmp_path / "saved"
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def config(part, **changes):
    """Change fields of a part of config.json."""

    def change(folder):
        stored = json.loads((folder / "config.json").read_text())
        edit_json(folder / "config.json", **{part: stored[part] | changes})

    return change


def images(**changes):
    def change(folder):
        for name in ("preprocessor_config.json", "processor_config.json"):
            path = folder / name
            if path.is_file():
                stored = json.loads(path.read_text())
                stored.get("image_processor", stored).update(changes)
                path.write_text(json.dumps(stored))

    return change


def generation(**changes):
    def change(folder):
        path = folder / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def weights(edit):
    def change(folder):
        path = folder / "model.safetensors"
        state = load_file(path)
        name = next(name for name in state if name.endswith(ENCODER_WEIGHT))
        edit(state, name)
        save_file(state, path, metadata={"format": "pt"})

    return change


def cast(dtype):
    return weights(lambda state, name: state.update({name: state[name].to(dtype)}))


def fill(value):
    return weights(lambda state, name: state[name].view(-1)[5:6].fill_(value))


def shards(*contents):
    """Replace the weights by an index with a `weight_map`, and the files that it names."""

    def change(folder):
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": contents[0]}))
        if len(contents) > 1:
            (folder / "b.safetensors").write_bytes((folder / "a.safetensors").read_bytes())

    return change


def quantized(**settings):
    return lambda folder: edit_json(folder / "config.json", quantization_config=settings)


def size(side, tokens, **others):
    return images(size={"height": side, "width": side}, image_seq_length=tokens, **others)


def deep(name):
    return lambda folder: (folder / name).write_text('{"a":' + "[" * 100_000)


def folder_at(name):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return change


def fifo_at(name):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


BITS_AND_BYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
HUGE = 10**400

WRONG = {
    # config.json against the weights
    "a million layers": (
        config("text_config", encoder_layers=1000),
        "encoder_layers in config.json is 1000, but the weights have 2",
    ),
    "too many layers to be meant": (
        config("text_config", encoder_layers=1_000_000),
        "encoder_layers must be .*1000000",
    ),
    "fewer layers": (
        config("text_config", decoder_layers=1),
        "decoder_layers in config.json is 1, but the weights have 2",
    ),
    "no layers": (config("text_config", encoder_layers=0), "encoder_layers must be at least 1"),
    "negative layers": (config("text_config", encoder_layers=-3), "encoder_layers must be at least 1 .*-3"),
    "layers in words": (
        config("text_config", encoder_layers="two"),
        "encoder_layers must be a whole number, got 'two'",
    ),
    "layers as a truth": (
        config("text_config", encoder_layers=True),
        "encoder_layers must be a whole number, got True",
    ),
    "huge layers": (config("text_config", encoder_layers=HUGE), "encoder_layers must be at least 1"),
    "wide": (config("text_config", d_model=1_000_000), "d_model in config.json is 1000000"),
    "wide feed-forward": (config("text_config", encoder_ffn_dim=999_999), "encoder_ffn_dim in config.json is 999999"),
    "many words": (config("text_config", vocab_size=1_000_000), "vocab_size in config.json is 1000000"),
    "many positions": (
        config("text_config", max_position_embeddings=999),
        "max_position_embeddings in config.json is 999",
    ),
    "depths": (
        config("vision_config", depths=[1, 1, 900, 1]),
        r"depths\[2\] in config.json is 900, but the weights have 2",
    ),
    "one stage less": (config("vision_config", depths=[1, 1, 2]), "one for each stage"),
    "window of 0": (config("vision_config", window_size=0), "window_size must be at least 1 .*got 0"),
    "heads of images": (
        config("vision_config", num_heads=[3, 4, 6, 8]),
        "must be divisible by vision_config.num_heads 3",
    ),
    "stride of 0": (config("vision_config", patch_stride=[0, 2, 2, 2]), "patch_stride must be at least 1"),
    "dropout": (config("text_config", dropout=1.5), "dropout must be .*got 1.5"),
    "dropout as NaN": (config("text_config", dropout=float("nan")), "dropout must be .*got nan"),
    "projection": (config("vision_config", projection_dim=64), "projection_dim in config.json is 64"),
    # quantized checkpoints
    **{
        f"quantized with {message}": (quantized(**settings), f"is quantized with {message}; .*not quantized")
        for message, settings in {
            "bitsandbytes, 4 bits": BITS_AND_BYTES,
            "gptq, 3 bits": {"quant_method": "gptq", "bits": 3},
            "awq, 4 bits": {"quant_method": "awq", "w_bit": 4},
            "fp8, 8 bits": {"quant_method": "fp8"},
            "torchao, 4 bits": {"quant_method": "torchao", "quant_type": {"default": "int4_weight_only"}},
            "compressed-tensors, 8 bits": {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8}}},
            },
        }.items()
    },
    "unknown method": (lambda f: edit_json(f / "config.json", quantization_config=[1]), "an unknown method"),
    "quantized weights": (
        weights(lambda s, name: s.update({f"{name}.absmax": torch.ones(3)})),
        r"is quantized .*fc1\.weight\.absmax",
    ),
    "8-bit floats": (cast(torch.float8_e4m3fn), "is quantized"),
    # weights
    "integers": (cast(torch.int64), "not floating-point numbers: .*fc1.weight .I64"),
    "truth values": (cast(torch.bool), "not floating-point numbers: .*fc1.weight .BOOL"),
    "bytes": (cast(torch.uint8), "not floating-point numbers"),
    "NaN": (fill(float("nan")), "NaN or infinite: .*fc1.weight"),
    "infinity": (fill(float("inf")), "NaN or infinite: .*fc1.weight"),
    "path out of the folder": (shards({"a": "../x.safetensors"}), r"index.json lists '../x.safetensors'"),
    "absolute path": (shards({"a": "/etc/passwd"}), "lists '/etc/passwd'"),
    "null byte in a path": (shards({"a": "a\0b"}), "lists 'a"),
    "long name": (shards({"a": "x" * 5000}), "lacks xxx"),
    "the folder as a shard": (shards({"a": "."}), "lists '.'"),
    "lists as shards": (shards({"a": ["b"]}), "lists no weight files"),
    "objects as shards": (shards({"a": {}}), "lists no weight files"),
    "two files with the same weights": (
        shards({"a": "a.safetensors", "b": "b.safetensors"}, 2),
        "b.safetensors contains .* too",
    ),
    # image settings
    "size in words": (images(size="768"), "size must be .*'768'"),
    "size of 0": (images(size={"height": 0, "width": 0}), r"size\.height must be at least 1"),
    "negative size": (images(size={"height": -1, "width": 768}), r"size\.height must be .*-1"),
    "huge size": (images(size={"height": 10**12, "width": 10**12}), r"size\.height must be"),
    "whole number as size": (images(size=768), "does not give images of one size"),
    "shortest edge": (images(size={"shortest_edge": 768}), "does not give images of one size"),
    "no resizing": (images(do_resize=False), "does not give images of one size"),
    "crop of 0": (images(crop_size=0), "crop_size must be"),
    "more image tokens than positions": (size(1024, 1025), "1,025 image tokens.* 1,024 positions"),
    "more rows than positions": (size(2016, 3970), "63 x 63 image tokens; the model has positions for 50"),
    "other number of image tokens": (size(768, 145), "gives 577 image tokens, but image_seq_length is 145"),
    "number of image tokens in words": (images(image_seq_length="577"), "image_seq_length must be .*'577'"),
    "resampling": (images(resample=99), "resample must be one of .*99"),
    "resampling a list": (images(resample=[]), r"resample must be one of .*\[\]"),
    "two means": (images(image_mean=[0.5, 0.5]), "image_mean must be 3 values"),
    "means in words": (images(image_mean=["a", "b", "c"]), "image_mean must be a number"),
    "deviation of 0": (images(image_std=[0, 1, 1]), "image_std must be greater than 0"),
    "negative deviation": (images(image_std=[-1, 1, 1]), "image_std must be greater than 0"),
    "rescaling by nothing": (images(rescale_factor=None), "rescale_factor must be a number, got None"),
    "flag of 0": (images(do_rescale=0), "do_rescale must be True or False, got 0"),
    "flag of nothing": (images(do_normalize=None), "do_normalize must be True or False, got None"),
    # generation settings
    "no beams": (generation(num_beams=0), "num_beams must be .*got 0"),
    "beams in words": (generation(num_beams="3"), "num_beams must be .*'3'"),
    "a million beams": (generation(num_beams=10**6), "num_beams must be"),
    "half a beam": (generation(num_beams=1.5), "num_beams must be .*1.5"),
    "start outside the vocabulary": (
        generation(decoder_start_token_id=99_999),
        "decoder_start_token_id 99999 is not an id",
    ),
    "start in words": (generation(decoder_start_token_id="x"), "decoder_start_token_id must be"),
    "no start": (generation(decoder_start_token_id=None), "decoder_start_token_id must be a token id, got null"),
    "no padding": (generation(pad_token_id=None), "pad_token_id must be a token id"),
    "first token outside the vocabulary": (
        generation(forced_bos_token_id=-1),
        "forced_bos_token_id must be at least 0",
    ),
    "n-grams in a list": (generation(no_repeat_ngram_size=[]), "no_repeat_ngram_size must be"),
    "n-grams as a truth": (generation(no_repeat_ngram_size=True), "no_repeat_ngram_size must be"),
    "another output": (generation(return_dict_in_generate=True), "return_dict_in_generate must be"),
    "several answers": (generation(num_return_sequences=2), "num_return_sequences must be"),
    "temperature": (generation(temperature=float("inf")), "temperature must be"),
    "unsupported search": (generation(penalty_alpha=0.5), "penalty_alpha must be"),
    # files
    **{
        f"{name} nested": (deep(name), f"{name} is not valid JSON: it is nested")
        for name in ("config.json", "generation_config.json")
    },
    "tokenizer nested": (deep("tokenizer.json"), "tokenizer.json is not valid JSON: it is nested"),
    "index nested": (
        lambda f: (f / "model.safetensors").unlink() or deep("model.safetensors.index.json")(f),
        "index.json is not valid JSON: it is nested",
    ),
    "folder in place of the config": (folder_at("config.json"), "has no config.json"),
    "folder in place of the weights": (folder_at("model.safetensors"), "has no weights"),
    "folder in place of the tokenizer's settings": (
        folder_at("tokenizer_config.json"),
        "tokenizer_config.json is not a regular file",
    ),
    "pipe in place of generation settings": (
        fifo_at("generation_config.json"),
        "generation_config.json is not a regular file",
    ),
    "pipe in place of the weights": (fifo_at("model.safetensors"), "has no weights"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_folder_is_refused_at_load(folder, change, message, capfd):
    change(folder)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(folder)
    assert time.monotonic() - start < 10  # about 0.1 s when nothing else runs
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("image_token_id", [None, 5, 10**6, -1, "x"])
def test_the_image_token_of_transformers_layout_must_be_that_of_the_tokenizer(saved_once, tmp_path, image_token_id):
    for path in saved_once.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    edit_json(tmp_path / "config.json", image_token_id=image_token_id)
    with pytest.raises(CheckpointError, match=r"config.json is invalid: image_token_id .*(1411|must be)"):
        load_checkpoint(tmp_path)


SHORT = {
    "beams and stopping only": {"num_beams": 3, "early_stopping": False},
    "empty": {},
    "absent": None,
    "dangling": "link",
}


@pytest.mark.parametrize("settings", SHORT.values(), ids=SHORT)
def test_what_generation_settings_lack_is_that_of_the_text_model(folder, tiny, settings):
    path = folder / "generation_config.json"
    path.unlink()
    if settings == "link":
        path.symlink_to(folder / "nope.json")
    elif settings is not None:
        path.write_text(json.dumps(settings))
    stored = json.loads((folder / "config.json").read_text())["text_config"]
    config("text_config", **stored | {"num_beams": 3, "no_repeat_ngram_size": 3, "early_stopping": True})(folder)
    model, _ = load_checkpoint(folder)
    expected = tiny.model.generation_config.to_diff_dict() | (settings if isinstance(settings, dict) else {})
    assert model.generation_config.to_diff_dict() == expected


def test_a_field_that_changes_what_the_model_returns_is_not_read(folder):
    stored = json.loads((folder / "config.json").read_text())["text_config"]
    edit_json(
        folder / "config.json", return_dict=False, output_attentions=True, text_config=stored | {"return_dict": False}
    )
    model, _ = load_checkpoint(folder)
    assert model.config.return_dict
    assert not model.config.output_attentions


def test_embeddings_padded_to_a_multiple_of_64_are_accepted(saved_once, tmp_path):
    for path in Path(saved_once).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    rows = {name: torch.nn.functional.pad(t, (0, 0, 0, 1472 - 1412)) for name, t in state.items() if t.shape[0] == 1412}
    save_file(state | rows, tmp_path / "model.safetensors", metadata={"format": "pt"})
    stored = json.loads((tmp_path / "config.json").read_text())["text_config"]
    config("text_config", **stored | {"vocab_size": 1472})(tmp_path)
    model, processor = load_checkpoint(tmp_path)
    assert model.config.image_token_id == processor.image_token_id == 1411
