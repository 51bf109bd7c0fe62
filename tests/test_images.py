"""`load_image` returns upright RGB for every supported source, and raises an ImageError in time for all others."""

import base64
import contextlib
import io
import math
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps

from florence_lab import images
from florence_lab.exceptions import ArgumentError, ImageError
from florence_lab.images import load_image

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def sample_image() -> Image.Image:
    """3 x 2 pixels without symmetry: red, green, blue above black, white, black."""
    return Image.fromarray(np.array([[RED, GREEN, BLUE], [BLACK, WHITE, BLACK]], dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_same(image: Image.Image, expected: Image.Image | None = None) -> None:
    expected = expected or sample_image()
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


# Sources


def test_a_path_is_read(tmp_path, monkeypatch):
    sample_image().save(tmp_path / "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), "~/a.png", Path("~/a.png")):
        assert_same(load_image(source))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_read(kind):
    assert_same(load_image(kind(encoded(sample_image()))))


def test_a_file_object_is_read_from_its_start_and_keeps_its_position(tmp_path):
    buffer = io.BytesIO()
    sample_image().save(buffer, "PNG")
    for position in (buffer.tell(), 3):
        buffer.seek(position)
        assert_same(load_image(buffer))
        assert buffer.tell() == position
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    with open(tmp_path / "a.png", "rb") as file:
        assert_same(load_image(file))
        assert not file.closed


def test_a_stream_that_cannot_seek_is_read():
    class Stream:
        read = io.BytesIO(encoded(sample_image())).read

    assert_same(load_image(Stream()))


def test_a_pil_image_is_copied():
    given = sample_image()
    loaded = load_image(given)
    assert_same(loaded)
    loaded.putpixel((0, 0), WHITE)
    assert_same(given)


RGB = np.asarray(sample_image())
GRAY = RGB[..., 1]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB, RGB),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float16), RGB),
        (RGB[::-1, ::-1], RGB[::-1, ::-1]),
        (GRAY, np.stack([GRAY] * 3, axis=-1)),
        (GRAY[..., None], np.stack([GRAY] * 3, axis=-1)),
        (np.dstack([RGB, np.full((2, 3), 255, np.uint8)]), RGB),
        (np.dstack([RGB, np.zeros((2, 3), np.uint8)]), np.full((2, 3, 3), 255)),
        (np.full((1, 1), 0.5), np.full((1, 1, 3), 128)),
    ],
)
def test_an_array_is_read(array, expected):
    before = array.copy()
    loaded = load_image(array)
    assert loaded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(loaded), expected)
    loaded.putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(array, before)


def test_a_tensor_is_read_in_either_order():
    rows = torch.from_numpy(RGB.copy())
    channels_first = rows.permute(2, 0, 1)
    for tensor in (rows, channels_first, channels_first / 255, (channels_first / 255).requires_grad_()):
        assert_same(load_image(tensor))
    assert_same(load_image((channels_first / 255).bfloat16()))
    square = torch.arange(27, dtype=torch.uint8).reshape(3, 3, 3)  # both orders fit: channels first is chosen
    np.testing.assert_array_equal(np.asarray(load_image(square)), square.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 2), np.uint8), r"shape \(2, 3, 2\)"),
        (np.zeros((1, 2, 3, 3), np.uint8), r"shape \(1, 2, 3, 3\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((0, 3, 3), np.uint8), r"shape \(0, 3, 3\)"),
        (np.full((2, 2), 200.0), r"floats from 200 to 200; expected 0 to 1"),
        (np.full((2, 2), -0.1), r"floats from -0.1"),
        (np.full((2, 2), np.nan), r"floats from nan"),
        (np.zeros((2, 2), np.int64), "int64.*uint8"),
        (np.zeros((2, 2), bool), "bool.*uint8"),
    ],
)
def test_an_array_of_another_shape_or_range_is_refused(array, message):
    with pytest.raises(ImageError, match=message):
        load_image(array)


@pytest.mark.parametrize("source", [None, 3, [1, 2], {"image": 1}, object()])
def test_other_sources_are_refused_by_their_type(source):
    with pytest.raises(ImageError, match=f"a {type(source).__name__}; pass a path"):
        load_image(source)


# Pixels

