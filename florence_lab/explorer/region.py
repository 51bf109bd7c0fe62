"""An image on which a region is selected: by dragging, or by four numbers in pixels or in fractions of the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from ipympl.backend_nbagg import Canvas, FigureManager
from ipywidgets import BoundedFloatText, Dropdown, GridBox, Layout, VBox
from matplotlib.backend_bases import MouseButton
from matplotlib.figure import Figure
from matplotlib.widgets import RectangleSelector
from PIL import Image

from ..template.locations import Region, RegionFormat, to_pixels

Box = tuple[float, float, float, float]
"""A region (x0, y0, x1, y1) in pixels."""

UNITS: dict[str, RegionFormat] = {
    "pixels: x0, y0, x1, y1": "xyxy",
    "pixels: x, y, width, height": "xywh",
    "0 to 1: x0, y0, x1, y1": "norm_1",
    "0 to 1000: x0, y0, x1, y1": "norm_1000",
}
"""Label in the menu of units -> the format of the four numbers."""

_FIELDS = ("x0", "y0", "x1", "y1")
_LIMITS: dict[RegionFormat, float] = {"norm_1": 1, "norm_1000": 1000}
"""Format -> its greatest number, if that is not the side of the image."""

_NO_REGION = (0.0, 0.0, 0.0, 0.0)
_DPI = 100
_MIN_SIDE = 40  # pixels on the screen, so that a narrow image can be dragged on
_COLOR = "#e0218a"  # rare in photographs


class RegionPicker(VBox):
    """An image to drag a region on, and the same region as four numbers.

    Attributes:
        units: the menu of units of the four numbers, see `UNITS`.
        fields: field name -> input field, in these units: `x0`, `y0`, `x1`, `y1` (the last two are width and height in "xywh").
        selector: the selector of matplotlib; None until an image is shown.
    """

    def __init__(self, width: int = 320, height: int = 260) -> None:
        """Create a picker without an image. The image is shown in at most `width` x `height` pixels of the screen."""
        self._max_size = (width, height)
        self._is_writing = False
        self._image: Image.Image | None = None
        self.fields = {
            name: BoundedFloatText(
                0, min=0, max=1, description=name, layout=Layout(width="auto"), style={"description_width": "20px"}
            )
            for name in _FIELDS
        }
        for field in self.fields.values():
            field.observe(self._on_field, "value")
        self.units = Dropdown(options=list(UNITS.items()), value="xyxy", layout=Layout(width="100%"))
        self.units.observe(self._on_units, "value")
        self.selector: RectangleSelector | None = None
        self._canvas: Canvas | None = None
        columns = "repeat(4, minmax(0, 1fr))"
        self._grid = GridBox([*self.fields.values()], layout=Layout(grid_template_columns=columns, width="100%"))
        super().__init__([self._grid, self.units], layout=Layout(width="100%"))

    @property
    def region(self) -> Box | None:
        """The region in pixels; None if none is selected."""
        region = self._read(self.units.value)
        return region if any(region) else None

    @region.setter
    def region(self, region: Region | None) -> None:
        self._write(region or _NO_REGION)
        self._draw()

    def show(self, image: Image.Image) -> None:
        """Show an image. Another image than before has no region yet."""
        if image is self._image:
            return
        self._image = image
        canvas = self._create_canvas(image)
        old, self._canvas = self._canvas, canvas
        self._write(_NO_REGION)
        self._set_limits()
        self.children = [canvas, self._grid, self.units]
        if old is not None:
            old.close()

    def _create_canvas(self, image: Image.Image) -> Canvas:
        scale = min(limit / length for limit, length in zip(self._max_size, image.size, strict=True))
        width, height = (max(_MIN_SIDE, round(length * scale)) for length in image.size)
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        canvas = Canvas(figure)
        FigureManager(canvas, 0)
        canvas.toolbar_visible = canvas.header_visible = canvas.footer_visible = canvas.resizable = False
        canvas.layout = Layout(align_self="center")
        axes = figure.add_axes((0, 0, 1, 1))
        thumbnail = image.copy()
        thumbnail.thumbnail((2 * self._max_size[0], 2 * self._max_size[1]))
        axes.imshow(np.asarray(thumbnail), extent=(0, image.width, image.height, 0), aspect="auto")
        axes.set_axis_off()
        self.selector = RectangleSelector(
            axes,
            self._on_drag,
            useblit=False,  # blitted parts are not always displayed by ipympl
            interactive=True,
            button=[MouseButton.LEFT],
            props={"facecolor": _COLOR, "edgecolor": _COLOR, "alpha": 0.35, "fill": True},
            handle_props={"markeredgecolor": _COLOR, "markersize": 5},
        )
        return canvas

    def _on_drag(self, press: object, release: object) -> None:
        if self.selector is not None:
            x0, x1, y0, y1 = self.selector.extents
            self._write([round(value) for value in (x0, y0, x1, y1)])

    def _on_field(self, change: dict[str, Any]) -> None:
        if not self._is_writing:
            self._draw()

    def _on_units(self, change: dict[str, Any]) -> None:
        """Show the same region in other units."""
        region = self._read(change["old"])
        names = (*_FIELDS[:2], "w", "h") if self.units.value == "xywh" else _FIELDS
        for field, name in zip(self.fields.values(), names, strict=True):
            field.description = name
        self._write(_NO_REGION)  # before the limits: a lower one would clip the numbers
        self._set_limits()
        self._write(region)

    def _set_limits(self) -> None:
        sides = (1, 1) if self._image is None else self._image.size
        for field, side in zip(self.fields.values(), sides * 2, strict=True):
            field.max = _LIMITS.get(self.units.value, side)

    def _read(self, region_format: RegionFormat) -> Box:
        """The numbers of the fields as a region in pixels. Numbers that are given in pixels are whole."""
        numbers = np.array([field.value for field in self.fields.values()])
        if region_format not in _LIMITS:
            numbers = numbers.round()
        size = (1, 1) if self._image is None else self._image.size
        x0, y0, x1, y1 = to_pixels(numbers, region_format, size).round(3).tolist()
        return (x0, y0, x1, y1) if region_format in _LIMITS else (int(x0), int(y0), int(x1), int(y1))

    def _write(self, region: Region) -> None:
        """Set the fields, which clip the region to the image, without drawing it again."""
        self._is_writing = True
        try:
            for field, value in zip(self.fields.values(), self._to_units(region), strict=True):
                field.value = value
        finally:
            self._is_writing = False

    def _to_units(self, region: Region) -> list[float]:
        x0, y0, x1, y1 = region
        limit = _LIMITS.get(self.units.value)
        if limit is None:
            is_size = self.units.value == "xywh"
            return [round(value) for value in ((x0, y0, x1 - x0, y1 - y0) if is_size else (x0, y0, x1, y1))]
        width, height = (1, 1) if self._image is None else self._image.size
        return [round(limit * value / side, 5) for value, side in zip(region, (width, height) * 2, strict=True)]

    def _draw(self) -> None:
        if self.selector is None:
            return
        x0, y0, x1, y1 = self._read(self.units.value)
        if x1 > x0 and y1 > y0:
            self.selector.set_visible(True)
            self.selector.extents = (x0, x1, y0, y1)
        else:
            self.selector.clear()
