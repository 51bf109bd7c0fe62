"""The images of a panel."""

import gc

import numpy as np
import pytest
from PIL import Image
from support import PHOTO

from florence_lab.exceptions import ImageError
from florence_lab.explorer.images import load_sample
from florence_lab.explorer.library import ImageLibrary
from florence_lab.scenes import sample_path


@pytest.fixture
def library():
    library = ImageLibrary()
    yield library
    library.close()


def open_in(library, source, name="copy.png"):
    return library.find_equal(library.load(source, name))


@pytest.mark.parametrize("source", [sample_path("snow"), Image.open(sample_path("snow"))], ids=["path", "image"])
def test_a_copy_of_a_sample_is_the_sample(library, source):
    assert open_in(library, source) is load_sample("snow")


def test_equal_pixels_are_one_image_as_long_as_it_is_in_use(library):
    first = open_in(library, str(PHOTO))
    assert open_in(library, np.asarray(first.image)) is first
    name = first.name
    del first
    gc.collect()
    assert open_in(library, Image.open(PHOTO)).name == "copy" != name


@pytest.mark.parametrize("source", ["nowhere.png", 3, b"hello"])
def test_what_is_not_an_image_is_an_error(library, source):
    with pytest.raises(ImageError):
        library.load(source)


def test_files_are_deleted_with_the_library(library):
    image = library.load(Image.new("RGB", (9, 9)))
    library.close()
    with pytest.raises(ImageError):
        library.load(eval(image.code))
