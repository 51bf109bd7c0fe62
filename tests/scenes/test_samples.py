"""The sample images that ship."""

import numpy as np
import pytest
from PIL import Image

from florence_lab.scenes import HELD_OUT_SEEDS, SAMPLES, sample_path, sample_scene


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_the_scene_of_its_seed(name):
    shipped = np.asarray(Image.open(sample_path(name)).convert("RGB"), int)
    drawn = np.asarray(sample_scene(name).image, int)
    assert SAMPLES[name] in HELD_OUT_SEEDS
    # other releases of Pillow and FreeType may smooth an edge differently
    assert np.abs(shipped - drawn).mean() < 1


def test_an_unknown_sample_names_the_closest_one():
    with pytest.raises(ValueError, match="did you mean 'sheep'"):
        sample_path("sheeps")
