"""The command line: the session of the seed, one-shot answers, and errors in one line."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import UNREACHABLE, PHOTO, copy_of_tiny
from PIL import Image
from safetensors.torch import load_file, save_file

from florence_lab.cli import main
from florence_lab.loading.registry import MODELS, available_models
from florence_lab.scenes import sample_path
from florence_lab.tasks import TASKS

RULE = "-" * 50


@pytest.fixture
def infer(small):
    """Runs `florence-lab infer` with a small model and short answers."""

    def run(*arguments):
        return main(["infer", "--model_id_or_path", small.name, "--max_new_tokens", "24", *map(str, arguments)])

    return run


@pytest.fixture
def typed(monkeypatch):
    """Has a person type lines, echoed as a terminal does; an exception is what a key raises."""

    def person(*lines):
        waiting = list(lines)

        def read(prompt):
            print(prompt, end="")
            line = waiting.pop(0) if waiting else EOFError()
            if isinstance(line, BaseException):
                raise line
            print(line)
            return str(line)

        monkeypatch.setattr("builtins.input", read)
        return waiting

    return person


@pytest.fixture
def shipped(small, monkeypatch):
    """The model that ships, at a size for tests."""
    info = dataclasses.replace(MODELS["florence-2-nano"], path=Path(small.name))
    monkeypatch.setitem(MODELS, "florence-2-nano", info)
    return info


def line_of(result):
    return str({result.prompt: result.raw})


# ---------------------------------------------------------------------- the session


def test_the_session_of_the_seed(infer, typed, small, capsys):
    typed("Describe the image", PHOTO, "<OD>", PHOTO, "exit")
    assert infer("--dtype", "fp32", "--stream", "False") == 0
    caption = small.predict(PHOTO, "Describe the image", max_new_tokens=24)
    boxes = small.predict(PHOTO, "<OD>", max_new_tokens=24)
    out = capsys.readouterr().out
    assert out.startswith(f"<<< Describe the image\nInput a media path or URL <<< {PHOTO}\n{line_of(caption)}\n")
    asked = f"\n{RULE}\n<<< <OD>\nInput a media path or URL <<< {PHOTO}\n{line_of(boxes)}\n"
    assert asked in out
    table = out.partition(asked)[2]
    assert re.match(r" *label +score +x0 +y0 +x1 +y1\n", table)
    rows = table.splitlines()[1 : 1 + len(boxes)]
    assert [float(row.split()[-1]) for row in rows] == pytest.approx(boxes.boxes[:, 3], abs=0.005)
    assert table.splitlines()[1 + len(boxes) :] == [RULE, "<<< exit"]


@pytest.mark.parametrize("leave", ["exit", "quit", " EXIT ", EOFError(), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [(), ("<OD>",)])
def test_leaving(infer, typed, capsys, leave, before):
    waiting = typed(*before, leave, "still here?")
    assert infer() == 0
    assert waiting == ["still here?"]
    assert RULE not in capsys.readouterr().out


def test_leaving_during_an_answer(infer, typed, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("florence_lab.predictor.Predictor.predict", interrupted)
    waiting = typed("<OD>", PHOTO, "still here?")
    assert infer() == 0
    assert waiting == ["still here?"]


def test_an_empty_line_is_no_question(infer, typed, capsys):
    typed("", "  ", "exit")
    assert infer() == 0
    assert capsys.readouterr().out == "<<< \n<<<   \n<<< exit\n"


@pytest.mark.parametrize(
    ("query", "image", "message"),
    [
        ("<OD>", "nowhere.png", "nowhere.png does not exist"),
        ("<OD>", "", "is a folder, not an image"),
        ("<ODD>", PHOTO, "unknown task '<ODD>'; did you mean '<OD>'?"),
        ("<OPEN_VOCABULARY_DETECTION>", PHOTO, "<OPEN_VOCABULARY_DETECTION> needs a phrase"),
        ("<OD>a cat", PHOTO, "<OD> takes no input, but got 'a cat'"),
        ("<REGION_TO_OCR><loc_9><loc_9><loc_1><loc_1>", PHOTO, "is inside out"),
        ("<REGION_TO_OCR><loc_0><loc_0><loc_9><loc_1000>", PHOTO, "takes a region"),
        ("<OD>", f"{UNREACHABLE}/cat.png", "cannot be fetched"),
    ],
)
def test_a_session_survives_errors(infer, typed, small, capsys, query, image, message):
    typed(query, image, "<CAPTION>", PHOTO)
    assert infer() == 0
    out = capsys.readouterr().out
    assert message in out
    assert "Traceback" not in out
    answer = line_of(small.predict(PHOTO, "<CAPTION>", max_new_tokens=24))
    assert out.index(message) < out.index(RULE) < out.index(answer)


@pytest.mark.parametrize("query", ["<CAPTION>", "<OD>"])
def test_a_stream_prints_the_same(infer, small, monkeypatch, capsys, query):
    pieces, write = [], sys.stdout.write
    monkeypatch.setattr(sys.stdout, "write", lambda text: pieces.append(text) or write(text))
    assert infer("--stream", "True", "--query", query, "--images", PHOTO) == 0
    streamed = capsys.readouterr().out
    assert infer("--stream", "False", "--num_beams", 1, "--query", query, "--images", PHOTO) == 0
    assert streamed == capsys.readouterr().out
    assert len(pieces) > 4
    assert streamed.startswith(line_of(small.predict(PHOTO, query, num_beams=1, max_new_tokens=24)))


def test_a_stream_whose_quotes_change_ends_with_the_whole_line(infer, small, monkeypatch, capsys):
    whole = small.predict(PHOTO, "<CAPTION>", max_new_tokens=4)
    texts = ["The", "The cat", "The cat's", 'The cat\'s "ear"']
    growing = [dataclasses.replace(whole, raw=text, text=text) for text in texts]
    monkeypatch.setattr("florence_lab.predictor.Predictor.stream", lambda *_, **__: iter(growing))
    assert infer("--stream", "True", "--query", "<CAPTION>", "--images", PHOTO) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str({whole.prompt: texts[-1]})


# ---------------------------------------------------------------------- one answer, without a session


def test_one_query_about_several_images(infer, small, tmp_path, capsys):
    turned = tmp_path / "turned.png"
    Image.open(PHOTO).rotate(90, expand=True).save(turned)
    assert infer("--query", "<CAPTION>", "--images", PHOTO, turned) == 0
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line.startswith("{'What does the image describe?'")]
    assert lines == [line_of(small.predict(image, "<CAPTION>", max_new_tokens=24)) for image in (PHOTO, turned)]
    assert "<<<" not in out
    assert RULE not in out
    assert err == ""


def test_overlays_and_answers_are_kept(infer, tmp_path, capsys):
    keep = ("--overlay", tmp_path / "pictures", "--result_dir", tmp_path / "answers")
    for _ in range(2):
        assert infer("--query", "<OD>", "--images", PHOTO, *keep) == 0
    assert infer("--query", "What is « this »?", "--images", PHOTO, *keep) == 0
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["chelsea-OD-2.png", "chelsea-OD.png", "chelsea-question.png"]
    printed = capsys.readouterr().out
    for name in names:
        assert f"overlay: {tmp_path / 'pictures' / name}\n" in printed
        assert Image.open(tmp_path / "pictures" / name).width > 100
    rows = [json.loads(row) for row in (tmp_path / "answers/answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["query"] for row in rows] == ["<OD>", "<OD>", "What is « this »?"]
    assert rows[0] == rows[1]
    assert rows[0]["image"] == str(PHOTO)
    assert list(rows[0]["response"]) == ["Locate the objects with category name in the image."]
    assert len(rows[0]["result"]["<OD>"]["bboxes"]) == len(rows[0]["result"]["<OD>"]["scores"]) > 0
    assert "« this »" in (tmp_path / "answers/answers.jsonl").read_text(encoding="utf-8")


def test_a_seed_makes_chance_repeatable(infer, capsys):
    answers = []
    for seed in (1, 1, 2):
        chance = ("--do_sample", "True", "--temperature", 5, "--top_k", 500, "--top_p", 0.99, "--seed", seed)
        assert infer(*chance, "--query", "<CAPTION>", "--images", PHOTO, PHOTO) == 0
        answers.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("{")])
    assert answers[0] == answers[1] != answers[2]
    assert answers[0][0] == answers[0][1]  # an answer does not depend on those before it


def test_settings_reach_the_model(infer, small, capsys):
    assert infer("--num_beams", 1, "--max_new_tokens", 12, "--query", "<CAPTION>", "--images", PHOTO) == 0
    answer = small.predict(PHOTO, "<CAPTION>", num_beams=1, max_new_tokens=12)
    assert capsys.readouterr().out.startswith(line_of(answer))


def test_the_model_that_ships_says_what_it_knows(shipped, capsys):
    ask = ["infer", "--max_new_tokens", "4", "--query", "<CAPTION>", "--images"]
    assert main([*ask, str(PHOTO)]) == 0
    said = capsys.readouterr().err
    assert said.startswith("florence-lab: florence-2-nano knows florence_lab's cartoon scenes and nothing else")
    assert said.count("\n") == 1
    assert main([*ask, str(sample_path("sheep"))]) == 0
    assert capsys.readouterr().err == ""


def test_a_session_says_once_what_the_model_knows(shipped, typed, capsys):
    typed("<CAPTION>", str(PHOTO), "<CAPTION>", str(PHOTO), "exit")
    assert main(["infer", "--max_new_tokens", "4"]) == 0
    assert capsys.readouterr().err.count("cartoon scenes and nothing else") == 1


# ---------------------------------------------------------------------- errors


def no_weights(tmp_path):
    folder = copy_of_tiny(tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    return folder


ASK = ("--query", "<OD>", "--images", PHOTO)
FAILURES = {
    "no such image": (("--query", "<OD>", "--images", "nowhere.png"), "nowhere.png does not exist"),
    "the second image": (("--query", "<CAPTION>", "--images", PHOTO, "nowhere.png"), "nowhere.png does not exist"),
    "unknown task": (("--query", "<ODD>", "--images", PHOTO), "unknown task '<ODD>'"),
    "a query without images": (("--query", "<OD>"), "--query and --images go together"),
    "images without a query": (("--images", PHOTO), "--query and --images go together"),
    "unknown dtype": (("--dtype", "fp8", *ASK), "unknown dtype 'fp8': give fp32, fp16, bf16 or auto"),
    "unknown device": (("--device", "abacus", *ASK), "no device 'abacus': give auto, cpu, cuda"),
    "beams in a stream": (("--stream", "1", "--num_beams", 2, *ASK), "can't be streamed with num_beams=2"),
    "no beam at all": (("--num_beams", 0, *ASK), "num_beams=0: give 1 (greedy) or more"),
    "a length of nothing": (("--max_new_tokens", 0, *ASK), "`max_new_tokens` must be greater than 0"),
    "a file for a folder": (("--result_dir", PHOTO, *ASK), "File exists"),
}


@pytest.mark.parametrize(("arguments", "message"), FAILURES.values(), ids=FAILURES)
def test_failures_are_one_line(infer, capfd, arguments, message):
    assert infer(*arguments) == 2
    assert_one_line(capfd.readouterr().err, message)


def assert_one_line(err, message):
    assert err.startswith("florence-lab: ")
    assert message in err
    assert err.count("\n") == 1
    assert err.endswith("\n")


@pytest.mark.parametrize("session", [(), ASK])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (("--model_type", "florence-2-larg"), "unknown model_type 'florence-2-larg'; did you mean 'florence-2-large'?"),
        (("--model_id_or_path", "/no/such/folder"), "/no/such/folder does not exist"),
        (("--ckpt_dir", "EMPTY"), "has no weights"),
        (("--model_type", "florence-2-base"), "cannot download AI-ModelScope/Florence-2-base from ModelScope"),
        (
            ("--model_type", "florence-2-base", "--hub", "hf"),
            "cannot download microsoft/Florence-2-base from Hugging Face",
        ),
        (("--model_type", "florence-2-base", "--hub", "hub"), "unknown hub 'hub'"),
    ],
)
def test_models_that_cannot_be_had(unreachable_hubs, typed, tmp_path, capfd, session, model, message):
    typed()
    model = [str(no_weights(tmp_path)) if word == "EMPTY" else word for word in model]
    assert main(["infer", *model, *map(str, session)]) == 2
    out, err = capfd.readouterr()
    assert_one_line(err, message)
    assert "<<<" not in out


def test_a_bad_image_for_the_model_that_ships(shipped, capfd):
    assert main(["infer", "--query", "<OD>", "--images", "nowhere.png"]) == 2
    assert_one_line(capfd.readouterr().err, "nowhere.png does not exist")


@pytest.mark.parametrize("arguments", [["--stream", "perhaps"], ["--ckpt_dir", "a", "--model_id_or_path", "b"]])
def test_arguments_that_make_no_sense(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(["infer", *arguments])
    assert left.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


# ---------------------------------------------------------------------- lists


def test_models(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for name in available_models():
        assert re.search(rf"^{name} .*\n +{re.escape(MODELS[name].description)}$", out, re.MULTILINE)
    assert "AI-ModelScope/Florence-2-large-ft · microsoft/Florence-2-large-ft" in out


def test_tasks(capsys):
    assert main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TASKS)
    for line, task in zip(lines, TASKS.values(), strict=True):
        assert task.description in line
        assert line.endswith(f"(takes a {task.input})") == (task.input != "none")


# ---------------------------------------------------------------------- as people run it


def florence_lab(*arguments, **options):
    command = [sys.executable, "-m", "florence_lab.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env=environment, timeout=120, check=False, **options
    )


def test_a_session_through_a_pipe(small):
    typed = f"<CAPTION>\n{PHOTO}\n<OD>\nnowhere.png\n"
    done = florence_lab("infer", "--model_id_or_path", small.name, "--max_new_tokens", 8, "--num_beams", 1, input=typed)
    answer = small.predict(PHOTO, "<CAPTION>", num_beams=1, max_new_tokens=8)
    lines = done.stdout.split("\n")
    assert lines[0] == f"<<< Input a media path or URL <<< {line_of(answer)}"
    assert lines[-5:] == [RULE, "<<< Input a media path or URL <<< nowhere.png does not exist", RULE, "<<< ", ""]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_failure_in_a_shell(small, tmp_path):
    small.save(tmp_path)  # transformers itself would print a report of many lines, and a progress bar
    state = load_file(tmp_path / "model.safetensors")
    del state["model.multi_modal_projector.image_proj_norm.bias"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    done = florence_lab("infer", "--model_id_or_path", tmp_path, "--query", "<OD>", "--images", PHOTO)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr, "lacks the weights model.multi_modal_projector.image_proj_norm.bias")


def test_scenes_are_written_as_a_dataset(tmp_path, capsys):
    assert main(["scenes", "--count", "2", "--size", "64", "--out", str(tmp_path)]) == 0
    assert len(list((tmp_path / "images").iterdir())) == 2
    assert len(json.loads((tmp_path / "annotations.json").read_text())["images"]) == 2
    assert main(["scenes", "--count", "0", "--out", str(tmp_path)]) == 2
    assert "--count 0" in capsys.readouterr().err
