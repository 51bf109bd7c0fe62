"""Stopping a model from another thread, also where a graph is replayed in place of its layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..exceptions import GenerationInterrupted

_CAPTURING = "transformers.utils.output_capturing"
"""Module of the hooks that transformers adds at the first call with `output_attentions=True` or the like, and never removes.

They act only during such calls.
"""

_INSTALLED = "_output_capturing_hooks_installed"
"""Attribute by which transformers remembers that it has added them."""


class InterruptCheck:
    """A forward pre-hook that stops the model."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        """
        Args:
            should_stop: called before each layer and each token.
        """
        self._should_stop = should_stop

    def __call__(self, *_: Any) -> None:
        """Raise `GenerationInterrupted` once `should_stop()` is true."""
        if self._should_stop():
            raise GenerationInterrupted


def check_interrupts(module: nn.Module) -> None:
    """Call the checks that are registered with a module, which a replayed graph does not."""
    for hook in list(_hooks(module, "_forward_pre_hooks").values()):  # another thread may remove one meanwhile
        if isinstance(hook, InterruptCheck):
            hook()


def has_other_hooks(module: nn.Module) -> bool:
    """Return whether anything but interruption depends on the calls of a module."""
    if any(getattr(hook, "__module__", None) != _CAPTURING for hook in list(_hooks(module, "_forward_hooks").values())):
        return True
    return any(not isinstance(hook, InterruptCheck) for hook in list(_hooks(module, "_forward_pre_hooks").values()))


def remove_capturing_hooks(model: nn.Module) -> None:
    """Remove the hooks that transformers leaves behind, which cannot be pickled. It adds them again when it needs them."""
    for module in model.modules():
        hooks = _hooks(module, "_forward_hooks")
        for key, hook in list(hooks.items()):
            if getattr(hook, "__module__", None) == _CAPTURING:
                hooks.pop(key, None)
        if hasattr(module, _INSTALLED):
            setattr(module, _INSTALLED, False)


def _hooks(module: nn.Module, name: str) -> dict[int, Any]:
    # torch has no public way to list them
    hooks: dict[int, Any] = getattr(module, name)
    return hooks