TURNED = {
    1: sample_image(),
    2: ImageOps.mirror(sample_image()),
    3: sample_image().rotate(180),
    4: ImageOps.flip(sample_image()),
    5: sample_image().transpose(Image.Transpose.TRANSPOSE),
    6: sample_image().transpose(Image.Transpose.ROTATE_90),
    7: sample_image().transpose(Image.Transpose.TRANSVERSE),
    8: sample_image().transpose(Image.Transpose.ROTATE_270),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation_is_applied_once(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(TURNED[orientation], exif=exif)  # stored rotated; the upright image is `sample_image()`
    upright = load_image(data)
    assert_same(upright)
    assert_same(load_image(upright))
    given = Image.open(io.BytesIO(data))
    assert_same(load_image(given))
    assert given.getexif().get(0x0112) == orientation
    assert given.size == TURNED[orientation].size


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "RGBX"])
@pytest.mark.parametrize("kind", ["given", "TIFF"])
def test_a_mode_is_converted_without_loss(mode, kind):
    black_and_white = Image.fromarray(np.array([[0, 255, 0], [255, 255, 0]], dtype=np.uint8))
    image = black_and_white.convert("RGB").convert(mode)
    loaded = load_image(image if kind == "given" else encoded(image, kind))
    assert_same(loaded, black_and_white.convert("RGB"))


def test_a_cmyk_jpeg_is_converted():
    loaded = load_image(encoded(Image.new("RGB", (16, 16), RED).convert("CMYK"), "JPEG"))
    assert loaded.mode == "RGB"
    assert np.abs(np.asarray(loaded).astype(int) - RED).max() < 8


def test_transparent_pixels_become_white():
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert load_image(half).getpixel((0, 0)) == (127, 127, 127)
    for image in (Image.new("RGBA", (1, 1), (255, 0, 0, 0)), Image.new("LA", (1, 1), (0, 0))):
        assert load_image(image).getpixel((0, 0)) == WHITE
        assert load_image(encoded(image)).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_color_becomes_white(mode):
    image = Image.fromarray(np.array([[0, 200]], dtype=np.uint8)).convert(mode)
    key = image.getpixel((0, 0))
    loaded = load_image(encoded(image, transparency=key))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (200, 200, 200)]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 32768, 65535], np.uint16, [0, 128, 255]),
        ([0, 100, 255], np.uint16, [0, 0, 1]),  # the white level of 16 bits is known
        ([0, 100, 255], np.int32, [0, 100, 255]),
        ([0, 32768, 65535], np.int32, [0, 128, 255]),
        ([-1000, 0, 1000], np.int32, [0, 128, 255]),
        ([100_000, 100_000, 100_000], np.int32, [0, 0, 0]),
        ([0, 0.5, 1], np.float32, [0, 128, 255]),
        ([0, 100, 255], np.float32, [0, 100, 255]),
        ([-1, 0, 1], np.float32, [0, 128, 255]),
        ([np.nan, np.inf, 1], np.float32, [0, 0, 255]),
    ],
)
@pytest.mark.parametrize("kind", ["given", "TIFF"])
def test_grayscale_of_more_than_8_bits_is_scaled(values, dtype, expected, kind):
    image = Image.fromarray(np.array([values], dtype=dtype))
    assert image.mode in ("I;16", "I", "F")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_image(image if kind == "given" else encoded(image, kind))
    assert_same(loaded, Image.fromarray(np.array([expected], dtype=np.uint8)).convert("RGB"))


def test_16_bit_files_are_read_in_either_byte_order():
    deep = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    expected = Image.fromarray(np.array([[0, 128, 255]], dtype=np.uint8)).convert("RGB")
    assert_same(load_image(encoded(deep)), expected)
    big_endian = Image.frombytes("I;16B", (3, 1), np.array([0, 32768, 65535], dtype=">u2").tobytes())
    assert_same(load_image(big_endian), expected)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, GREEN, BLUE)]
    loaded = load_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert_same(loaded, frames[0])


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000)])
def test_any_size_is_read(size):
    image = Image.new("RGB", size, GREEN)
    assert_same(load_image(encoded(image)), image)


