"""Task tokens that are in no table, such as those of public fine-tunes, are passed on as they stand everywhere."""

import copy
import json
import shutil
import warnings

import pytest
from PIL import Image
from support import PHOTO

from florence_lab import InferRequest, PromptError, RequestConfig, TransformersEngine
from florence_lab.cli import main
from florence_lab.data.datasets import load_examples
from florence_lab.data.validation import RowValidator
from florence_lab.exceptions import FlorenceLabWarning
from florence_lab.results import Text
from florence_lab.tasks import TASKS, Task

QUERY = "<DocVQA> What is the date?"
SHORT = {"max_new_tokens": 8, "num_beams": 1}


@pytest.fixture(scope="module")
def model(small, tmp_path_factory):
    """The options of `small` with short answers."""
    folder = tmp_path_factory.mktemp("short") / "checkpoint"
    short = copy.deepcopy(small)
    short.model.generation_config.max_new_tokens = 8
    short.save_pretrained(folder)
    return ["--model_id_or_path", str(folder), "--device", "cpu"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A file of three rows, two of them of one own token."""
    folder = tmp_path_factory.mktemp("own")
    Image.new("RGB", (64, 48), "red").save(folder / "a.png")
    queries = {QUERY: "May <loc_5>", "<DocVQA>How many?": "two", "<GENERATE_TAGS>": "red, plain"}
    lines = [{"query": query, "response": response, "images": ["a.png"]} for query, response in queries.items()]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("task", "text"),
    [(QUERY, None), ("<DocVQA>", " What is the date?"), ("<GENERATE_TAGS>", None), ("<VQA>", (10, 10, 50, 50))],
)
def test_all_methods_give_the_same_text(small, task, text):
    encoded = small.encode_image(PHOTO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as of a token that is not in the vocabulary
        warnings.filterwarnings("ignore", ".*truncated", FlorenceLabWarning)
        result = small.predict(encoded, task, text, **SHORT)
        (of_tasks,) = small.predict_tasks(encoded, [(task, text)], **SHORT)
        (of_batch,) = small.predict_batch([encoded], task, text, **SHORT)
        *_, streamed = small.stream(encoded, task, text, max_new_tokens=8)
    assert isinstance(result, Text)
    assert of_tasks.raw == of_batch.raw == streamed.raw == result.raw
    assert of_tasks.prompt == of_batch.prompt == streamed.prompt == result.prompt
    assert result.prompt == result.task + result.phrase
    assert list(result.to_dict()) == [result.task]
    assert result._repr_png_().startswith(b"\x89PNG")


def test_the_prompt_is_that_of_the_same_free_form_question(small):
    """A token is not a different prompt from its text: what follows from it is the name of the task."""
    own, free = (small.template.build_prompt(*pair) for pair in ((QUERY,), ("", QUERY)))
    assert (own.prompt, own.task.token) == (QUERY, "<DocVQA>")
    assert free.prompt == own.prompt


def test_a_misspelled_token_is_refused_by_all_methods(small):
    encoded = small.encode_image(PHOTO)
    for call in (
        lambda: small.predict(encoded, "<CAPTOIN>"),
        lambda: small.predict_tasks(encoded, ["<CAPTOIN>"]),
        lambda: small.predict_batch([encoded], "<CAPTOIN>"),
        lambda: small.stream(encoded, "<CAPTOIN>"),
    ):
        with pytest.raises(PromptError, match="unknown task '<CAPTOIN>'; did you mean '<CAPTION>'"):
            call()


def test_infer_answers_it(model, capsys, tmp_path):
    query = ["--query", QUERY, "--images", str(PHOTO)]
    assert main(["infer", *model, *query, "--overlay", str(tmp_path), "--result_dir", str(tmp_path)]) == 0
    assert QUERY in capsys.readouterr().out
    assert list(tmp_path.glob("*-DocVQA.png"))
    (answer,) = map(json.loads, (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines())
    assert (answer["query"], list(answer["result"])) == (QUERY, ["<DocVQA>"])


@pytest.mark.slow
def test_infer_writes_it_into_caption_files(model, tmp_path):
    image = shutil.copy(PHOTO, tmp_path / "cat.jpg")
    query = ["--query", "<GENERATE_TAGS>", "--images", str(image)]
    assert main(["infer", *model, *query, "--caption_files"]) == 0
    assert (tmp_path / "cat.txt").is_file()


def test_a_session_answers_it(model, capsys, monkeypatch):
    lines = iter([QUERY, str(PHOTO), "<CAPTOIN>", str(PHOTO), "exit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert main(["infer", *model]) == 0
    output = capsys.readouterr().out
    assert f"{{{QUERY!r}: " in output
    assert "unknown task '<CAPTOIN>'; did you mean '<CAPTION>'" in output


def test_infer_answers_a_dataset_of_it(model, rows, tmp_path):
    arguments = ["--val_dataset", str(rows), "--result_dir", str(tmp_path)]
    assert main(["infer", *model, *arguments]) == 0
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [answer["query"] for answer in answers] == [QUERY, "<DocVQA>How many?", "<GENERATE_TAGS>"]
    assert [answer["label"] for answer in answers] == ["May <loc_5>", "two", "red, plain"]
    assert main(["infer", *model, *arguments]) == 0  # finds all of its answers


@pytest.mark.parametrize(
    ("tasks", "measured"),
    [([], {"<DocVQA>": 2, "<GENERATE_TAGS>": 1}), pytest.param(["<DocVQA>"], {"<DocVQA>": 2}, marks=pytest.mark.slow)],
)
def test_eval_measures_it_by_its_token(model, rows, tmp_path, capsys, tasks, measured):
    options = ["--tasks", *tasks] if tasks else []
    assert main(["eval", *model, "--dataset", str(rows), "--out", str(tmp_path), *options]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert list(metrics) == list(measured)
    assert all("accuracy" in values for values in metrics.values()), metrics
    output = capsys.readouterr().out
    assert all(token in output for token in measured)


def test_rows_of_it_are_training_rows(rows, small):
    loaded = load_examples([str(rows)], RowValidator.for_model(small.model, small.processor), 0)
    assert not loaded.errors
    prompts = {example.prompt.prompt: example.target for example in loaded.examples}
    assert prompts == {QUERY: "May <loc_5>", "<DocVQA>How many?": "two", "<GENERATE_TAGS>": "red, plain"}


@pytest.mark.parametrize("spec", ["captions:{}?task=<GENERATE_TAGS>", "captions:{}?task=<MIXED_CAPTION>"])
def test_images_with_texts_are_rows_of_it(spec, tmp_path, small):
    shutil.copy(PHOTO, tmp_path / "cat.jpg")
    (tmp_path / "cat.txt").write_text("a cat, a sofa")
    (example,) = load_examples([spec.format(tmp_path)], RowValidator(small.template), 0).examples
    assert (example.prompt.query, example.target) == (spec.partition("=")[2], "a cat, a sofa")


def test_ms_swift_interface_answers_it(small):
    engine = TransformersEngine(small)
    requests = [
        InferRequest([{"role": "user", "content": query}], images=[str(PHOTO)])
        for query in (QUERY, "<DocVQA>How many?", "<GENERATE_TAGS>")
    ]
    config = RequestConfig(max_tokens=8, num_beams=1)
    responses = engine.infer(requests, config)
    expected = [small.predict(PHOTO, request.messages[0]["content"], **SHORT) for request in requests]
    assert [json.loads(response.choices[0].message.content) for response in responses] == [
        r.to_dict() for r in expected
    ]
    assert list(expected[0].to_dict()) == ["<DocVQA>"]


def test_registered_tasks_of_a_token_have_structured_results(small, monkeypatch):
    monkeypatch.setitem(TASKS, "<MyOD>", Task("<MyOD>", prompt="<MyOD>{input}", input="phrase", result="boxes"))
    monkeypatch.setitem(TASKS, "<MyAny>", Task("<MyAny>", result="polygons"))
    encoded = small.encode_image(PHOTO)
    result = small.predict(encoded, "<myod>", "a cat", **SHORT)
    assert (type(result).__name__, result.prompt, result.task) == ("Boxes", "<MyOD>a cat", "<MyOD>")
    result = small.predict(encoded, "<MyAny>", **SHORT)
    assert (type(result).__name__, result.prompt) == ("Polygons", "<MyAny>")
