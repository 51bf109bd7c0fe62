"""The image of the bar: a menu of samples and of images that were opened, and the field that a path or a scene needs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ipywidgets import BoundedIntText, Button, Dropdown, HBox, Text

from ..scenes import HELD_OUT_SEEDS, SAMPLES
from .access import is_public_page
from .images import SourceImage, load_sample, load_scene

PATH = "Path or URL …"
"""The entry that shows the field for a path or URL."""

SCENE = "Scene …"
"""The entry that shows the number of a scene."""

MAX_OPENED = 5
"""Images that were opened or uploaded and stay in the menu."""


class ImageMenu(HBox):
    """The choice of an image.

    Attributes:
        menu: the names of the samples and of the images that were opened, `PATH` (not on a public page) and `SCENE`.
        path, open_button: the field for a path or URL, and its button.
        seed, random_button: the number of a scene, and a button for another one.
    """

    def __init__(
        self,
        on_select: Callable[[SourceImage], None],
        on_open: Callable[[str], None],
        on_set: Callable[[Any], None],
    ) -> None:
        """Create a menu that is set to the first sample.

        Args:
            on_select: called with an image of the menu that the user selected, or with a scene.
            on_open: called with a path or URL that the user wants to open, which may take a while.
            on_set: called with a source that a cell sets as the value, if it is no entry of the menu.
        """
        self._on_select, self._on_open, self._on_set = on_select, on_open, on_set
        self._is_writing = False
        self._opened: dict[str, SourceImage] = {}  # the oldest first
        self.menu = Dropdown(description="Image", tooltip="the image that is asked about")
        self.path = Text(placeholder="path or https://…", tooltip="path or URL of an image", description="Path")
        self.open_button = Button(description="Open", tooltip="open the path or URL")
        self.seed = BoundedIntText(0, 0, HELD_OUT_SEEDS[-1], description="Scene", tooltip="number of a drawn scene")
        self.random_button = Button(description="Another", tooltip="draw another scene")
        super().__init__([self.menu, self.path, self.open_button, self.seed, self.random_button])
        self.add_class("fl-image-menu")
        self.show(load_sample(next(iter(SAMPLES))))
        self.menu.observe(lambda change: self._on_menu(), "value")
        self.seed.observe(lambda change: self._on_seed(), "value")
        self.open_button.on_click(lambda _: self._on_open(self.path.value))
        self.path.on_msg(lambda _, content, __: content.get("event") == "submit" and self.open_button.click())
        self.random_button.on_click(lambda _: setattr(self.seed, "value", random.choice(HELD_OUT_SEEDS)))

    @property
    def value(self) -> str:
        """The selected entry. An entry, or any source that `florence_lab.load_image` reads, can be set."""
        return self.menu.value

    @value.setter
    def value(self, source: Any) -> None:
        if isinstance(source, str) and source in self.menu.options:
            self.menu.value = source
        else:
            self._on_set(source)

    @property
    def opened(self) -> list[SourceImage]:
        """The images that were opened and are still in the menu."""
        return list(self._opened.values())

    def show(self, image: SourceImage) -> None:
        """Set the menu to an image. An image that it does not have yet is added, in place of the oldest one."""
        seed = int(image.name.partition("-")[2]) if _is_scene(image) else None
        if image.name in SAMPLES and load_sample(image.name) is image:
            label = image.name
        else:
            label = SCENE if seed is not None else self._add(image)
        paths = () if is_public_page() else (PATH,)
        options = (*SAMPLES, *reversed(self._opened), *paths, SCENE)
        self._is_writing = True  # the image is selected already
        try:
            if self.menu.options != options:
                self.menu.options = options
            self.menu.value = label
            if seed is not None:
                self.seed.value = seed
        finally:
            self._is_writing = False
        self._show_fields()

    def _add(self, image: SourceImage) -> str:
        """Return the label of an image, a new one if the menu does not have it."""
        for label, known in self._opened.items():
            if known is image:
                return label
        label, number = image.name, 1
        while label in self._opened or label in (*SAMPLES, PATH, SCENE):
            number += 1
            label = f"{image.name} ({number})"
        self._opened[label] = image
        for oldest in list(self._opened)[:-MAX_OPENED]:
            del self._opened[oldest]
        return label

    def _on_menu(self) -> None:
        if self._is_writing:
            return
        self._show_fields()
        label = self.menu.value
        if label == SCENE:
            self._on_seed()
        elif label in self._opened:
            self._on_select(self._opened[label])
        elif label in SAMPLES:
            self._on_select(load_sample(label))

    def _on_seed(self) -> None:
        if not self._is_writing and self.menu.value == SCENE:
            self._on_select(load_scene(self.seed.value))

    def _show_fields(self) -> None:
        for entry, fields in {PATH: (self.path, self.open_button), SCENE: (self.seed, self.random_button)}.items():
            for field in fields:
                field.layout.display = None if self.menu.value == entry else "none"


def _is_scene(image: SourceImage) -> bool:
    """Whether an image is one of `load_scene`, and not a file of the same name."""
    return image.code.startswith("florence_lab.scenes.draw_scene(")