# Broken files

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path, kind, share):
    data = encoded(NOISE, kind)
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * share)])
    for source, name in ((path, str(path)), (path.read_bytes(), "the byte string")):
        with pytest.raises(ImageError, match=name) as caught:
            load_image(source)
        assert "\n" not in str(caught.value)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_file_that_is_not_an_image_is_named(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    for source, message in [
        (tmp_path / "gone.png", "gone.png does not exist"),
        (tmp_path, f"{tmp_path} is a folder"),
        (tmp_path / "empty.png", "empty.png is empty"),
        (tmp_path / "text.png", "text.png is not an image"),
        (tmp_path / "text.png" / "below", "below does not exist"),
        ("no\0such", r"no.x00such' does not exist"),
        ("x" * 5000, "xxx... cannot be read: File name too long"),
        (b"", "byte string is empty"),
        (b"hello", "byte string is not an image"),
        (io.BytesIO(), "file object is empty"),
        (io.StringIO("hello"), "binary mode"),
        ("ftp://example.org/a.png", "unsupported URL scheme 'ftp'"),
        ("file:///etc/passwd", "unsupported URL scheme 'file'"),
    ]:
        with pytest.raises(ImageError, match=message) as caught:
            load_image(source)
        assert len(str(caught.value)) < 400


def test_a_closed_pil_image_is_refused():
    image = Image.open(io.BytesIO(encoded(sample_image())))
    image.close()
    with pytest.raises(ImageError, match="the given PIL image"):
        load_image(image)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("limit", "refused"), [(100, False), (99, True), (50, True), (49, True), (None, False)])
def test_more_pixels_than_pillows_limit_are_refused(monkeypatch, limit, refused):
    data = encoded(Image.new("RGB", (10, 10)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    if not refused:
        assert load_image(data).size == (10, 10)
        return
    with pytest.raises(ImageError, match=f"MAX_IMAGE_PIXELS = {limit}"):
        load_image(data)


# URLs


class Site(BaseHTTPRequestHandler):
    """A server with one path for each behavior, see `answer_...`."""

    sent = 0
    over = threading.Event()
    hung_up = threading.Event()

    def do_GET(self):
        with contextlib.suppress(OSError):  # many clients close the connection early
            getattr(self, f"answer_{self.path.strip('/')}")()

    def log_message(self, *args):
        pass

    def head(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def drip(self, data):
        for byte in data:
            if Site.over.wait(0.05):
                return
            self.wfile.write(bytes([byte]))

    def answer_image(self):
        self.head(Content_Type="image/png")
        self.wfile.write(encoded(sample_image()))

    def answer_unlabelled(self):
        self.head()
        self.wfile.write(encoded(sample_image()))

    def answer_moved(self):
        self.head(302, Location="/image")

    def answer_page(self):
        self.head(Content_Type="text/html; charset=utf-8")
        self.wfile.write(b"<html>an image viewer</html>")

    def answer_gone(self):
        self.head(404)

    def answer_nothing(self):
        self.head(Content_Length="0")

    def answer_short(self):
        self.head(Content_Length="1000000", Content_Type="image/png")
        self.wfile.write(encoded(sample_image()))

    def answer_hang(self):
        Site.over.wait(20)

    def answer_drip(self):
        self.head(Content_Type="image/png")
        self.drip(bytes(1000))

    def answer_dripping_head(self):
        self.drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 1000)

    def answer_loop(self):
        self.head(302, Location="/loop")

    def answer_slow_loop(self):
        Site.over.wait(0.1)
        self.head(302, Location="/slow_loop")

    def answer_elsewhere(self):
        self.head(302, Location="file:///etc/passwd")

    def answer_announced(self):
        self.head(Content_Length=str(100 * 2**20), Content_Type="image/png")
        Site.over.wait(20)  # refused by its Content-Length, before any data

    def answer_endless(self):
        self.head(Content_Type="image/png")
        for _ in range(1600):
            self.wfile.write(bytes(2**16))
            Site.sent += 2**16

    def answer_steady(self):
        self.head(Content_Type="image/png")
        try:
            while not Site.over.wait(0.02):
                self.wfile.write(bytes(2**16))
        except OSError:
            Site.hung_up.set()


@pytest.fixture(scope="module")
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield f"http://127.0.0.1:{server.server_port}"
    Site.over.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["image", "unlabelled", "moved"])
def test_a_url_is_read(site, path):
    assert_same(load_image(f"{site}/{path}"))
    assert_same(load_image(f"{site}/{path}".replace("http", "HTTP")))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone", "returned HTTP status 404"),
        ("page", "text/html.* is not an image"),
        ("nothing", "is empty"),
        ("short", "cannot be fetched"),
        ("loop", "cannot be fetched: Exceeded 30 redirects"),
        ("elsewhere", "cannot be fetched"),
    ],
)
def test_a_url_without_an_image_is_refused(site, path, message):
    with pytest.raises(ImageError, match=f"{site}/{path} .*{message}|{site}/{path} {message}"):
        load_image(f"{site}/{path}")


