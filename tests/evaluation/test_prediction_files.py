"""Files of predictions, also those that an interrupted run has left."""

import json
import logging

import pytest

from florence_lab.evaluation import Prediction, read_predictions
from florence_lab.evaluation.prediction_files import write_predictions
from florence_lab.exceptions import DatasetError


@pytest.mark.parametrize("text", ["a\u2028b", "a\u2029b", "a\u0085b", "a\x0bb\x0cc\x1cd", "\r\n", "\udcff", "é 猫 🙂"])
def test_any_character_survives_in_a_file(tmp_path, text):
    rows = [Prediction(source="s", task="<OCR>", response=text, image=text), Prediction(source="t", text=text)]
    write_predictions(tmp_path / "answers.jsonl", rows)
    assert read_predictions(tmp_path / "answers.jsonl") == rows
    assert (tmp_path / "answers.jsonl").read_bytes().decode("utf-8").count("\n") == 2


WHOLE_ROW = json.dumps({"source": "s", "task": "<OCR>", "response": "é"}, ensure_ascii=False).encode() + b"\n"


@pytest.mark.parametrize(
    "torn", [WHOLE_ROW[:-2], WHOLE_ROW[:-4], WHOLE_ROW[:3], b"{", b"\0" * 9, WHOLE_ROW[:9] + b"\0\0"]
)
def test_the_last_line_of_an_interrupted_run_is_dropped(tmp_path, torn, caplog):
    """A kill may come in the middle of a character; after a power failure a file system may leave zeros."""
    path = tmp_path / "answers.jsonl"
    path.write_bytes(WHOLE_ROW + torn)
    with caplog.at_level(logging.WARNING):
        assert [row.source for row in read_predictions(path)] == ["s"]
    assert "the last line is incomplete" in caplog.text
    write_predictions(path, [Prediction(source="t", task="<OCR>")])
    assert [row.source for row in read_predictions(path)] == ["s", "t"]


def test_a_complete_last_line_needs_no_end(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE_ROW.strip() + b"\r\n\r\n" + WHOLE_ROW.strip())
    assert len(read_predictions(path)) == 2
    write_predictions(path, [Prediction(source="t", task="<OCR>")])
    assert [row.source for row in read_predictions(path)] == ["s", "s", "t"]


@pytest.mark.parametrize(
    "line",
    [
        b"5",
        b"{}",
        b"null",
        b"[1]",
        b"junk",
        b"\0\0\0",
        b"\xff",
        b'{"task": 5}',
        b'{"query": ["<OD>"]}',
        b'{"query": "<CAPTOIN>"}',
        b'{"task": "<OD>", "result": 5}',
        b'{"task": "<OD>", "score": "high"}',
        b'{"task": "<OD>", "source": 5}',
        b"[" * 100_000,
    ],
    ids=lambda line: line[:30].decode("latin1"),
)
def test_a_line_of_something_else_is_named(tmp_path, line):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(WHOLE_ROW + line + b"\n" + WHOLE_ROW)
    with pytest.raises(DatasetError, match=r"answers\.jsonl, line 2 is not a prediction: "):
        read_predictions(path)


@pytest.mark.parametrize("name", ["missing.jsonl", ""])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_predictions(f"{tmp_path}/{name}")
