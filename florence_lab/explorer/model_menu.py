"""The model of the bar: one of the registered ones, or any folder or hub id."""

from __future__ import annotations

from collections.abc import Callable

from ipywidgets import Dropdown, HBox, Text

from ..loading.registry import available_models
from .access import is_public_page

_OTHER = "Folder or hub id …"


class ModelMenu(HBox):
    """A menu of models, with a field for a checkpoint folder or hub id, unless the page is public.

    Attributes:
        menu: the registered models, and an entry that shows the field.
        field: a checkpoint folder or hub id.
    """

    def __init__(self, description: str, model_name: str, on_change: Callable[[], None]) -> None:
        """Create a menu that is set to a model. `on_change` is called after every change by the user."""
        own = [model_name] if model_name and model_name not in available_models() else []
        self.menu = Dropdown(
            options=[*available_models(), *(own if is_public_page() else [_OTHER])], description=description
        )
        self.field = Text(
            placeholder="folder, or organization/name",
            description="Folder or hub id",
            tooltip=f"{description}: a checkpoint folder or a hub id",
        )
        super().__init__([self.menu, self.field])
        self.add_class("fl-model-menu")
        self.value = model_name
        self._show_field()
        self.menu.observe(lambda change: self._show_field(), "value")
        for control in (self.menu, self.field):
            control.observe(lambda change: on_change(), "value")

    @property
    def value(self) -> str:
        """The model, as `florence_lab.load` takes it; "" if the field is empty. Any name or folder can be set."""
        return self.field.value.strip().strip("\"'") if self.menu.value == _OTHER else self.menu.value

    @value.setter
    def value(self, model_name: str) -> None:
        is_listed = model_name in self.menu.options
        self.field.value = "" if is_listed else model_name
        self.menu.value = model_name if is_listed else _OTHER

    def _show_field(self) -> None:
        self.field.layout.display = None if self.menu.value == _OTHER else "none"
