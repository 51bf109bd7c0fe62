"""Measure the memory of loading, relative to the size of the weights: `python tests/measure_loading.py FOLDER [base or large]`.

Writes a checkpoint of random weights into FOLDER in each supported format, and loads each in a process of its own. The last
line printed is JSON: format -> growth of the peak memory / size of the weights in float32.
"""

import json
import os
import resource
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from support import TINY, copy_of_tiny
from transformers import BartConfig, Florence2Config, Florence2ForConditionalGeneration

from florence_lab.loading.checkpoint import load_checkpoint
from florence_lab.loading.published import EMBEDDINGS, published_name

SIZES = {
    # embed dims, depths, d_model, layers
    "small": ((64, 128, 256, 512), (1, 1, 3, 1), 512, 4),
    "base": ((128, 256, 512, 1024), (1, 1, 9, 1), 768, 6),
    "large": ((256, 512, 1024, 2048), (1, 1, 9, 1), 1024, 12),
}
VOCAB_SIZE = 51289


def write_checkpoints(folder, size):
    """Write random weights in the published layout, one folder for each format."""
    dims, depths, d_model, layers = SIZES[size]
    heads = [dim // 32 for dim in dims]
    text = {"d_model": d_model, "encoder_layers": layers, "decoder_layers": layers, "vocab_size": VOCAB_SIZE}
    text |= {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in (("ffn_dim", 4 * d_model),)}
    vision = {"depths": depths, "num_heads": heads, "num_groups": heads, "projection_dim": d_model}
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(
            Florence2Config(vision_config=vision | {"embed_dim": dims}, text_config=BartConfig(**text).to_dict())
        )
    state = {published_name(name): torch.randn(t.shape) * 0.02 for name, t in model.state_dict().items()}
    state = {name: tensor for name, tensor in state.items() if name not in EMBEDDINGS[1:]}
    state["image_projection"] = state["image_projection"].T.contiguous()

    config = json.loads((TINY / "config.json").read_text())
    config["text_config"] |= text
    config["vision_config"] |= vision | {"dim_embed": dims}
    half = {name: tensor.half() for name, tensor in state.items()}
    for name, stored, save, file in (
        ("safetensors", state, save_file, "model.safetensors"),
        ("half", half, save_file, "model.safetensors"),
        ("bin", state, torch.save, "pytorch_model.bin"),
        ("half bin", half, torch.save, "pytorch_model.bin"),
    ):
        copy = copy_of_tiny(folder / name)
        (copy / "model.safetensors").unlink()
        (copy / "config.json").write_text(json.dumps(config))
        save(stored, copy / file)
        pad_tokenizer(copy)


def pad_tokenizer(folder):
    """Fill the 387 tokens of the tiny tokenizer up, so that `<image>` follows the last token of the real vocabulary."""
    for name in ("tokenizer.json", "vocab.json"):
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8"))
        vocab = content if name == "vocab.json" else content["model"]["vocab"]
        vocab |= {f"\u0120word{i}": i for i in range(len(vocab), VOCAB_SIZE - 1024)}
        path.write_text(json.dumps(content), encoding="utf-8")


def main(folder, size="small"):
    torch.set_num_threads(1)  # a process that has threads is not safe to fork
    # not in this process: its children would reuse the memory that it freed, and not grow
    in_process(lambda: write_checkpoints(folder, size))
    in_process(lambda: save_transformers(folder))
    size_in_bytes = (folder / "safetensors/model.safetensors").stat().st_size
    load_checkpoint(TINY)  # imports of the libraries on first use do not count
    names = ("safetensors", "half", "bin", "half bin", "transformers", "transformers bin")
    ratios = {name: in_process(lambda name=name: load_and_touch(folder / name)) / size_in_bytes for name in names}
    print(f"{size_in_bytes / 1e6:.0f} MB of weights")
    print(json.dumps(ratios))


def load_and_touch(folder):
    model, _ = load_checkpoint(folder)
    for weight in model.parameters():
        weight.sum()  # mapped pages take no memory until they are read


def save_transformers(folder):
    model, processor = load_checkpoint(folder / "safetensors")
    model.save_pretrained(folder / "transformers")
    processor.save_pretrained(folder / "transformers")
    shutil.copytree(folder / "transformers", folder / "transformers bin")
    (folder / "transformers bin/model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "transformers bin/pytorch_model.bin")


def in_process(call):
    """Return by how many bytes the peak memory of a new process grows while it calls `call`."""
    pipe_out, pipe_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        before = peak()  # starts anew in a forked process
        call()
        os.write(pipe_in, str(peak() - before).encode())
        os._exit(0)
    os.close(pipe_in)
    with os.fdopen(pipe_out) as output:
        growth = output.read()
    if os.waitpid(pid, 0)[1] or not growth:
        sys.exit("loading failed")
    return int(growth)


def peak():
    """Return the peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
