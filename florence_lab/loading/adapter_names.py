"""Names in adapters: whether they are those of the published code or of transformers, and their translation to transformers'.

PEFT names a weight `base_model.model.<module>.<its own part>`, as in `base_model.model.lm_head.lora_A.weight`, and a module that was
trained as a whole `base_model.model.<weight>`. `<module>` depends on the code that was trained, and on which part of the model was
wrapped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import nn

from .published import published_name

PREFIX = "base_model.model."

# Names of the modules of the published code or of transformers, in a PEFT model that wraps a part of the model
_SCHEMES = (
    ("transformers", ""),
    ("published", ""),
    ("transformers", "model."),
    ("transformers", "model.language_model."),
    ("transformers", "model.vision_tower."),
    ("published", "language_model."),
    ("published", "vision_tower."),
)

# What PEFT appends to the name of a module
_OWN_PART_RE = re.compile(
    r"(lora_|ada_|ia3_|hada_|lokr_|oft_|boft_|vera_|hra_|base_layer\.|token_adapter\.|original_module\.)"
)

# The name of the adapter, which a state dict has that was not saved by PEFT
_ADAPTER_NAME_RE = re.compile(r"(\.(?:lora_[A-Za-z_]+|modules_to_save|original_module))\.default(?=\.|$)")


class AdapterKey(NamedTuple):
    """A name of a stored tensor, translated.

    Attributes:
        module: transformers' name of the module; for a whole weight, that of the weight.
        part: what PEFT appends, such as `lora_A.weight`; empty for a whole weight.
    """

    module: str
    part: str

    @property
    def name(self) -> str:
        """The name of the tensor in transformers' naming."""
        return f"{PREFIX}{self.module}.{self.part}" if self.part else PREFIX + self.module


@dataclass(frozen=True)
class Naming:
    """A way in which adapters name the modules of a model.

    Attributes:
        is_published: whether the names are those of the published code.
        modules: name in the adapter -> transformers' name of a module.
        weights: name in the adapter -> transformers' name of a weight.
        keys: translated names of tensors.
        unknown: names of tensors that the naming does not explain.
    """

    is_published: bool
    modules: dict[str, str]
    weights: dict[str, str]
    keys: dict[str, AdapterKey] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def translate(self, stored: Iterable[str]) -> None:
        """Fill `keys` and `unknown` from the names of the tensors."""
        for name in stored:
            key = self._translate(strip_adapter_name(name))
            if key is None:
                self.unknown.append(name)
            else:
                self.keys[name] = key

    def _translate(self, name: str) -> AdapterKey | None:
        name = name.removeprefix(PREFIX)
        if name in self.weights:
            return AdapterKey(self.weights[name], "")
        module = name
        while "." in module:
            module = module.rpartition(".")[0]
            if module in self.modules:
                part = name.removeprefix(f"{module}.")
                return AdapterKey(self.modules[module], part) if _OWN_PART_RE.match(part) else None
        return None


def find_naming(model: nn.Module, stored: Iterable[str]) -> Naming:
    """Return the naming that explains most of the tensors of an adapter.

    Args:
        model: transformers' Florence-2.
        stored: the names of the tensors.
    """
    names = list(stored)
    namings = []
    for kind, prefix in _SCHEMES:
        naming = _build_naming(model, published_name if kind == "published" else str, prefix, kind == "published")
        naming.translate(names)
        if not naming.unknown:
            return naming
        namings.append(naming)
    return min(namings, key=lambda naming: len(naming.unknown))


def strip_adapter_name(name: str) -> str:
    """Remove what a PEFT model has in the names of its tensors, but PEFT does not save."""
    return _ADAPTER_NAME_RE.sub(r"\1", name).replace(".modules_to_save.", ".")


def _build_naming(model: nn.Module, rename: Callable[[str], str], prefix: str, is_published: bool) -> Naming:
    def translated(names: Iterable[str], end: str) -> dict[str, str]:
        pairs = ((rename(name + end).removesuffix(end), name) for name in names)
        return {new.removeprefix(prefix): name for new, name in pairs if new and new.startswith(prefix)}

    modules = translated((name for name, _ in model.named_modules() if name), ".weight")
    return Naming(is_published, modules, translated(model.state_dict(), ""))
