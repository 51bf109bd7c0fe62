"""A 16th task, registered by one call, works everywhere without a change to any file of the package."""

import json

import pytest
from PIL import Image
from support import PHOTO

from florence_lab.cli import main
from florence_lab.inference import generation
from florence_lab.results import Boxes
from florence_lab.tasks import TASKS, Task, register_task

TOKEN = "<LOCATE_ANIMALS>"
TARGET = "cat<loc_100><loc_200><loc_700><loc_800>"


@pytest.fixture(scope="module", autouse=True)
def task():
    registered = register_task(
        Task(
            TOKEN,
            "Locate the animals that look like {input}.",
            "phrase",
            "boxes",
            "boxes for the animals of a kind",
            coco_label="category",
            example="a cat",
        )
    )
    yield registered
    del TASKS[TOKEN]


@pytest.fixture(scope="module")
def model(small):
    return ["--model_id_or_path", small.name, "--device", "cpu"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A training file of two rows."""
    folder = tmp_path_factory.mktemp("rows")
    path = folder / "rows.jsonl"
    lines = []
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (64, 48), color).save(folder / name)
        lines.append({"query": f"{TOKEN}a {color} cat", "response": TARGET, "images": [name]})
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def test_predict_answers_it(small):
    result = small.predict(PHOTO, TOKEN, "a cat", max_new_tokens=40)
    assert isinstance(result, Boxes)
    assert result.prompt == "Locate the animals that look like a cat."
    assert len(result.scores) == len(result)
    assert result.to_dict().keys() == {TOKEN}
    assert result.to_coco()["images"][0]["width"] == 451


def test_stream_and_batches_answer_it(small):
    encoded = small.encode_image(PHOTO)
    expected = small.predict(encoded, TOKEN, "a cat", num_beams=1, max_new_tokens=40).raw
    *_, streamed = small.stream(encoded, TOKEN, "a cat", max_new_tokens=40)
    (batched,) = small.predict_batch([encoded], f"{TOKEN}a cat", num_beams=1, max_new_tokens=40)
    (together,) = small.predict_tasks(encoded, [(TOKEN, "a cat")], num_beams=1, max_new_tokens=40)
    assert streamed.raw == batched.raw == together.raw == expected


def test_its_result_is_drawn(small):
    result = small.predict(PHOTO, "locate_animals", "a cat", max_new_tokens=40)
    assert result._repr_png_().startswith(b"\x89PNG")


def test_the_command_line_lists_and_answers_it(model, capsys, tmp_path):
    assert main(["tasks"]) == 0
    assert TOKEN in capsys.readouterr().out
    query = ["--query", f"{TOKEN}a cat", "--images", str(PHOTO), "--max_new_tokens", "8", "--num_beams", "1"]
    assert main(["infer", *model, *query, "--overlay", str(tmp_path)]) == 0
    assert "Locate the animals that look like a cat." in capsys.readouterr().out
    assert list(tmp_path.glob("*.png"))


def test_infer_answers_a_dataset_of_it(model, rows, tmp_path):
    arguments = ["--val_dataset", str(rows), "--result_dir", str(tmp_path), "--max_new_tokens", "8", "--num_beams", "1"]
    assert main(["infer", *model, *arguments]) == 0
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [answer["query"] for answer in answers] == [f"{TOKEN}a red cat", f"{TOKEN}a blue cat"]
    assert all(TOKEN in answer["result"] for answer in answers)


def test_eval_measures_it_with_the_default_metrics_of_its_results(model, rows, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(generation, "DEFAULT_MAX_NEW_TOKENS", 8)
    arguments = ["--dataset", str(rows), "--out", str(tmp_path), "--num_beams", "1"]
    assert main(["eval", *model, *arguments]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert "mAP@0.5" in metrics[TOKEN]
    assert "F1@0.5" in metrics[TOKEN]
    assert TOKEN in capsys.readouterr().out


def test_scenes_skip_it(capsys, nano):
    from florence_lab.evaluation import scene_examples
    from florence_lab.scenes import draw_scene

    assert TOKEN not in {example.prompt.task.token for example in scene_examples([0], size=64)}
    with pytest.raises(ValueError, match=r"<CAPTION>"):
        draw_scene(0, 64).answer(TOKEN, "a cat")


def test_sft_trains_it(model, rows, tmp_path):
    arguments = ["--dataset", str(rows), "--sft_type", "lora", "--max_steps", "1", "--logging_steps", "1"]
    assert main(["sft", *model, *arguments, "--output_dir", str(tmp_path), "--lora_rank", "2"]) == 0
    assert list(tmp_path.rglob("adapter_model.safetensors"))


def test_the_explorer_offers_it():
    from florence_lab.explorer.panel import Explorer
    from florence_lab.explorer.predictor_cache import PredictorCache

    panel = Explorer("florence-2-nano", None, "<CAPTION>", PredictorCache())
    assert TOKEN in [value for _, value in panel.task.options]


def test_the_demo_answers_it(small, tmp_path, capsys, monkeypatch):
    from florence_lab.cli.demo import run_demo

    monkeypatch.setattr(small.model.generation_config, "max_new_tokens", 8)
    run_demo(small, tmp_path)
    assert f"{TOKEN} a cat" in capsys.readouterr().out
