"""`florence-lab infer`: the interactive session, and one query about many images."""

import dataclasses
import json
import re
import sys

import pytest
from PIL import Image
from support import PHOTO, UNREACHABLE

from florence_lab.cli import main
from florence_lab.cli.session import SEPARATOR
from florence_lab.scenes import sample_path
from florence_lab.tasks import TASKS, Task


def response_line(result):
    return str({result.prompt: result.raw})


# ---------------------------------------------------------------------- interactive


def test_a_session_prints_the_transcript_of_ms_swift_and_a_table(infer, type_lines, small, capsys):
    type_lines("Describe the image", PHOTO, "<OD>", PHOTO, "exit")
    assert infer("--dtype", "fp32", "--stream", "False") == 0
    caption = small.predict(PHOTO, "Describe the image", max_new_tokens=12)
    boxes = small.predict(PHOTO, "<OD>", max_new_tokens=12)
    out = capsys.readouterr().out
    image_line = f"Input a media path or URL <<< {PHOTO}\n"
    assert out.startswith(f"<<< Describe the image\n{image_line}{response_line(caption)}\n")
    _, asked, table = out.partition(f"\n{SEPARATOR}\n<<< <OD>\n{image_line}{response_line(boxes)}\n")
    assert asked, out
    assert re.match(r" *label +score +x0 +y0 +x1 +y1\n", table)
    rows = table.splitlines()[1 : 1 + len(boxes)]
    assert [float(row.split()[-1]) for row in rows] == pytest.approx(boxes.boxes[:, 3], abs=0.005)
    assert table.splitlines()[1 + len(boxes) :] == ["(truncated at 12 tokens)", SEPARATOR, "<<< exit"]


