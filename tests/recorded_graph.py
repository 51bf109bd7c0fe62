"""A stand-in for CUDA graphs on the CPU."""

from typing import ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

SYNCHRONIZING = {
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::unique_dim",
    "aten::_unique2",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::repeat_interleave",
}
"""Operations that wait for the device, or whose output has a shape that depends on values. A capture fails at them."""


class RecordedGraph(TorchDispatchMode):
    """Records the operations of a step with their tensors and numbers, and repeats just those.

    As in a CUDA graph, nothing of the step's Python code runs in a replay: numbers are those of the capture, shapes do not change,
    and tensors from outside are read and written where they were.
    """

    num_captured: ClassVar[int] = 0
    num_replayed: ClassVar[int] = 0

    def __init__(self):
        super().__init__()
        self._operations = []

    @classmethod
    def capture(cls, step, pool):
        """Capture a step, as `capture_cuda_graph` does."""
        graph = cls()
        with torch.random.fork_rng(devices=[]):
            step()
            with graph:
                step()
        cls.num_captured += 1
        return graph.replay

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function._schema.name
        assert name not in SYNCHRONIZING, f"{name} in a step"
        if name.startswith(
            "aten::lift_fresh"
        ):  # of a tensor from the host; assigning a number to a slice only fills it
            assert args[0].dim() == 0, "torch.tensor(…) in a step"
        if name in ("aten::index", "aten::index_put", "aten::index_put_"):
            masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{name} with a mask in a step"
        output = function(*args, **kwargs)
        self._operations.append((function, args, kwargs, output))
        return output

    def replay(self):
        """Repeat the recorded operations."""
        type(self).num_replayed += 1
        values = {}

        def current(item):
            return values.get(id(item), item) if isinstance(item, torch.Tensor) else item

        for function, args, kwargs, output in self._operations:
            repeated = function(*tree_map(current, args), **tree_map(current, kwargs))
            for recorded, new in zip(tree_flatten(output)[0], tree_flatten(repeated)[0], strict=True):
                if isinstance(recorded, torch.Tensor):
                    assert recorded.shape == new.shape
                    values[id(recorded)] = new
