"""Images as the files that the browser shows."""

import io
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from florence_lab import ImageError
from florence_lab.scenes import sample_path
from florence_lab.viewer.picture import make_picture


def opened(picture):
    return Image.open(io.BytesIO(picture.pixels))


def photo(width, height):
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize(
    ("image", "file_format", "size"),
    [
        (photo(1000, 800), "JPEG", (1000, 800)),
        (photo(2000, 1000), "JPEG", (1600, 800)),
        (photo(1000, 4000), "JPEG", (400, 1600)),
        (Image.new("RGB", (20000, 10), "red"), "PNG", (1600, 1)),
        (Image.new("RGB", (3000, 3000), "red"), "PNG", (1600, 1600)),  # few colors
        (Image.new("RGBA", (1, 1)), "PNG", (1, 1)),
        (np.zeros((4, 6), np.uint8), "PNG", (6, 4)),
        (sample_path("sheep"), "JPEG", (512, 512)),
    ],
)
def test_a_picture_is_a_jpeg_or_png_of_at_most_1600_pixels(image, file_format, size):
    picture = make_picture(image, "x")
    assert (opened(picture).format, opened(picture).size) == (file_format, size)
    full = image.size if isinstance(image, Image.Image) else size
    assert (picture.name, picture.width, picture.height) == ("x", *full)


def test_what_stands_in_the_picture_is_the_image():
    image = Image.new("RGB", (4000, 3000), "white")
    image.paste("red", (1000, 750, 2000, 1500))
    pixels = np.asarray(opened(make_picture(image)).convert("RGB"))
    assert pixels[400, 500].tolist() == pytest.approx([255, 0, 0], abs=3)
    assert pixels[900, 1200].tolist() == pytest.approx([255] * 3, abs=3)


def test_the_orientation_of_the_camera_is_applied():
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    for source in (file.getvalue(), Image.open(io.BytesIO(file.getvalue()))):
        assert opened(make_picture(source)).size == (20, 40)


def test_pictures_differ_by_their_id_and_bad_images_are_refused():
    image = photo(4, 4)
    assert make_picture(image).id != make_picture(image).id
    with pytest.raises(ImageError):
        make_picture(b"hello")
    with pytest.raises(ImageError):
        make_picture(Image.new("RGB", (0, 3)))


def test_threads_may_share_an_image():
    image = photo(1800, 1200)
    with ThreadPoolExecutor(4) as pool:
        assert len({picture.pixels for picture in pool.map(make_picture, [image] * 8)}) == 1


def test_12_megapixels_take_little_time():
    image = Image.fromarray(np.asarray(photo(1000, 750)).repeat(4, 0).repeat(4, 1))

    def seconds():
        start = time.perf_counter()
        make_picture(image)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.3  # 0.06 on a free machine
