"""The widget of a review, driven by its methods and by messages as the front end sends them."""

import io
import json
import time

import pytest
from PIL import Image

import florence_lab
from florence_lab.exceptions import ArgumentError
from florence_lab.labeling.review import widget
from florence_lab.labeling.review.pictures import choose_region, draw_thumbnail


@pytest.fixture
def folder(images, tmp_path, run):
    run(images, review=(0.5, 0.8))
    return tmp_path / "data"


@pytest.fixture
def review(folder, monkeypatch):
    """A review that writes the files soon, and keeps its messages in `sent`."""
    monkeypatch.setattr(widget, "_WRITE_SECONDS", 0.05)
    review = florence_lab.review(folder)
    review.sent = []
    review.send = lambda content, buffers=None: review.sent.append((content, buffers))
    yield review
    review.close()


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def receive(review, kind, **content):
    review._handle(review, {"kind": kind, **content}, [])


def labels_in(folder):
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    return sum(len(row["objects"]) for row in rows)


def test_it_opens_with_the_uncertain_objects(review):
    assert (review.show, review.has_bounds) == ("uncertain", True)
    assert [card["score"] for card in review.cards] == sorted(card["score"] for card in review.cards)
    assert all(card["is_uncertain"] for card in review.cards)


def test_without_marks_it_opens_with_all_that_nobody_has_looked_at(images, tmp_path, run):
    run(images)
    assert florence_lab.review(tmp_path / "data").show == "undecided"


def test_a_verdict_stays_on_its_page_until_the_list_is_made_anew(review):
    first = review.cards[0]["id"]
    num_cards = review.num_cards
    receive(review, "accept", id=first)
    assert (review.cards[0]["id"], review.cards[0]["verdict"], review.num_cards) == (first, "accepted", num_cards)
    receive(review, "list")
    assert first not in [card["id"] for card in review.cards]
    assert review.num_cards == num_cards - 1


def test_each_message_does_what_its_method_does(review):
    ids = [card["id"] for card in review.cards]
    receive(review, "reject", id=ids[0])
    receive(review, "rename", id=ids[1], label="rocket")
    receive(review, "redraw", id=ids[2], box=[1, 2, 20, 21])
    receive(review, "add", number=0, label="dog", box=[1, 2, 20, 21])
    assert {name: review.counts[name] for name in ("rejected", "changed", "added")} == {
        "rejected": 1, "changed": 2, "added": 1,
    }  # fmt: skip
    for _ in range(4):
        receive(review, "undo")
    assert not review.can_undo
    assert {"kind": "undone", "id": ids[0], "image": review.cards[0]["image"]} in [
        content for content, _ in review.sent
    ]
    assert review.items() == florence_lab.review(review.folder).items()


def test_the_files_follow_by_themselves(review, folder):
    before = labels_in(folder)
    review.reject(review.items()[0])
    wait_for(lambda: review.state == "written")
    assert labels_in(folder) == before - 1


def test_apply_writes_the_files_at_once(folder):
    review = florence_lab.review(folder)
    before = labels_in(folder)
    review.reject(review.items()[0])
    counts = review.apply()
    assert labels_in(folder) == sum(counts.objects.values()) == before - 1
    assert (review.state, review.note) == ("written", "")


def test_a_review_that_was_cut_off_is_written_by_the_next_one(folder, monkeypatch):
    monkeypatch.setattr(widget, "_WRITE_SECONDS", 0.05)
    before = labels_in(folder)
    from florence_lab.labeling.review.session import ReviewSession

    cut_off = ReviewSession(folder)
    cut_off.reject(cut_off.list_items()[0])
    assert labels_in(folder) == before
    review = florence_lab.review(folder)
    wait_for(lambda: review.state == "written")
    assert labels_in(folder) == before - 1


