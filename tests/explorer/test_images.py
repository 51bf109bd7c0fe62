"""Images with the code that loads them."""

import base64

import numpy as np
import pytest
from PIL import Image
from support import PHOTO

import florence_lab
from florence_lab.exceptions import ImageError
from florence_lab.explorer.images import load_sample, load_scene, open_source, save_upload
from florence_lab.images import load_image
from florence_lab.scenes import draw_scene, sample_path


@pytest.mark.parametrize(
    "load",
    [
        lambda folder: load_sample("sheep"),
        lambda folder: load_scene(4711),
        lambda folder: open_source(str(PHOTO)),
        lambda folder: save_upload(PHOTO.read_bytes(), "my <cat>.png", folder),
        lambda folder: save_upload(np.asarray(Image.open(PHOTO)), "the given image", folder),
    ],
    ids=["sample", "scene", "path", "upload", "array"],
)
def test_the_code_of_an_image_gives_the_image(load, tmp_path):
    image = load(tmp_path)
    assert load_image(eval(image.code, {"florence_lab": florence_lab})).tobytes() == image.image.tobytes()


def test_samples_and_scenes_are_the_same_objects_at_every_call():
    assert load_sample("sheep") is load_sample("sheep")
    assert load_scene(7) is load_scene(7)


@pytest.mark.parametrize(
    ("load", "is_scene"),
    [
        (lambda folder: load_sample("sheep"), True),
        (lambda folder: open_source(str(sample_path("snow"))), True),
        (lambda folder: save_upload(draw_scene(5).image, "drawn", folder), True),
        (lambda folder: save_upload(np.asarray(load_sample("sheep").image), "pixels of a sample", folder), True),
        (lambda folder: open_source(str(PHOTO)), False),
    ],
    ids=["sample", "path", "scene", "pixels", "photograph"],
)
def test_drawn_scenes_are_known_as_such_wherever_they_come_from(load, is_scene, tmp_path):
    assert load(tmp_path).is_scene == is_scene


def test_images_of_equal_pixels_have_equal_digests(tmp_path):
    upload = save_upload(sample_path("sheep").read_bytes(), "copy.png", tmp_path)
    assert upload.digest == load_sample("sheep").digest != load_sample("snow").digest


def test_a_data_url_is_not_a_name():
    content = base64.b64encode(sample_path("sheep").read_bytes()).decode()
    assert open_source(f"data:image/png;base64,{content}").name == "image"


def test_quotes_around_a_path_are_ignored():
    assert open_source(f' "{PHOTO}" ').name == PHOTO.stem


@pytest.mark.parametrize("source", ["", "  ", "nowhere.png", __file__])
def test_a_source_that_is_not_an_image_is_an_error(source):
    with pytest.raises(ImageError):
        open_source(source)


def test_an_upload_that_is_not_an_image_is_named_in_the_error(tmp_path):
    with pytest.raises(ImageError, match=r"^notes.txt: "):
        save_upload(b"hello", "notes.txt", tmp_path)


def test_the_picture_is_made_once():
    image = load_sample("sheep")
    assert image.picture is image.picture
    assert (image.picture.width, image.picture.name) == (512, "sheep")
