"""The traits of the viewer, and the messages of its front end."""

import io
import re
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from traitlets import TraitError

import florence_lab.viewer
from florence_lab import ImageError
from florence_lab.viewer.files import DownloadFile
from florence_lab.viewer.picture import make_picture
from florence_lab.viewer.uploads import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from florence_lab.viewer.widget import Viewer
from florence_lab.visualization.style import LINE_STYLES, PALETTE

FOLDER = Path(florence_lab.viewer.__file__).parent
TRAITS = (
    "picture pixels answers arrangement is_stale phase hint code code_note history files upload_limit takes_region has_tools "
    "region threshold active selected"
).split()


class Connected(Viewer):
    """A viewer that keeps what it sends."""

    def __init__(self, **settings):
        self.sent = []
        super().__init__(**settings)

    def send(self, content, buffers=None):
        self.sent.append((content, buffers))

    def message(self, content, buffers=()):
        """Deliver a message as the kernel does, and return the answers to it."""
        self.sent.clear()
        self._handle_custom_msg(content, list(buffers))
        return [answer for answer, _ in self.sent]

    def wait(self):
        deadline = time.monotonic() + 20
        while not self.sent and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.sent[-1]


def png():
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    return file.getvalue()


def test_the_traits_are_synchronized():
    assert set(TRAITS) <= set(Viewer().keys)


def test_the_front_end_reads_no_other_traits():
    script = (FOLDER / "viewer.js").read_text(encoding="utf-8")
    read = set(re.findall(r"""model\.(?:get|set)\(["'](\w+)["']""", script))
    assert read
    assert read <= set(TRAITS)


def test_the_front_end_has_the_colors_and_dashes_of_the_drawing():
    script = (FOLDER / "viewer.js").read_text(encoding="utf-8")
    (colors,) = re.findall(r"const PALETTE = \[(.*?)\];", script, re.DOTALL)
    (dashes,) = re.findall(r"const DASHES = \[(.*?)\];", script, re.DOTALL)
    assert tuple(re.findall(r"#\w+", colors)) == PALETTE
    # a dash of matplotlib is in line widths
    scaled = [[float(n) / 2 for n in dash.split()] for dash in re.findall(r'"(.*?)"', dashes)]
    assert scaled == [pytest.approx(style[1]) for style in LINE_STYLES[1:]]


@pytest.mark.parametrize(
    ("trait", "value"),
    [
        ("arrangement", "row"),
        ("phase", "?"),
        ("threshold", 1.5),
        ("active", -1),
        ("upload_limit", 2**30),
        ("region", ["a"]),
        ("region", [1, 2]),
        ("answers", [1]),
    ],
)
def test_other_values_are_refused(trait, value):
    with pytest.raises(TraitError):
        Viewer(**{trait: value})


def test_another_picture_resets_what_belongs_to_the_last_one():
    viewer = Viewer(region=[1, 2, 3, 4], threshold=0.5, selected=[1])
    picture = make_picture(Image.new("RGB", (30, 20)), "sheep")
    viewer.show_picture(picture)
    assert viewer.picture == {"id": picture.id, "name": "sheep", "width": 30, "height": 20}
    assert viewer.pixels == picture.pixels
    assert (viewer.region, viewer.threshold, viewer.selected) == ([], 0, [])
    viewer.show_picture(None)
    assert (viewer.picture, viewer.pixels) == ({}, b"")


def test_picture_and_pixels_travel_together(monkeypatch):
    viewer = Viewer()
    states = []
    monkeypatch.setattr(viewer, "send_state", lambda key=None: states.append(set(key)))
    viewer.show_picture(make_picture(Image.new("RGB", (30, 20))))
    assert states == [{"picture", "pixels"}]


def test_a_ping_is_answered():
    assert Connected().message({"kind": "ping", "id": 3}) == [{"kind": "pong", "id": 3}]


