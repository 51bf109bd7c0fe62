"""A picture on which a region is chosen: by dragging, or by four numbers."""

from __future__ import annotations

import numpy as np
from ipympl.backend_nbagg import Canvas, FigureManager
from ipywidgets import BoundedIntText, GridBox, Layout, VBox
from matplotlib.figure import Figure
from matplotlib.widgets import RectangleSelector
from PIL import Image

from ..template.locations import Region

SIDES = ("x0", "y0", "x1", "y1")
DPI = 100
COLOUR = "#e0218a"  # far from what pictures usually show


class RegionPicker(VBox):
    """A picture to drag a region on, and the same region as four numbers.

    Attributes:
        numbers: the fields x0, y0, x1, y1, in whole pixels of the picture.
        selector: matplotlib's, on the picture as it is shown.
    """

    def __init__(self, width: int = 320, height: int = 260) -> None:
        self._room = (width, height)
        self._syncing = False
        self._image: Image.Image | None = None
        self.numbers = {
            side: BoundedIntText(
                0, 0, 1, description=side, layout=Layout(width="auto"), style={"description_width": "20px"}
            )
            for side in SIDES
        }
        for field in self.numbers.values():
            field.observe(self._typed, "value")
        self.selector: RectangleSelector | None = None
        self._canvas: Canvas | None = None
        columns = "repeat(4, minmax(0, 1fr))"
        grid = GridBox([*self.numbers.values()], layout=Layout(grid_template_columns=columns, width="100%"))
        super().__init__([grid], layout=Layout(width="100%"))

    @property
    def region(self) -> Region | None:
        """(x0, y0, x1, y1) in pixels; None as long as nobody has chosen any."""
        region = tuple(field.value for field in self.numbers.values())
        return region if any(region) else None

    @region.setter
    def region(self, region: Region | None) -> None:
        self._write(region or (0, 0, 0, 0))
        self._draw()

    def show(self, image: Image.Image) -> None:
        """Takes a picture; another one than before has no region yet."""
        if image is self._image:
            return
        self._image = image
        scale = min(side / length for side, length in zip(self._room, image.size, strict=True))
        shown = [max(40, round(length * scale)) for length in image.size]
        figure = Figure(figsize=[side / DPI for side in shown], dpi=DPI)
        canvas = Canvas(figure)
        FigureManager(canvas, 0)
        canvas.toolbar_visible = canvas.header_visible = canvas.footer_visible = canvas.resizable = False
        canvas.layout = Layout(align_self="center")
        axes = figure.add_axes((0, 0, 1, 1))
        small = image.copy()
        small.thumbnail((2 * self._room[0], 2 * self._room[1]))
        axes.imshow(np.asarray(small), extent=(0, image.width, image.height, 0), aspect="auto")
        axes.set_axis_off()
        self.selector = RectangleSelector(
            axes,
            self._dragged,
            useblit=False,  # through ipympl, what is blitted is not always seen
            interactive=True,
            button=[1],
            props={"facecolor": COLOUR, "edgecolor": COLOUR, "alpha": 0.35, "fill": True},
            handle_props={"markeredgecolor": COLOUR, "markersize": 5},
        )
        old, self._canvas = self._canvas, canvas
        self._limit(image.size)
        self.children = [canvas, self.children[-1]]
        if old is not None:
            old.close()

    def _limit(self, size: tuple[int, int]) -> None:
        self._write((0, 0, 0, 0))
        for field, length in zip(self.numbers.values(), size * 2, strict=True):
            field.max = length

    def _dragged(self, press: object, release: object) -> None:
        x0, x1, y0, y1 = self.selector.extents
        self._write([round(side) for side in (x0, y0, x1, y1)])

    def _typed(self, change: dict) -> None:
        if not self._syncing:
            self._draw()

    def _write(self, region: Region) -> None:
        """Into the fields, which keep it within the picture; without drawing what was drawn just now."""
        self._syncing = True
        try:
            for field, value in zip(self.numbers.values(), region, strict=True):
                field.value = int(value)
        finally:
            self._syncing = False

    def _draw(self) -> None:
        if self.selector is None:
            return
        x0, y0, x1, y1 = (field.value for field in self.numbers.values())
        if x1 > x0 and y1 > y0:
            self.selector.set_visible(True)
            self.selector.extents = (x0, x1, y0, y1)
        else:
            self.selector.clear()