def test_a_download_stops_when_it_times_out(site):
    with pytest.raises(ImageError, match=r"within 0.2 s"):
        load_image(f"{site}/steady", timeout=0.2)
    assert Site.hung_up.wait(2)


@pytest.mark.parametrize("path", ["hang", "drip", "dripping_head", "slow_loop"])
def test_a_slow_url_times_out(site, path):
    started = time.monotonic()
    with pytest.raises(ImageError, match=f"{path} could not be read within 0.4 s"):
        load_image(f"{site}/{path}", timeout=0.4)
    assert time.monotonic() - started < 1


def test_a_timeout_of_the_socket_gives_the_same_message(site, monkeypatch):
    monkeypatch.setattr(images, "run_with_timeout", lambda _, function: function())
    with pytest.raises(ImageError, match=r"hang could not be read within 0.2 s"):
        load_image(f"{site}/hang", timeout=0.2)


@pytest.mark.parametrize("path", ["announced", "endless"])
def test_a_url_larger_than_max_bytes_is_refused(site, path):
    Site.sent = 0
    with pytest.raises(ImageError, match=f"{path} is larger than max_bytes = 1048576"):
        load_image(f"{site}/{path}", max_bytes=2**20)
    assert Site.sent < 30 * 2**20  # the buffers of the sockets hold more than was read


def test_a_url_of_exactly_max_bytes_is_read(site):
    size = len(encoded(sample_image()))
    assert_same(load_image(f"{site}/image", max_bytes=size))
    with pytest.raises(ImageError, match="larger than"):
        load_image(f"{site}/image", max_bytes=size - 1)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.png", "http://", "http://[::1", "http://nohost.invalid/a"])
def test_an_unreachable_url_is_refused(site, url):
    with pytest.raises(ImageError, match=r"cannot be fetched: .") as caught:
        load_image(url, timeout=5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "the path of the image is empty"),
        ("a\0b.png", "a.x00b.png' does not exist"),
        ("data:image/png;base64,!!!!", "the data URL cannot be read"),
        ("data:image/png;base64,AAAA", "the data URL is not an image"),
        (Image.new("RGB", (0, 5)), "an image of 0 x 5 has no pixels"),
        (torch.zeros(3, 9, 9, device="meta"), "the given tensor cannot be read"),
        (torch.zeros(9, 9).to_sparse(), "the given tensor cannot be read"),
        (torch.zeros(9, 9, dtype=torch.complex64), "the given tensor has dtype complex64"),
        (np.zeros((9, 9), object), "the given array has dtype object"),
        (ImageError("earlier"), "earlier"),
    ],
)
def test_odd_sources_are_image_errors(source, message):
    with pytest.raises(ImageError, match=message):
        load_image(source)


@pytest.mark.parametrize(
    "limits", [{"timeout": None}, {"timeout": "5"}, {"timeout": math.nan}, {"timeout": 1e30}, {"max_bytes": 0}]
)
def test_limits_are_checked(limits):
    with pytest.raises(ArgumentError, match=next(iter(limits))):
        load_image("http://127.0.0.1:1/a.png", **limits)


def test_data_url():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), "lime").save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    assert load_image(url).size == (4, 3)


def test_heic(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), "lime")).save(path)
    image = load_image(path)
    assert image.size == (64, 48)
    assert np.asarray(image).mean(axis=(0, 1)).argmax() == 1
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    with pytest.raises(ImageError, match=r"a\.heic is a HEIC image; install pillow-heif"):
        load_image(path)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_opened_image_is_read_once_by_several_threads(tmp_path, kind):
    """As one image in a list several times, which `predict_batch` reads in threads."""
    path = tmp_path / f"image.{kind}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)).save(path)
    expected = load_image(path).tobytes()
    for _ in range(3):
        opened = Image.open(path)
        with ThreadPoolExecutor(4) as threads:
            assert [image.tobytes() == expected for image in threads.map(load_image, [opened] * 8)] == [True] * 8
