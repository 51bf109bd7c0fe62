"""Devices and dtypes."""

from types import SimpleNamespace

import pytest
import torch

from florence_lab.inference import device as device_module
from florence_lab.inference.device import has_native_bf16, resolve_dtype, select_device
from florence_lab.predictor import load

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("fp32", torch.float32),
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
        ("float32", torch.float32),
        ("float16", torch.float16),
        ("bfloat16", torch.bfloat16),
        (torch.float64, torch.float64),
    ],
)
def test_a_dtype_has_a_short_and_a_long_name(name, dtype):
    assert resolve_dtype(name, CPU) is dtype


@pytest.mark.parametrize("is_native", [True, False])
def test_auto_is_bf16_only_where_the_device_computes_in_it(monkeypatch, is_native):
    monkeypatch.setattr(device_module, "has_native_bf16", lambda device: is_native)
    assert resolve_dtype("auto", CPU) is (torch.bfloat16 if is_native else torch.float32)


@pytest.mark.parametrize("dtype", ["int8", "float", torch.int64])
def test_an_unknown_dtype_is_refused(dtype):
    with pytest.raises(ValueError, match=r"unknown dtype .*: use auto, fp32, fp16, bf16, float32, float16, bfloat16"):
        resolve_dtype(dtype, CPU)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "xpu:7"])
def test_an_unavailable_device_is_refused_before_anything_is_read(device):
    with pytest.raises(ValueError, match=f"no device '{device}': use auto, cpu, cuda") as caught:
        load("/there/is/no/such/folder", device=device)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_prefers_cuda_then_mps(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert select_device("auto").type == expected


def test_a_device_is_selected_by_name():
    assert select_device("cpu") == CPU


def test_only_cpu_and_cuda_have_native_bf16():
    assert has_native_bf16(torch.device("mps")) is False
    assert has_native_bf16(CPU) in (True, False)


@pytest.mark.parametrize(
    ("machine", "avx512_bf16", "amx", "expected"),
    [
        ("x86_64", True, False, True),
        ("x86_64", False, True, True),
        ("AMD64", False, False, False),  # AVX-512 alone: oneDNN emulates bf16
        ("aarch64", False, False, True),
    ],
)
def test_a_processor_needs_instructions_for_bf16(monkeypatch, machine, avx512_bf16, amx, expected):
    ops = SimpleNamespace(mkldnn=SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True))
    monkeypatch.setattr(torch, "ops", ops)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(device_module.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert has_native_bf16(CPU) is expected
