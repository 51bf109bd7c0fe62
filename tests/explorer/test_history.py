"""The history: the last answers, as plain values for the browser."""

import base64
import io
import json
import threading

import pytest
from PIL import Image

from florence_lab.explorer.history import MAX_ENTRIES, History
from florence_lab.explorer.session import answer_question


@pytest.fixture
def answer(make_question, fake):
    return list(answer_question(make_question(), "florence-2-nano", fake, threading.Event()))[-1]


def test_an_entry_is_a_small_plain_dict_with_a_thumbnail(answer):
    (record,) = History().add([answer])
    assert record["title"] == "Object detection · sheep · florence-2-nano"
    assert len(record["time"]) == 5
    assert len(json.dumps(record)) < 5000
    thumbnail = base64.b64decode(record["thumbnail"].removeprefix("data:image/jpeg;base64,"))
    assert max(Image.open(io.BytesIO(thumbnail)).size) == 72


def test_the_last_entries_are_kept_newest_first(answer):
    history = History()
    for _ in range(MAX_ENTRIES + 2):
        records = history.add([answer])
    ids = [record["id"] for record in records]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == len(history.entries) == MAX_ENTRIES
    assert history.find(ids[3]).id == ids[3]
    assert history.find(ids[-1] - 1) is None


def test_a_stopped_run_says_so(answer):
    assert History().add([answer], is_stopped=True)[0]["title"].endswith("stopped")