def test_an_upload_is_handed_over_as_an_image():
    images = []
    viewer = Connected(upload_limit=100_000, on_upload=lambda name, image: images.append((name, image.size)))
    upload = {"kind": "upload", "id": "a", "name": "cat.png", "at": 0, "size": len(png())}
    viewer.message(upload, [memoryview(png())])
    assert viewer.wait()[0] == {"kind": "received", "id": "a", "at": 0}
    assert images == [("cat.png", (3, 2))]


@pytest.mark.parametrize("settings", [{}, {"upload_limit": 10_000}, {"on_upload": print}])
def test_a_viewer_without_uploads_refuses_them(settings):
    upload = {"kind": "upload", "id": "a", "name": "cat.png", "at": 0, "size": len(png())}
    (answer,) = Connected(**settings).message(upload, [png()])  # at once
    assert answer["kind"] == "refused"


def test_an_upload_can_be_cancelled_and_ends_with_the_widget():
    viewer = Connected(upload_limit=10**6, on_upload=print)
    first = {"kind": "upload", "id": "a", "name": "cat.png", "at": 0, "size": 500_000}
    viewer.message(first, [bytes(100_000)])
    viewer.message({"kind": "cancel"})
    assert viewer._receiver.num_bytes == 100_000
    viewer.message({"kind": "cancel", "id": "a"})
    assert viewer._receiver.num_bytes == 0
    viewer.message(first, [bytes(100_000)])
    viewer.close()
    assert viewer._receiver.num_bytes == 0


def test_only_an_entry_of_the_history_is_opened():
    opened = []
    viewer = Connected(history=[{"id": 4}], on_open=opened.append)
    for id in (4, 5, None, "4", True, [4], {}):
        viewer.message({"kind": "open", "id": id})
    assert opened == [4]


def test_a_file_is_made_in_a_thread_of_its_own():
    release = threading.Event()

    def make(file_id):
        release.wait(20)
        return DownloadFile("x.png", "image/png", b"1234")

    viewer = Connected(files=[{"id": "png", "label": "PNG"}], make_file=make)
    assert viewer.message({"kind": "file", "id": "png"}) == []
    assert viewer.message({"kind": "ping", "id": 1})  # meanwhile
    viewer.sent.clear()
    release.set()
    assert viewer.wait() == ({"kind": "file", "name": "x.png", "mime": "image/png"}, [b"1234"])


def _fail(file_id):
    raise ImageError("no room")


@pytest.mark.parametrize(
    ("file_id", "make_file", "word"),
    [
        ("png", _fail, "no room"),
        ("png", None, "no file 'png'"),
        ("exe", _fail, "'exe'"),
        ([1], _fail, "[1]"),
        (None, _fail, "None"),
    ],
)
def test_a_file_that_cannot_be_made_is_told_in_words(file_id, make_file, word):
    viewer = Connected(files=[{"id": "png", "label": "PNG"}], make_file=make_file)
    viewer.message({"kind": "file", "id": file_id})
    answer, _ = viewer.wait()
    assert answer["kind"] == "failed"
    assert word in answer["text"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "ping",
        3,
        {},
        {"kind": None},
        {"kind": ["ping"]},
        {"kind": "__init__"},
        {"kind": "upload"},
        {"kind": "open"},
    ],
)
def test_a_malformed_message_is_ignored(content):
    assert Connected(on_open=_fail, on_upload=_fail).message(content) == []


def test_messages_are_answered_while_a_file_is_decoded():
    release = threading.Event()
    viewer = Connected(upload_limit=100_000, on_upload=lambda name, image: release.wait(20))
    upload = {"kind": "upload", "id": "a", "name": "cat.png", "at": 0, "size": len(png())}
    assert viewer.message(upload, [png()]) == []
    assert viewer.message({"kind": "ping", "id": 1})
    viewer.sent.clear()
    release.set()
    assert viewer.wait()[0]["kind"] == "received"


def test_the_front_end_sends_chunks_that_are_accepted():
    script = (FOLDER / "viewer.js").read_text(encoding="utf-8")
    (mebibytes,) = re.findall(r"const CHUNK_BYTES = (\d+) \* 2 \*\* 20;", script)
    assert MIN_CHUNK_BYTES <= int(mebibytes) * 2**20 <= MAX_CHUNK_BYTES
