"""Location tokens: quantization of pixels and back."""

import numpy as np
import pytest

from florence_lab.template.locations import (
    bins_to_pixels,
    format_location_tokens,
    parse_location_tokens,
    pixels_to_bins,
)

SIZES = [(1000, 1000), (451, 300), (1, 1), (20000, 10), (1333, 97), (34, 85)]


@pytest.mark.parametrize("size", SIZES)
def test_every_bin_survives_conversion_to_pixels_and_back(size):
    bins = np.stack([np.arange(1000), np.arange(1000)[::-1]], axis=1)
    pixels = bins_to_pixels(bins, size)
    assert pixels.dtype == np.float64
    np.testing.assert_array_equal(pixels_to_bins(pixels, size), bins)
    np.testing.assert_allclose(pixels[250], [0.2505 * size[0], 0.7495 * size[1]], rtol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_pixels_fall_into_the_published_bins(size):
    """floor(x * 1000 / side), computed with integers; the far edge belongs to the last bin."""
    for axis, side in enumerate(size):
        pixels = np.zeros((side + 1, 2))
        pixels[:, axis] = range(side + 1)
        expected = [min(x * 1000 // side, 999) for x in range(side + 1)]
        assert pixels_to_bins(pixels, size)[:, axis].tolist() == expected


def test_pixels_outside_the_image_are_clipped():
    assert pixels_to_bins([-7, -0.1, 1e9, 100], (400, 100)).tolist() == [0, 0, 999, 999]


def test_bins_are_integers():
    assert pixels_to_bins([1.5, 2.5], (10, 10)).dtype.kind == "i"


@pytest.mark.parametrize("coordinates", [(100, 50, 200, 75), np.array([[100, 50], [200, 75]])])
def test_coordinates_of_any_shape_are_written_as_location_tokens(coordinates):
    assert format_location_tokens(coordinates, (400, 100)) == "<loc_250><loc_500><loc_500><loc_750>"


def test_location_tokens_are_parsed_in_their_order():
    bins = parse_location_tokens("cat<loc_0><loc_999> hat <loc_12>")
    assert bins.tolist() == [0, 999, 12]
    assert bins.dtype.kind == "i"


@pytest.mark.parametrize("text", ["", "cat", "<loc_1000>", "<loc_01>", "<loc_>", "<loc_-1>"])
def test_other_text_contains_no_location_tokens(text):
    assert parse_location_tokens(text).shape == (0,)
