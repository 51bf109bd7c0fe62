"""Linear layers for one row: the products, and what happens without a compiler."""

import copy
import shutil

import pytest
import torch

from florence_lab.inference import matvec
from florence_lab.inference.compilation import reorder_weights
from florence_lab.inference.matvec import is_one_row, one_row_linear

requires_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory):
    """Kernels are compiled once for the tests, into a folder of theirs."""
    folder = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matvec, "cache_dir", lambda name: folder)
        matvec._load_function.cache_clear()
        yield folder
    matvec._load_function.cache_clear()


def layer(num_out, num_in, dtype, has_bias=True):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)  # noqa: E731
    return draw(num_out, num_in), draw(num_out) if has_bias else None, draw(num_in)


@requires_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_out", "num_in"), [(1, 1), (3, 63), (64, 64), (65, 129), (768, 3072), (51, 768)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_product_is_that_of_torch(dtype, num_out, num_in, has_bias, threads):
    weight, bias, x = layer(num_out, num_in, dtype, has_bias)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    output = one_row_linear(weight, bias)(x[None, None])
    torch.set_num_threads(before)
    exact = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert output.shape == (1, 1, num_out)
    assert output.dtype == dtype
    # half a unit in the last place of bf16, or the error of a sum in fp32
    torch.testing.assert_close(output[0, 0].double(), exact, rtol=2**-8 if dtype == torch.bfloat16 else 1e-5, atol=2e-4)


@requires_compiler
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 3.3e38, 1.00390625, 1.01171875, -0.0, 1e-40]
)
def test_bf16_is_rounded_as_torch_rounds(value):
    """1.0039 and 1.0117 are half-way between two numbers."""
    weight, bias = torch.ones(1, 2, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16)
    x = torch.tensor([[value, 0.0]]).bfloat16()
    if value in (1.00390625, 1.01171875):  # a sum that bf16 cannot hold
        x = torch.tensor([[1.0, value - 1]]).bfloat16()
    expected = x.float().sum().bfloat16()
    output = one_row_linear(weight, bias)(x)[0, 0]
    assert output.equal(expected) or (output.isnan() and expected.isnan())


@requires_compiler
def test_inputs_need_not_be_contiguous():
    weight, bias, x = layer(8, 16, torch.float32)
    strided = torch.stack([x, x], dim=1)[:, 0]
    assert not strided.is_contiguous()
    assert one_row_linear(weight.T.contiguous().T, bias)(strided[None]).equal(one_row_linear(weight, bias)(x[None]))


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((1, 1, 8), torch.float32, True),
        ((8,), torch.float32, True),
        ((1, 8), torch.bfloat16, False),
        ((2, 1, 8), torch.float32, False),
        ((1, 2, 8), torch.float32, False),
        ((0, 8), torch.float32, False),
    ],
)
def test_one_row_in_the_dtype_of_the_weights_is_taken(shape, dtype, expected):
    assert is_one_row(torch.zeros(shape, dtype=dtype), torch.float32) is expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_have_no_kernel(dtype):
    assert one_row_linear(*layer(4, 4, dtype)[:2]) is None


@requires_compiler
def test_the_kernel_is_compiled_once(cache_folder, monkeypatch):
    weight, bias, _ = layer(4, 4, torch.float32)
    assert one_row_linear(weight, bias)
    monkeypatch.setattr(matvec.subprocess, "run", pytest.fail)
    matvec._load_function.cache_clear()
    assert one_row_linear(weight, bias)
    assert [path.suffix for path in cache_folder.iterdir()] == [".so"]


@pytest.mark.parametrize("fault", ["no compiler", "no folder", "no success"])
def test_without_the_kernel_there_is_no_function(fault, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    if fault == "no compiler":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    if fault == "no folder":
        folder.write_text("a file")
    if fault == "no success":
        monkeypatch.setattr(matvec, "_FLAGS", ("--no-such-flag",))
    monkeypatch.setattr(matvec, "cache_dir", lambda name: folder)
    matvec._load_function.cache_clear()
    linear = torch.nn.Linear(8, 4).requires_grad_(False)
    assert one_row_linear(linear.weight, linear.bias) is None
    matvec._load_function.cache_clear()


@requires_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_row_and_many_rows_give_the_same_hidden_states(small, dtype):
    """The first by the kernel, the others by oneDNN."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("needs oneDNN")
    model = copy.deepcopy(small.model).to(dtype)
    layer = model.model.language_model.decoder.layers[0].fc1
    plain = torch.nn.functional.linear
    reorder_weights(model)
    x = torch.randn(3, 1, layer.in_features, generator=torch.Generator().manual_seed(0)).to(dtype)
    one, many = layer(x[:1]), layer(x)
    torch.testing.assert_close(one, many[:1])
    torch.testing.assert_close(one, plain(x[:1], layer.weight, layer.bias))


def test_an_input_on_another_device_is_left_to_torch():
    """The kernel would read its address, and end the process."""
    assert is_one_row(torch.zeros(1, 8), torch.float32)
    assert not is_one_row(torch.zeros(1, 8, device="meta"), torch.float32)
