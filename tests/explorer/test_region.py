"""The region picker."""

import numpy as np
import pytest
from matplotlib.backend_bases import MouseButton, MouseEvent
from PIL import Image

from florence_lab.explorer.region import RegionPicker


@pytest.fixture
def picker():
    picker = RegionPicker()
    picker.show(Image.new("RGB", (200, 80)))
    return picker


def drag(picker, start, end):
    """Drag the mouse from one point of the image to another, both in pixels of the image."""
    axes = picker.selector.ax
    canvas = axes.figure.canvas
    canvas.draw()
    for name, point in (("button_press", start), ("motion_notify", end), ("button_release", end)):
        x, y = axes.transData.transform(point)
        event = MouseEvent(f"{name}_event", canvas, x, y, MouseButton.LEFT)
        canvas.callbacks.process(event.name, event)


def test_there_is_no_region_at_the_beginning(picker):
    assert picker.region is None


@pytest.mark.parametrize(("start", "end"), [((20, 10), (150, 60)), ((150, 60), (20, 10))])
def test_a_region_is_dragged_in_any_direction(picker, start, end):
    drag(picker, start, end)
    assert np.abs(np.subtract(picker.region, (20, 10, 150, 60))).max() <= 2


def test_a_field_moves_the_selector(picker):
    picker.region = (20, 10, 150, 60)
    picker.fields["x1"].value = 180
    assert picker.selector.extents == pytest.approx((20, 180, 10, 60))


def test_a_region_is_clipped_to_the_image(picker):
    for field in picker.fields.values():
        field.value = 1000
    assert picker.region == (200, 80, 200, 80)


def test_another_image_has_no_region(picker):
    picker.region = (20, 10, 150, 60)
    picker.show(Image.new("RGB", (50, 4000)))
    assert picker.region is None
    drag(picker, (10, 10), (49, 3900))
    assert np.abs(np.subtract(picker.region, (10, 10, 49, 3900))).max() <= 25


def test_the_same_image_keeps_its_region():
    picker, image = RegionPicker(), Image.new("RGB", (200, 80))
    picker.show(image)
    picker.region = (20, 10, 150, 60)
    picker.show(image)
    assert picker.region == (20, 10, 150, 60)


@pytest.mark.parametrize(
    ("units", "numbers"),
    [
        ("xyxy", (20, 10, 150, 60)),
        ("xywh", (20, 10, 130, 50)),
        ("norm_1", (0.1, 0.125, 0.75, 0.75)),
        ("norm_1000", (100, 125, 750, 750)),
    ],
)
def test_the_numbers_are_in_the_units_of_the_menu(picker, units, numbers):
    picker.region = (20, 10, 150, 60)
    picker.units.value = units
    assert [field.value for field in picker.fields.values()] == pytest.approx(numbers)
    assert picker.region == (20, 10, 150, 60)
    for field, number in zip(picker.fields.values(), numbers, strict=True):
        field.value = number / 2
    picker.units.value = "xyxy"
    assert picker.region == pytest.approx((10, 5, 75, 30))


def test_numbers_in_units_are_clipped_to_the_image(picker):
    picker.units.value = "norm_1"
    for field in picker.fields.values():
        field.value = 5
    assert picker.region == (200, 80, 200, 80)


def test_a_dragged_region_is_shown_in_the_units_of_the_menu(picker):
    picker.units.value = "norm_1000"
    drag(picker, (20, 10), (150, 60))
    numbers = [field.value for field in picker.fields.values()]
    assert numbers == pytest.approx([100, 125, 750, 750], abs=30)
