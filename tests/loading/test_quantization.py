"""Quantized weights: what is refused, and on CUDA what they do."""

import copy
import importlib.util
import sys

import pytest
import torch
from support import PHOTO

from florence_lab import load
from florence_lab.exceptions import ArgumentError, CheckpointError
from florence_lab.loading import quantization
from florence_lab.loading.quantization import check_quantization, quantize_model
from florence_lab.scenes import HELD_OUT_SEEDS, draw_scene

has_torchao = importlib.util.find_spec("torchao") is not None
CUDA = torch.device("cuda:0")


@pytest.fixture
def gpu(monkeypatch):
    """Claim a GPU of a compute capability."""

    def use(capability=(9, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Quadro")

    return use


@pytest.mark.parametrize(
    ("quantize", "device", "dtype", "capability", "message"),
    [
        ("int3", CUDA, torch.bfloat16, (9, 0), "'int3'.*int8, int4"),
        ("int4", torch.device("cpu"), torch.bfloat16, (9, 0), r"quantize='int4'.*cpu, only on cuda.*'int8' or dtype"),
        ("int8", torch.device("mps"), torch.bfloat16, (9, 0), "mps, only on cpu and cuda; use dtype='bf16'"),
        ("int4", CUDA, torch.float32, (9, 0), "float32.*dtype='bf16'"),
        ("int4", CUDA, torch.float16, (9, 0), "float16"),
        ("int4", CUDA, torch.bfloat16, (7, 5), "8.0.*Quadro.*quantize='int8'"),
    ],
)
def test_what_cannot_work_is_refused(gpu, quantize, device, dtype, capability, message):
    gpu(capability)
    with pytest.raises(ArgumentError, match=message):
        check_quantization(quantize, device, dtype)


@pytest.mark.parametrize("quantize", quantization.QUANTIZATIONS)
def test_without_torchao_the_extra_is_named(gpu, monkeypatch, quantize):
    gpu()
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ArgumentError, match=r"florence_lab\[quantize\]"):
        check_quantization(quantize, CUDA, torch.bfloat16)


def test_load_refuses_before_it_reads_a_checkpoint():
    with pytest.raises(ArgumentError, match="only on cuda"):
        load("nowhere at all", device="cpu", quantize="int4")


@pytest.mark.skipif(
    torch.backends.quantized.engine not in quantization._ENGINES, reason="needs torch's quantized kernels"
)
def test_compilation_and_quantization_exclude_each_other():
    with pytest.raises(ArgumentError, match=r"quantize='int8' cannot be combined with compile=True"):
        load("nowhere at all", device="cpu", quantize="int8", compile=True)


def test_a_processor_without_the_kernels_is_refused(monkeypatch):
    monkeypatch.setattr(quantization, "_ENGINES", ())
    with pytest.raises(ArgumentError, match="x86"):
        check_quantization("int8", torch.device("cpu"), torch.float32)


needs_kernels = pytest.mark.skipif(
    torch.backends.quantized.engine not in quantization._ENGINES, reason="needs torch's quantized kernels"
)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_of_8_bits_is_close_to_the_whole_one(dtype, bias):
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 48, bias=bias, dtype=dtype)
    with torch.no_grad():
        layer.weight[3] = 0  # a row without a scale
        layer.weight[5] *= 100  # a row that would take all levels of a common scale
    inputs = torch.randn(2, 7, 64, dtype=dtype)
    with torch.inference_mode():
        found, expected = quantization.Int8Linear(layer)(inputs), layer(inputs)
    assert found.dtype == dtype
    assert found.shape == expected.shape
    errors, sizes = (tensor.float().abs().amax(dim=(0, 1)) for tensor in (found - expected, expected))
    assert (errors <= 0.06 * sizes + 1e-6).all()


@needs_kernels
def test_on_a_cpu_the_decoder_is_quantized_and_nothing_else(nano):
    predictor = load("florence-2-nano", device="cpu", quantize="int8")
    kinds = {name: type(module) for name, module in predictor.model.named_modules()}
    assert (
        kinds["lm_head"]
        is kinds["model.language_model.decoder.layers.0.encoder_attn.k_proj"]
        is quantization.Int8Linear
    )
    assert kinds["model.language_model.encoder.layers.0.fc1"] is torch.nn.Linear
    known = nano.model.state_dict()
    state = predictor.model.state_dict()
    assert not [name for name in state if not torch.equal(state[name], known[name])]
    scene = draw_scene(HELD_OUT_SEEDS[0], 192).image
    plain, quantized = (p.predict(scene, "<OD>", num_beams=1) for p in (nano, predictor))
    assert set(quantized.labels) == set(plain.labels)
    with pytest.raises(CheckpointError, match="cannot be saved"):
        predictor.save_pretrained("nowhere")
    with pytest.raises(ArgumentError, match="cannot be compiled"):
        predictor.compile()


def test_the_layers_of_an_adapter_are_refused(small):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(copy.deepcopy(small.model), LoraConfig(target_modules=["q_proj"])).get_base_model()
    with pytest.raises(ArgumentError, match="merge it first"):
        quantize_model(model, "int8")


@pytest.fixture
def wide_model(small):
    """A model whose linear layers have the sizes that are quantized."""
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    config = copy.deepcopy(small.model.config)
    text = config.text_config.to_dict() | {"d_model": 128, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256}
    vision = config.vision_config.to_dict() | {"projection_dim": 128}
    torch.manual_seed(0)
    return Florence2ForConditionalGeneration(
        Florence2Config(text_config=text, vision_config=vision, image_token_id=config.image_token_id)
    ).eval()


@pytest.mark.skipif(not has_torchao, reason="needs torchao")
def test_torchao_quantizes_the_language_model_and_nothing_else(wide_model, monkeypatch):
    """On the CPU, where torchao computes the same, slowly."""
    monkeypatch.setattr(type(wide_model), "device", CUDA)
    model = wide_model
    before = copy.deepcopy(model)
    quantize_model(model, "int8")
    assert type(model.lm_head.weight) is not torch.nn.Parameter
    assert type(model.model.language_model.decoder.layers[0].fc1.weight.data) is not torch.Tensor
    for name in ("model.language_model.shared.weight", "model.multi_modal_projector.image_projection.weight"):
        assert torch.equal(model.get_parameter(name), before.get_parameter(name))
    inputs = torch.randn(1, 5, 128), torch.tensor([[2, 0, 7]])
    with torch.inference_mode():
        a, b = (m(inputs_embeds=inputs[0], decoder_input_ids=inputs[1]).logits for m in (model, before))
    assert 0 < (a - b).abs().max() < 0.05 * b.abs().max()
    with pytest.raises(CheckpointError, match="cannot be saved"):
        model.save_pretrained("nowhere")


@pytest.mark.gpu
@pytest.mark.skipif(not has_torchao, reason="needs torchao")
@pytest.mark.parametrize("quantize", quantization.QUANTIZATIONS)
def test_a_quantized_model_answers_on_a_gpu(quantize):
    plain = load("florence-2-nano", device="cuda", dtype="bf16")
    quantized = load("florence-2-nano", device="cuda", dtype="bf16", quantize=quantize)
    a, b = (predictor.predict(PHOTO, "<CAPTION>", num_beams=1).raw for predictor in (plain, quantized))
    assert a[:3] == b[:3]