@pytest.mark.parametrize("leave", ["exit", " QUIT ", EOFError(), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [(), ("<OD>",)])
def test_a_session_ends_at_either_prompt(infer, type_lines, leave, before):
    remaining = type_lines(*before, leave, "not read")
    assert infer() == 0
    assert remaining == ["not read"]


def test_ctrl_c_during_an_answer_ends_the_session(infer, type_lines, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("florence_lab.predictor.Predictor.predict", interrupt)
    remaining = type_lines("<OD>", PHOTO, "not read")
    assert infer() == 0
    assert remaining == ["not read"]


def test_an_empty_line_is_not_a_query(infer, type_lines, capsys):
    type_lines("", "  ", "exit")
    assert infer() == 0
    assert capsys.readouterr().out == "<<< \n<<<   \n<<< exit\n"


@pytest.mark.parametrize(
    ("query", "image", "message"),
    [
        ("<OD>", "nowhere.png", "nowhere.png does not exist"),
        ("<ODD>", PHOTO, "unknown task '<ODD>'; did you mean '<OD>'?"),
        ("<OPEN_VOCABULARY_DETECTION>", PHOTO, "<OPEN_VOCABULARY_DETECTION> needs a phrase"),
        ("<OD>", f"{UNREACHABLE}/cat.png", f"{UNREACHABLE}/cat.png"),
    ],
)
def test_a_session_prints_an_error_and_continues(infer, type_lines, small, capsys, query, image, message):
    type_lines(query, image, "<CAPTION>", PHOTO)
    assert infer() == 0
    out = capsys.readouterr().out
    answer = response_line(small.predict(PHOTO, "<CAPTION>", max_new_tokens=12))
    assert out.index(message) < out.index(SEPARATOR) < out.index(answer)


# ---------------------------------------------------------------------- streaming


@pytest.mark.parametrize("query", ["<CAPTION>", "<OD>"])
def test_a_stream_prints_the_same_text_in_pieces(infer, monkeypatch, capsys, query):
    assert infer("--stream", "False", "--num_beams", 1, "--query", query, "--images", PHOTO) == 0
    expected = capsys.readouterr().out
    pieces, write = [], sys.stdout.write
    monkeypatch.setattr(sys.stdout, "write", lambda text: pieces.append(text) or write(text))
    assert infer("--stream", "True", "--query", query, "--images", PHOTO) == 0
    assert capsys.readouterr().out == expected
    assert len(pieces) > 4


def test_a_stream_prints_the_whole_line_again_if_the_quotes_around_it_have_changed(infer, small, monkeypatch, capsys):
    complete = small.predict(PHOTO, "<CAPTION>", max_new_tokens=4)
    texts = ["The", "The cat", "The cat's", 'The cat\'s "ear"']
    growing = [dataclasses.replace(complete, raw=text, text=text, truncated=False) for text in texts]
    monkeypatch.setattr("florence_lab.predictor.Predictor.stream", lambda *_, **__: iter(growing))
    assert infer("--stream", "True", "--query", "<CAPTION>", "--images", PHOTO) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str({complete.prompt: texts[-1]})


# ---------------------------------------------------------------------- one query


def test_a_query_is_answered_for_each_image(infer, small, tmp_path, capsys):
    rotated = tmp_path / "rotated.png"
    Image.open(PHOTO).rotate(90, expand=True).save(rotated)
    assert infer("--query", "<CAPTION>", "--images", PHOTO, rotated) == 0
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line.startswith("{'What does the image describe?'")]
    assert lines == [response_line(small.predict(image, "<CAPTION>", max_new_tokens=12)) for image in (PHOTO, rotated)]
    assert err == "florence-lab: 2 of 2 answers are truncated at max_new_tokens=12; see `result.truncated`\n"
    assert out.count("(truncated at 12 tokens)\n") == 2


def test_a_registered_task_is_answered(infer, monkeypatch, capsys):
    monkeypatch.setitem(TASKS, "<COUNT>", Task("<COUNT>", "How many {input} are there?", "phrase", "text", "a number"))
    assert infer("--query", "<COUNT>sheep", "--images", PHOTO) == 0
    assert capsys.readouterr().out.startswith("{'How many sheep are there?': ")
    assert main(["tasks"]) == 0
    assert "<COUNT>" in capsys.readouterr().out


def test_a_failed_image_is_reported_and_the_others_are_answered(infer, capsys):
    """B11: the first failure ended the command."""
    assert infer("--query", "<CAPTION>", "--images", PHOTO, "missing.jpg", PHOTO) == 2
    out, err = capsys.readouterr()
    assert sum(line.startswith("{'What does the image describe?'") for line in out.splitlines()) == 2
    assert err.endswith("florence-lab: missing.jpg does not exist\n")
    assert err.count("does not exist") == 1


def test_overlays_and_answers_are_written_under_new_names(infer, tmp_path, capsys):
    options = ("--overlay", tmp_path / "overlays", "--result_dir", tmp_path / "answers")
    for query in ("<OD>", "<OD>", "What is « this »?"):
        assert infer("--query", query, "--images", PHOTO, *options) == 0
    names = sorted(path.name for path in (tmp_path / "overlays").iterdir())
    assert names == ["chelsea-OD-2.png", "chelsea-OD.png", "chelsea-question.png"]
    printed = capsys.readouterr().out
    assert all(f"overlay: {tmp_path / 'overlays' / name}\n" in printed for name in names)
    text = (tmp_path / "answers/answers.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["query"] for row in rows] == ["<OD>", "<OD>", "What is « this »?"]
    assert "« this »" in text
    assert rows[0] == rows[1]
    assert list(rows[0]) == ["query", "image", "response", "result", "truncated"]
    assert list(rows[0]["response"]) == ["Locate the objects with category name in the image."]
    assert len(rows[0]["result"]["<OD>"]["bboxes"]) == len(rows[0]["result"]["<OD>"]["scores"])


def test_a_seed_repeats_sampled_answers(infer, capsys):
    answers = []
    for seed in (1, 1, 2):
        sampling = ("--do_sample", "True", "--temperature", 5, "--top_k", 500, "--top_p", 0.99, "--seed", seed)
        assert infer(*sampling, "--query", "<CAPTION>", "--images", PHOTO, PHOTO) == 0
        answers.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("{")])
    assert answers[0] == answers[1] != answers[2]
    assert answers[0][0] == answers[0][1]  # an answer does not depend on those before it


def test_generation_options_reach_the_model(infer, small, capsys):
    assert infer("--num_beams", 1, "--max_new_tokens", 8, "--query", "<CAPTION>", "--images", PHOTO) == 0
    answer = small.predict(PHOTO, "<CAPTION>", num_beams=1, max_new_tokens=8)
    assert capsys.readouterr().out.startswith(response_line(answer))


def test_nano_warns_once_in_a_session_of_images_that_are_not_scenes(type_lines, capsys):
    type_lines("<CAPTION>", sample_path("sheep"), "<CAPTION>", PHOTO, "<CAPTION>", PHOTO, "exit")
    assert main(["infer", "--max_new_tokens", "4"]) == 0
    assert capsys.readouterr().err.count("was trained on florence_lab's cartoon scenes only") == 1