def test_files_that_cannot_be_written_are_a_note(review, folder):
    (folder / "labels.json").write_text("{")
    review.reject(review.items()[0])
    wait_for(lambda: review.state == "failed")
    assert "labels.json" in review.note
    assert review.counts["rejected"] == 1


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "accept"},
        {"kind": "accept", "id": None},
        {"kind": "rename", "id": "0.0", "label": 5},
        {"kind": "redraw", "id": "1.0", "box": ["a", {}, None, 1]},
        {"kind": "redraw", "id": "1.0", "box": 5},
        {"kind": "add", "number": -1, "label": "dog", "box": [1, 2, 3, 4]},
        {"kind": "thumbnails", "ids": 5},
        {"kind": "image", "number": "x"},
    ],
)
def test_malformed_messages_are_answered(review, content):
    receive(review, **content)
    assert [message["kind"] for message, _ in review.sent] == ["failed"]
    assert not review.can_undo


@pytest.mark.parametrize("content", [None, 5, [], {}, {"kind": "unknown"}, {"kind": []}])
def test_unknown_messages_are_ignored(review, content):
    review._handle(review, content, [])
    assert review.sent == []


def test_pages_and_classes_can_be_chosen(review, monkeypatch):
    monkeypatch.setattr(widget, "PAGE_SIZE", 4)
    review.show = "all"
    ids = []
    for page in range(review.num_pages):
        review.page = page
        ids += [card["id"] for card in review.cards]
    assert ids == [item.id for item in review.items("all")]
    review.class_name = "boat"
    assert (review.page, {card["label"] for card in review.cards}) == (0, {"boat"})
    review.page = 99
    assert review.page == review.num_pages - 1


def test_whole_images_are_cards_too(review):
    review.show = "images"
    assert review.num_cards == 23
    assert review.cards[0]["objects"] == []
    receive(review, "add", number=review.cards[0]["number"], label="dog", box=[1, 1, 9, 9])
    assert [item["label"] for item in review.cards[0]["objects"]] == ["dog"]


def test_thumbnails_and_images_are_sent_on_request(review):
    card = review.cards[0]
    receive(review, "thumbnails", ids=[card["id"], str(card["number"])])
    receive(review, "image", number=card["number"], pixels=True)
    wait_for(lambda: len(review.sent) == 3)
    for message, (pixels,) in review.sent:
        assert Image.open(io.BytesIO(pixels)).size[0] > 0
        assert "error" not in message
    assert review.sent[2][0]["size"] == [40, 30]
    assert card["id"] in [item["id"] for item in review.sent[2][0]["objects"]]


def test_a_missing_image_is_told_on_its_card(review, folder, images):
    card = review.cards[0]
    (images / card["image"]).unlink()
    (folder / "train" / card["image"]).unlink()
    receive(review, "thumbnails", ids=[card["id"]])
    receive(review, "image", number=card["number"], pixels=True)
    wait_for(lambda: len(review.sent) == 2)
    assert all(card["image"] in message["error"] for message, _ in review.sent)


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((10, 10, 20, 20), (100, 80)),
        ((0, 0, 100, 80), (100, 80)),
        ((0, 0, 5, 80), (100, 80)),
        ((98, 78, 100, 80), (100, 80)),
        ((0, 0, 3, 1000), (3, 1000)),
        (None, (30, 400)),
    ],
)
def test_a_thumbnail_shows_the_whole_box_in_its_aspect(box, size):
    x0, y0, x1, y1 = choose_region(box, size)
    inner = box or (0, 0, *size)
    assert x0 <= inner[0] < inner[2] <= x1
    assert y0 <= inner[1] < inner[3] <= y1
    assert (x1 - x0) / (y1 - y0) == pytest.approx(4 / 3)
    drawn = draw_thumbnail(Image.new("RGB", size), box)
    assert Image.open(io.BytesIO(drawn.pixels)).size[0] <= 480


def test_methods_name_images_and_refuse_what_there_is_not(review):
    added = review.add("00000.png", "dog", (1, 1, 9, 9))
    assert (added.image, added.verdict) == ("00000.png", "added")
    assert review.undo() is None
    with pytest.raises(ArgumentError, match=r"gone\.png"):
        review.add("gone.png", "dog", (1, 1, 9, 9))
    with pytest.raises(ArgumentError, match="item"):
        review.accept(5)
