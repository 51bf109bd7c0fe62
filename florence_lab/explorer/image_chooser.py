"""The choice of an image: a sample, an upload, a path or URL, or a scene, with its preview and a region on it."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipywidgets import HTML, BoundedIntText, Button, FileUpload, HBox, Layout, Text, ToggleButtons, VBox, Widget
from ipywidgets import Image as ImageWidget

from ..scenes import HELD_OUT_SEEDS, SAMPLES
from . import markup
from .images import SourceImage, load_sample, load_scene, save_upload
from .region import RegionPicker

_SOURCES = ("Samples", "Upload", "Path or URL", "Scene")


class ImageChooser(VBox):
    """The sources of images, a preview of the selected one, and a region on it.

    Attributes:
        image: the selected image; the first sample at the beginning.
        region_picker: selects a region of the image.
        source_menu, sample_buttons, upload, path, open_button, seed, random_button: the controls.
    """

    def __init__(
        self,
        width: int,
        on_change: Callable[[], None],
        on_open: Callable[[str], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        """Create a chooser.

        Args:
            width: width of the preview in pixels.
            on_change: called after another image is selected.
            on_open: called with a path or URL that the user wants to open, which may take a while.
            on_error: called with the exception of a source that is not an image.
        """
        self._on_change, self._on_open, self._on_error = on_change, on_open, on_error
        self._folder = tempfile.TemporaryDirectory(prefix="florence_lab-")  # deleted with the chooser
        self.image = load_sample(next(iter(SAMPLES)))
        controls = self._create_controls()
        self.source_menu = ToggleButtons(options=_SOURCES, style={"button_width": "auto"}, layout=Layout(width="100%"))
        self._source = VBox(layout=Layout(min_height="60px", justify_content="center", width="100%"))
        self._source.children = [controls["Samples"]]
        self.source_menu.observe(lambda change: self._show_source(controls[change["new"]]), "value")
        self.preview = ImageWidget(format="png")
        self.preview.add_class("fl-preview")
        self.description = HTML()
        self.region_picker = RegionPicker(width)
        self.stage = VBox([self.preview], layout=Layout(width="100%"))
        super().__init__(
            [HTML(markup.heading("Image")), self.source_menu, self._source, self.stage, self.description],
            layout=Layout(grid_gap="4px", width="100%"),
        )
        self._show_image()

    def select(self, image: SourceImage) -> None:
        """Select an image."""
        self.image = image
        self._show_image()
        self._on_change()

    def select_from(self, load: Callable[[], SourceImage]) -> None:
        """Select the image that a function returns, or report its exception."""
        try:
            image = load()
        except Exception as error:  # a widget must not end in a traceback
            self._on_error(error)
        else:
            self.select(image)

    def select_object(self, source: Any, name: str) -> None:
        """Select an image that has no path: the content of a file, a PIL image, an array …"""
        self.select_from(lambda: save_upload(source, name, Path(self._folder.name)))

    def select_path(self, source: str) -> None:
        """Write a path or URL into its field, and open it."""
        self.source_menu.value, self.path.value = "Path or URL", source
        self._on_open(source)

    def show_region_picker(self, is_shown: bool) -> None:
        """Show the region picker in place of the preview, or the preview."""
        if is_shown:
            self.region_picker.show(self.image.image)
        self.stage.children = [self.region_picker if is_shown else self.preview]

    def _create_controls(self) -> dict[str, Widget]:
        self.sample_buttons = {name: Button(description=name, tooltip=f"sample: {name}") for name in SAMPLES}
        for name, button in self.sample_buttons.items():
            button.add_class("fl-sample").add_class(f"fl-sample-{name}")
            button.on_click(lambda _, name=name: self.select_from(lambda: load_sample(name)))
        self.upload = FileUpload(accept="image/*", description="Choose a file", layout=Layout(width="100%"))
        self.upload.observe(lambda change: self._take_upload(change["new"]), "value")
        self.path = Text(placeholder="path or https://…", layout=Layout(flex="1 1 0", min_width="0"))
        self.open_button = Button(description="Open", layout=Layout(width="64px"))
        self.open_button.on_click(lambda _: self._on_open(self.path.value))
        self.path.on_msg(lambda _, content, __: content.get("event") == "submit" and self.open_button.click())
        self.seed = BoundedIntText(0, 0, HELD_OUT_SEEDS[-1], description="seed", style={"description_width": "36px"})
        self.seed.layout = Layout(flex="1 1 0", min_width="0")
        self.seed.observe(lambda change: self.select_from(lambda: load_scene(change["new"])), "value")
        self.random_button = Button(description="Another", icon="random", layout=Layout(width="110px"))
        self.random_button.on_click(lambda _: setattr(self.seed, "value", random.choice(HELD_OUT_SEEDS)))
        row = Layout(justify_content="space-between", width="100%")
        return {
            "Samples": HBox([*self.sample_buttons.values()], layout=row),
            "Upload": self.upload,
            "Path or URL": HBox([self.path, self.open_button], layout=Layout(width="100%")),
            "Scene": HBox([self.seed, self.random_button], layout=Layout(width="100%")),
        }

    def _show_source(self, control: Widget) -> None:
        self._source.children = [control]
        if self.source_menu.value == "Scene":
            self.select_from(lambda: load_scene(self.seed.value))

    def _show_image(self) -> None:
        width, height = self.image.image.size
        self.preview.value = self.image.preview
        self.description.value = markup.hint(f"{self.image.name}, {width} × {height} pixels")
        for name, button in self.sample_buttons.items():
            is_selected = self.image is load_sample(name)
            (button.add_class if is_selected else button.remove_class)("fl-chosen")

    def _take_upload(self, files: tuple[dict[str, Any], ...]) -> None:
        if files:
            self.select_object(bytes(files[0]["content"]), files[0]["name"])
            self.upload.value = ()  # otherwise the same file could not be chosen again
