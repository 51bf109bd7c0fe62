"""Scenes as a dataset."""

import numpy as np
import pytest

from florence_lab.data.examples import SceneReference
from florence_lab.data.readers.scenes import ScenesReader
from florence_lab.data.spec import DatasetSpec
from florence_lab.exceptions import DatasetError
from florence_lab.scenes import HELD_OUT_SEEDS, draw_scene


def seeds_of(name):
    return list(ScenesReader(DatasetSpec.parse(name)).seeds)


def test_the_training_split_is_the_last_training_seeds():
    assert seeds_of("scenes:3") == seeds_of("scenes:3?split=train") == [2**31 - 3, 2**31 - 2, 2**31 - 1]


def test_the_held_out_split_is_the_first_held_out_seeds():
    assert seeds_of("scenes:3?split=held_out") == list(HELD_OUT_SEEDS[:3])


def test_the_default_is_500_scenes():
    assert len(seeds_of("scenes")) == 500


def test_rows_have_the_targets_of_the_scene(read):
    examples, errors = read("scenes:1")
    assert errors == []
    assert len({example.prompt.task.token for example in examples}) >= 10
    scene = draw_scene(2**31 - 1, 384)
    (detection,) = (example for example in examples if example.prompt.task.token == "<OD>")
    assert detection.image == SceneReference(2**31 - 1, 384)
    assert detection.target == scene.answer("<OD>").raw
    assert np.array_equal(detection.load_image(), scene.image)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scenes:many", "'many'"),
        ("scenes:0", "1 to 100000, as in scenes:500, not '0'"),
        ("scenes:-1", "'-1'"),
        ("scenes:1.5", "'1.5'"),
        ("scenes:99999999", "1 to 100000"),
        ("scenes:" + "9" * 5000, "1 to 100000"),
        ("scenes:3?split=test", "split must be one of train, held_out, not 'test'"),
        ("scenes:3?size=9", "unknown option 'size'"),
    ],
)
def test_an_impossible_count_or_split_is_an_error(read, name, message):
    with pytest.raises(DatasetError, match=message):
        read(name)
