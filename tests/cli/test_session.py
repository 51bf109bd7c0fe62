"""`florence-lab infer`: the interactive session, and one query about many images."""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import pytest
from PIL import Image
from support import PHOTO, UNREACHABLE

from florence_lab.cli import main
from florence_lab.cli.answers import AnswerWriter
from florence_lab.cli.session import SEPARATOR, Session
from florence_lab.evaluation import read_predictions
from florence_lab.scenes import sample_path
from florence_lab.sources import NamedSource
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


@pytest.fixture
def pictures(tmp_path):
    """A folder of three images, a broken one, a text and a folder with one image."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for name, color in (("a.png", "red"), ("b.jpg", "green"), ("d.png", "blue"), ("below/e.png", "gray")):
        Image.new("RGB", (40, 30), color).save(folder / name)
    (folder / "c.png").write_bytes(b"no image")
    (folder / "notes.md").write_text("a note")
    return folder


def read_rows(folder):
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.filterwarnings("default:.* left out")
@pytest.mark.parametrize("options", [(), ("--batch_size", 2), ("--stream", "true", "--num_beams", 1)])
def test_a_folder_is_answered_and_what_has_no_answer_is_reported(infer, small, pictures, tmp_path, capsys, options):
    options = ("--num_beams", 1, "--result_dir", tmp_path, *options)
    assert infer("--query", "<CAPTION>", "--images", pictures, *options) == 2
    out, err = capsys.readouterr()
    rows = read_rows(tmp_path)
    assert [row["image"] for row in rows] == [str(pictures / name) for name in ("a.png", "b.jpg", "c.png", "d.png")]
    expected = [
        small.predict(pictures / name, "<CAPTION>", num_beams=1, max_new_tokens=12) for name in ("a.png", "b.jpg")
    ]
    assert [line for line in out.splitlines() if line.startswith("{")][:2] == [response_line(r) for r in expected]
    assert [row["result"] for row in rows[:2]] == [result.to_dict() for result in expected]
    assert [row["truncated"] for row in rows if "truncated" in row] == [result.truncated for result in expected] + [
        True
    ]
    assert "c.png is not an image" in rows[2]["error"]
    assert "c.png is not an image" in err
    assert "notes.md" in err
    assert "1 folder" in err
    assert [bool(p.error) for p in read_predictions(tmp_path / "answers.jsonl")] == [False, False, True, False]


@pytest.mark.filterwarnings("default:.* left out")
def test_folders_below_and_patterns_are_answered(infer, pictures, tmp_path):
    (pictures / "c.png").unlink()
    options = ("--query", "<CAPTION>", "--num_beams", 1, "--result_dir", tmp_path, "--images")
    assert infer(*options, pictures, "--recursive") == 0
    assert infer(*options, f"{pictures}/*.png", pictures / "b.jpg") == 0
    names = [str(Path(row["image"]).relative_to(pictures)) for row in read_rows(tmp_path)]
    assert names == ["a.png", "b.jpg", "below/e.png", "d.png", "a.png", "d.png", "b.jpg"]


def test_the_frames_of_a_video_are_answered_in_batches(small, tmp_path):
    frames = (NamedSource(f"clip.mp4#t={i}", Image.new("RGB", (40, 30), (40 * i, 0, 0))) for i in range(5))
    writer = AnswerWriter(str(tmp_path), str(tmp_path))
    session = Session(small, writer, batch_size=2, generate_kwargs={"max_new_tokens": 4, "num_beams": 1})
    assert session.answer_images("<CAPTION>", frames) == 0
    assert [row["image"] for row in read_rows(tmp_path)] == [f"clip.mp4#t={i}" for i in range(5)]
    assert {path.name for path in tmp_path.glob("*.png")} == {f"clip-{i}-CAPTION.png" for i in range(5)}


@pytest.mark.filterwarnings("default:.* left out")
def test_a_caption_file_is_written_beside_each_image(infer, small, pictures, tmp_path):
    (pictures / "d.txt").write_text("mine")
    options = ("--num_beams", 1, "--caption_files", "--result_dir", tmp_path)
    assert infer("--query", "<CAPTION>", "--images", pictures, *options) == 2
    rows = {Path(row["image"]).name: row for row in read_rows(tmp_path)}
    captions = {path.name: path.read_text() for path in pictures.glob("*.txt")}
    answers = {
        name: small.predict(pictures / name, "<CAPTION>", num_beams=1, max_new_tokens=12) for name in ("a.png", "b.jpg")
    }
    expected = {f"{name[0]}.txt": " ".join(answer.text.split()) + "\n" for name, answer in answers.items()}
    assert captions == expected | {"d.txt": "mine"}
    assert "d.txt exists already" in rows["d.png"]["error"]
    assert "c.png is not an image" in rows["c.png"]["error"]
    assert not list(pictures.glob(".*"))


def test_two_images_of_one_name_do_not_share_a_caption_file(infer, pictures, capsys):
    Image.new("RGB", (40, 30)).save(pictures / "a.jpg")
    images = (pictures / "a.png", pictures / "a.jpg")
    assert infer("--query", "<CAPTION>", "--num_beams", 1, "--caption_files", "--images", *images) == 2
    assert "a.jpg: a.txt exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("region_format", "region"),
    [
        ("xyxy", (10, 6, 30, 24)),
        ("xywh", (10, 6, 20, 18)),
        ("norm_1", (0.25, 0.2, 0.75, 0.8)),
        ("norm_1000", (250, 200, 750, 800)),
    ],
)
def test_a_region_is_given_in_numbers(infer, small, pictures, capsys, region_format, region):
    expected = small.predict(pictures / "a.png", "<REGION_TO_CATEGORY>", (10, 6, 30, 24), max_new_tokens=12)
    options = ("--region", *region, "--region_format", region_format)
    assert infer("--query", "<REGION_TO_CATEGORY>", "--images", pictures / "a.png", *options) == 0
    assert capsys.readouterr().out.startswith(response_line(expected))


def test_a_region_outside_one_image_is_an_error_of_that_image(infer, pictures, tmp_path, capsys):
    Image.new("RGB", (400, 300)).save(pictures / "a.png")
    options = ("--region", 10, 10, 390, 290, "--result_dir", tmp_path)
    images = (pictures / "a.png", pictures / "b.jpg")
    assert infer("--query", "<REGION_TO_CATEGORY>", "--images", *images, *options) == 2
    assert ["error" in row for row in read_rows(tmp_path)] == [False, True]


def test_a_name_that_is_not_utf8_is_recorded_escaped(infer, pictures, tmp_path):
    name = os.fsdecode(b"\xff.png")
    (pictures / "a.png").rename(pictures / name)
    options = ("--num_beams", 1, "--result_dir", tmp_path, "--overlay", tmp_path)
    assert infer("--query", "<CAPTION>", "--images", pictures / name, *options) == 0
    assert read_rows(tmp_path)[0]["image"] == str(pictures / name)
    assert len(list(tmp_path.glob("*-CAPTION.png"))) == 1


def test_a_session_survives_an_unexpected_exception(infer, type_lines, monkeypatch, capsys):
    def fail(*_, **__):
        raise KeyError("from the depth")

    monkeypatch.setattr("florence_lab.predictor.Predictor.predict", fail)
    type_lines("<OD>", PHOTO, "<OD>\udcff", "a\0b", "exit")
    assert infer() == 0
    assert capsys.readouterr().out.count("internal error: KeyError: 'from the depth'") == 2


def test_an_answer_without_its_end_is_removed_before_the_next_is_appended(infer, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"query": "<OD>", "image": "a", "response": "r"}\n{"query": "<OD>", "ima')
    assert infer("--query", "<CAPTION>", "--images", PHOTO, "--result_dir", tmp_path) == 0
    assert [row.query for row in read_predictions(path)] == ["<OD>", "<CAPTION>"]


def test_nano_warns_once_in_a_session_of_images_that_are_not_scenes(type_lines, capsys):
    type_lines("<CAPTION>", sample_path("sheep"), "<CAPTION>", PHOTO, "<CAPTION>", PHOTO, "exit")
    assert main(["infer", "--max_new_tokens", "4"]) == 0
    assert capsys.readouterr().err.count("was trained on florence_lab's cartoon scenes only") == 1
