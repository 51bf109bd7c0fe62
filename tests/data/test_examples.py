"""`Example` and the images that it refers to."""

import numpy as np
import pytest
from PIL import Image

from florence_lab.data.examples import Example, SceneReference, image_key
from florence_lab.exceptions import ImageError
from florence_lab.template.prompts import Prompt


def test_the_ground_truth_is_the_parsed_target():
    example = Example("a.png", Prompt.from_task("<OD>"), "cat<loc_0><loc_0><loc_499><loc_999>", "row 1", (200, 100))
    truth = example.ground_truth
    assert (truth.task, truth.labels.tolist(), truth.scores) == ("<OD>", ["cat"], None)
    assert np.allclose(truth.boxes, [[0.1, 0.05, 99.9, 99.95]])


def test_equal_images_in_memory_have_equal_keys():
    red, blue = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    assert image_key(red) == image_key(red.copy()) != image_key(blue)
    assert image_key(red) == image_key(np.array(red))
    assert image_key(b"abc") == image_key(bytes(bytearray(b"abc"))) != image_key(b"abd")


def test_a_scene_is_drawn_when_it_is_loaded():
    example = Example(SceneReference(3, 64), Prompt.from_task("<OD>"), "", "scene 3", (64, 64))
    assert example.load_image().size == (64, 64)
    assert np.array_equal(example.load_image(), example.load_image())
    assert example.image_key == SceneReference(3, 64) != SceneReference(3, 65)


def test_an_unreadable_image_is_an_error():
    with pytest.raises(ImageError, match=r"gone\.png"):
        Example("gone.png", Prompt.from_task("<OD>"), "", "", (1, 1)).load_image()
