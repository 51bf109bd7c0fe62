"""Linear layers for one row on a CPU, as fast as their weights are read from memory.

A decoder reads each weight once per token. The matrix products of MKL and oneDNN reach about half of the memory bandwidth for a
single row; the kernel of `matvec.cpp` reaches nearly all of it. It is compiled once, in a second, and cached on disk.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from ..exceptions import summarize_error
from ..loading.files import cache_dir

logger = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("matvec.cpp")
_FUNCTIONS = {torch.float32: "multiply_fp32", torch.bfloat16: "multiply_bf16"}
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fopenmp")
# not -march=native: a cache in a home folder may be shared by machines
_CAPABILITY_FLAGS = {
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"),
    "AVX2": ("-mavx2", "-mfma"),
}

RowFunction = Callable[[torch.Tensor], torch.Tensor]
"""(… x in) of one row -> (… x out)."""


def one_row_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> RowFunction | None:
    """Return a linear layer (out x in, out) for inputs of a single row; None if this machine has no compiler for it.

    Products are summed in fp32, in bf16 too. There is no gradient.
    """
    function = _load_function(weight.dtype)
    if function is None or weight.device.type != "cpu":
        return None
    weight = weight.detach().contiguous()
    bias = None if bias is None else bias.detach().to(weight.dtype).contiguous()
    num_out, num_in = weight.shape

    def run(x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        output = x.new_empty((*x.shape[:-1], num_out))
        bias_pointer = None if bias is None else bias.data_ptr()
        threads = torch.get_num_threads()
        function(weight.data_ptr(), x.data_ptr(), bias_pointer, output.data_ptr(), num_out, num_in, threads)
        return output

    return run


def is_one_row(x: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether `one_row_linear` takes an input."""
    # the kernel reads memory by its address: that of another device would end the process
    return x.numel() == x.shape[-1] and x.dtype == dtype and x.device.type == "cpu"


@cache
def _load_function(dtype: torch.dtype) -> Callable[..., None] | None:
    if dtype not in _FUNCTIONS:
        return None
    try:
        function = getattr(ctypes.CDLL(str(_compile(cache_dir("compiled")))), _FUNCTIONS[dtype])
    except (OSError, subprocess.SubprocessError) as error:
        logger.info("linear layers for one row are not compiled: %s", summarize_error(error))
        return None
    function.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 2 + [ctypes.c_int]
    function.restype = None
    kernel: Callable[..., None] = function
    return kernel


def _compile(folder: Path) -> Path:
    """The library of the kernels, which is compiled if it is not in the cache.

    Raises:
        OSError, subprocess.SubprocessError: without a compiler that compiles it, and for a folder that cannot be written to.
    """
    flags = [*_FLAGS, *_CAPABILITY_FLAGS.get(torch.backends.cpu.get_cpu_capability(), ())]
    key = hashlib.sha256(repr((_SOURCE.read_bytes(), flags, platform.platform(), torch.__version__)).encode())
    path = folder / f"matvec-{key.hexdigest()[:16]}.so"
    if path.exists():
        return path
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "c++", *_COMPILERS))), None)
    if compiler is None:
        raise FileNotFoundError("no C++ compiler")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        built = [str(Path(temporary) / name) for name in ("matvec.o", "matvec.so")]
        # OpenMP is not linked: the library that torch has loaded is found, and there is one pool of threads
        for command in ([*flags, "-c", str(_SOURCE), "-o", built[0]], ["-shared", built[0], "-o", built[1]]):
            subprocess.run([compiler, *command], check=True, capture_output=True, timeout=120)
        os.replace(built[1], path)  # other processes see a complete file or none
    return path
