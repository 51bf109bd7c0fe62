"""The choice of a model: one of the registered ones, or any folder or hub id."""

from __future__ import annotations

from collections.abc import Callable

from ipywidgets import Dropdown, Layout, Text, VBox

from ..loading.registry import available_models

_OTHER = "a folder or hub id …"


class ModelChooser(VBox):
    """A menu of models, with a field for a checkpoint folder or hub id.

    Attributes:
        menu: the registered models, and an entry that shows the field.
        field: a checkpoint folder or hub id.
    """

    def __init__(self, model_name: str, on_change: Callable[[], None]) -> None:
        """Create a chooser that is set to a model. `on_change` is called after every change by the user."""
        self.menu = Dropdown(options=[*available_models(), _OTHER], layout=Layout(width="100%"))
        self.field = Text(placeholder="checkpoint folder, or organization/name", layout=Layout(width="100%"))
        super().__init__([self.menu, self.field], layout=Layout(width="100%"))
        self.model_name = model_name
        self._show_field()
        self.menu.observe(lambda change: self._show_field(), "value")
        for control in (self.menu, self.field):
            control.observe(lambda change: on_change(), "value")

    @property
    def model_name(self) -> str:
        """The model, as `florence_lab.load` takes it; "" if the field is empty."""
        return self.field.value.strip().strip("\"'") if self.menu.value == _OTHER else self.menu.value

    @model_name.setter
    def model_name(self, model_name: str) -> None:
        is_registered = model_name in available_models()
        self.field.value = "" if is_registered else model_name
        self.menu.value = model_name if is_registered else _OTHER

    def _show_field(self) -> None:
        self.field.layout.display = None if self.menu.value == _OTHER else "none"
