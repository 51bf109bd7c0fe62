"""`load`: a model by its name, folder or hub id."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError
from ..inference.device import resolve_dtype, select_device
from ..loading.adapters import load_model
from ..loading.hub import resolve
from ..loading.quantization import check_quantization, quantize_model
from .predictor import Predictor

logger = logging.getLogger(__name__)


@validate_arguments
def load(
    model_type_or_path: str | Path,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "fp32",
    hub: str | None = None,
    compile: bool = False,
    base: str | Path | None = None,
    processor: str | Path | None = None,
    graphs: bool = True,
    quantize: str | None = None,
) -> Predictor:
    """Load a Florence-2 model.

    Args:
        model_type_or_path: one of `available_models()`, a checkpoint folder in the published or in transformers' layout, the
            folder of a LoRA adapter, or the id of a model on a hub (`org/name`).
        device: `"cuda"`, `"cpu"` …; `"auto"` is CUDA if available, else MPS, else the CPU.
        dtype: `"fp32"` (the default, gives exactly the published results), `"fp16"`, `"bf16"`, `"auto"` (bf16 if the device
            computes in it, else fp32), or a `torch.dtype`.
        hub: `"modelscope"` or `"hf"`; by default the environment variable `FLORENCE_LAB_HUB`, else ModelScope.
        compile: compile the image encoder ahead of time, see `Predictor.compile`. Without effect on CUDA.
        base: the base model of a LoRA adapter, a name or a folder; by default the one that `adapter_config.json` names, which
            may be a path of another machine.
        processor: the model whose tokenizer and image settings are used, for a folder that has weights and config only.
        graphs: run the model as CUDA graphs, which launch all kernels of a step at once. They need memory of their own: at most
            a quarter of the GPU's for the decoder. Without effect on other devices.
        quantize: `"int8"` lets the decoder compute with 8-bit weights, which makes it faster on a CPU and changes some answers. On
            CUDA, `"int8"` and `"int4"` (with `dtype="bf16"`) store the language model in 8 or 4 bits, which saves memory; that
            needs torchao, the extra `quantize`. A quantized model cannot be saved or compiled, and runs without graphs.

    Raises:
        ArgumentError: for an unknown name, hub, device or dtype, or a `quantize` that does not work here.
        HubError: if the model cannot be downloaded.
        CheckpointError: if the folder is not a complete Florence-2 checkpoint.
    """
    torch_device = select_device(device)
    torch_dtype = resolve_dtype(dtype, torch_device)
    if quantize is not None:
        check_quantization(quantize, torch_device, torch_dtype)
        if compile and torch_device.type != "cuda":
            raise ArgumentError(f"quantize={quantize!r} cannot be combined with compile=True; choose one of them")
    folder = resolve(model_type_or_path, hub)
    model, model_processor = load_model(folder, torch_dtype, hub, base=base, processor=processor)
    model.to(torch_device)  # type: ignore[arg-type]  # transformers' decorator hides the signature
    if quantize is not None:
        quantize_model(model, quantize)
    # the static decoder joins weights, which quantized layers do not have
    predictor = Predictor(model, model_processor, str(model_type_or_path), graphs and quantize is None)
    if dtype == "auto":
        logger.info("%s runs in %s on %s", predictor.name, str(torch_dtype).removeprefix("torch."), torch_device)
    return predictor.compile() if compile else predictor
