"""Files that arrive in chunks."""

import io
import random
import time

import pytest
from PIL import Image

from florence_lab import ImageError
from florence_lab.viewer.uploads import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, UploadReceiver

MIB = 2**20


def png(side=8):
    file = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(file, "PNG")
    return file.getvalue()


class Sender:
    """A front end: sends chunks, and keeps the answers and the images that arrived."""

    def __init__(self, limit=4 * MIB, on_image=None, **settings):
        self.answers, self.images = [], []
        on_image = on_image or (lambda name, image: self.images.append((name, image)))
        self.receiver = UploadReceiver(limit, on_image, self.answers.append, **settings)

    def send(self, at, size, chunk, name="cat.png", id="u1", **changes):
        message = {"kind": "upload", "id": id, "name": name, "at": at, "size": size} | changes
        self.receiver.receive(message, [memoryview(chunk)] if isinstance(chunk, bytes) else chunk)
        return self.answers[-1] if self.answers else None

    def upload(self, content, chunk_size=MIN_CHUNK_BYTES, **settings):
        for at in range(0, len(content), chunk_size):
            answer = self.send(at, len(content), content[at : at + chunk_size], **settings)
            if answer["kind"] == "refused":
                break
        return answer


def test_an_image_in_chunks_arrives_whole_and_each_chunk_is_acknowledged():
    sender, content = Sender(), png(300)
    assert len(content) > 3 * MIN_CHUNK_BYTES
    sender.upload(content)
    positions = list(range(0, len(content), MIN_CHUNK_BYTES))
    assert sender.answers == [{"kind": "received", "id": "u1", "at": at} for at in positions]
    ((name, image),) = sender.images
    assert (name, image.size) == ("cat.png", (300, 300))
    assert sender.receiver.num_bytes == 0


CHUNK = bytes(MIN_CHUNK_BYTES)


@pytest.mark.parametrize(
    ("chunks", "word"),
    [
        ([(0, 5 * MIB, CHUNK)], "5.0 MiB, and the limit is 4.0 MiB"),
        ([(0, 10**30, CHUNK)], "the limit is 4.0 MiB"),
        ([(0, 0, b"")], "empty"),
        ([(5, MIB, CHUNK)], "has ended"),  # no beginning
        ([(0, MIB, CHUNK), (2 * MIN_CHUNK_BYTES, MIB, CHUNK)], "was next"),  # one is missing
        ([(0, MIB, CHUNK), (MIN_CHUNK_BYTES, MIB - 1, CHUNK)], "was said to have"),
        ([(0, 10, CHUNK)], "More than the 10 bytes"),
        ([(0, 4 * MIB, bytes(MAX_CHUNK_BYTES + 1))], "parts have"),
        ([(0, MIB, b"x")], "parts have"),  # thousands of tiny chunks
        ([(0, MIB, b"")], "parts have"),
        ([(-1, MIB, CHUNK)], "at = -1"),
        ([(0, -1, CHUNK)], "size = -1"),
        ([(0, "5", CHUNK)], "size = '5'"),
        ([(0.0, MIB, CHUNK)], "at = 0.0"),
        ([(True, MIB, CHUNK)], "at = True"),
        ([(None, MIB, CHUNK)], "at = None"),
        ([(0, MIB, [])], "without its content"),
        ([(0, MIB, [CHUNK, CHUNK])], "without its content"),
        ([(0, MIB, ["text"])], "without its content"),
    ],
)
def test_what_is_wrong_is_refused_in_words_and_frees_the_memory(chunks, word):
    sender = Sender()
    for chunk in chunks:
        answer = sender.send(*chunk)
    assert answer["kind"] == "refused"
    assert answer["id"] == "u1"
    assert word in answer["text"]
    assert sender.receiver.num_bytes == 0
    assert sender.upload(png())["kind"] == "received"  # the next file is not affected


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"hello", "notes.txt is not an image"),
        (png()[:60], "notes.txt cannot be read"),
    ],
)
def test_a_file_that_is_no_image_is_refused_by_its_name(content, word):
    answer = Sender().upload(content, name="notes.txt")
    assert answer["kind"] == "refused"
    assert word in answer["text"]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    sender = Sender()
    assert "too many pixels" in sender.upload(png())["text"]
    assert not sender.images


@pytest.mark.parametrize(("error", "word"), [(ImageError("not here"), "not here"), (RuntimeError("full"), "full")])
def test_whoever_uses_the_image_may_refuse_it(error, word):
    def refuse(name, image):
        raise error

    answer = Sender(on_image=refuse).upload(png())
    assert answer["kind"] == "refused"
    assert word in answer["text"]


def test_without_a_limit_nothing_is_accepted():
    assert "cannot be uploaded" in Sender(limit=0).upload(png())["text"]


def test_another_file_takes_the_place_of_one_that_was_arriving():
    sender = Sender()
    sender.send(0, MIB, CHUNK, id="old")
    sender.send(0, 2 * MIB, CHUNK, id="new")
    answer = sender.send(MIN_CHUNK_BYTES, MIB, CHUNK, id="old")
    assert (answer["kind"], answer["id"]) == ("refused", "old")
    answer = sender.send(MIN_CHUNK_BYTES, 2 * MIB, CHUNK, id="new")  # it goes on
    assert answer == {"kind": "received", "id": "new", "at": MIN_CHUNK_BYTES}


def test_an_upload_that_is_cancelled_or_abandoned_is_freed():
    sender = Sender()
    sender.send(0, MIB, CHUNK)
    sender.receiver.cancel("other")
    assert sender.receiver.num_bytes == len(CHUNK)
    sender.receiver.cancel("u1")
    assert sender.receiver.num_bytes == 0
    sender = Sender(timeout=0.05)
    sender.send(0, MIB, CHUNK)
    deadline = time.monotonic() + 5
    while sender.receiver.num_bytes and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sender.receiver.num_bytes == 0
    assert sender.send(MIN_CHUNK_BYTES, MIB, CHUNK)["kind"] == "refused"


@pytest.mark.parametrize("id", [None, True, [1], {"a": 1}, 1.5])
def test_a_chunk_without_an_id_has_no_answer(id):
    assert Sender().send(0, MIB, CHUNK, id=id) is None


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (r"C:\fakepath\cat.png", "cat.png"),
        ("../../etc/cat.png", "cat.png"),
        ("cat\n\x00.png", "cat.png"),
        ("cat/", "the file"),
        (None, "the file"),
        ("x" * 1000 + ".png", "x" * 196 + ".png"),
    ],
)
def test_names_are_the_last_part_and_can_be_printed(given, name):
    sender = Sender()
    sender.upload(png(), name=given)
    assert sender.images[0][0] == name


def test_no_sequence_of_messages_raises_or_exceeds_the_limit():
    rng = random.Random(0)
    sender = Sender(limit=MIB)
    odd = [0, 0, 0, MIN_CHUNK_BYTES, -1, 2**70, None, "0", 0.5, True, [], MIB, MIB // 2, 10]
    for _ in range(500):
        buffers = rng.choice([[CHUNK], [CHUNK], [CHUNK], [], ["x"], [b""], [memoryview(CHUNK)[::2]], [None]])
        sender.send(rng.choice(odd), rng.choice(odd), buffers, name=rng.choice(odd), id=rng.choice(["a", "b", 3, *odd]))
        assert sender.receiver.num_bytes <= MIB
    assert {answer["kind"] for answer in sender.answers} == {"received", "refused"}
    assert not sender.images
