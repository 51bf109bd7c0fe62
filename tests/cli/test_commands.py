"""The commands that list, write, export and delegate."""

import json
import re

import pytest

from florence_lab.cli import infer, main
from florence_lab.loading.registry import MODELS, available_models
from florence_lab.tasks import TASKS
from florence_lab.template import locations


def test_models_lists_each_model_with_its_location_and_description(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for name in available_models():
        assert re.search(rf"^{name} .*\n +{re.escape(MODELS[name].description)}$", out, re.MULTILINE)
    assert "AI-ModelScope/Florence-2-large-ft · microsoft/Florence-2-large-ft" in out


def test_tasks_lists_each_task_with_its_description_and_input(capsys):
    assert main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TASKS)
    for line, task in zip(lines, TASKS.values(), strict=True):
        assert task.description in line
        assert line.endswith(f"(takes a {task.input})") == (task.input != "none")


def test_scenes_writes_images_coco_and_json_lines(tmp_path, capsys):
    assert main(["scenes", "--count", "2", "--size", "64", "--out", str(tmp_path)]) == 0
    assert len(list((tmp_path / "images").iterdir())) == 2
    assert len(json.loads((tmp_path / "annotations.json").read_text())["images"]) == 2
    assert (tmp_path / "train.jsonl").is_file()
    assert capsys.readouterr().out == f"{tmp_path}\n"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--count", "10000000000", "--count must be 1 to .*, got 10000000000"),
        ("--size", "1", "size 1 is too small: scenes have at least 16 x 16 pixels"),
        ("--size", "1000000", "size 1000000 is too large: .*MAX_IMAGE_PIXELS"),
    ],
)
def test_scenes_rejects_numbers_out_of_range(tmp_path, capsys, option, value, message):
    assert main(["scenes", option, value, "--out", str(tmp_path / "out")]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_export_without_merging_is_rejected(tmp_path, capsys):
    assert main(["export", "--ckpt_dir", str(tmp_path), "--merge_lora", "false"]) == 2
    assert "--merge_lora false" in capsys.readouterr().err


def test_infer_val_dataset_passes_the_options_on_and_prints_the_path(monkeypatch, infer, tmp_path, capsys):
    calls = []

    def predict_dataset(predictor, datasets, folder, batch_size, **kwargs):
        calls.append((datasets, folder, batch_size, kwargs))
        return tmp_path / "answers.jsonl"

    monkeypatch.setattr("florence_lab.evaluation.prediction_runs.predict_dataset", predict_dataset)
    monkeypatch.setattr("florence_lab.data.datasets.check_datasets", lambda datasets, split: None)
    assert infer("--val_dataset", "a.jsonl", "b.jsonl", "--result_dir", tmp_path, "--num_beams", 1) == 0
    assert calls == [
        (
            ["a.jsonl", "b.jsonl"],
            tmp_path,
            16,
            {"file_name": "answers.jsonl", "max_new_tokens": 12, "num_beams": 1},
        )
    ]
    assert capsys.readouterr().out == f"{tmp_path / 'answers.jsonl'}\n"


def test_sft_starts_a_process_for_each_device_that_ms_swift_asks_for(monkeypatch):
    class Replaced(BaseException):
        pass

    def execv(program, arguments):
        raise Replaced(arguments)

    monkeypatch.setenv("NPROC_PER_NODE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr("os.execv", execv)
    with pytest.raises(Replaced) as replaced:
        main(["sft", "--dataset", "a.jsonl"])
    (arguments,) = replaced.value.args
    assert arguments[2:5] == ["torch.distributed.run", "--nproc_per_node", "2"]
    assert "florence_lab.cli" in arguments


def test_the_formats_of_regions_are_those_of_the_template():
    """They are written twice, so that `--help` does not import NumPy."""
    assert infer.REGION_FORMATS == locations.REGION_FORMATS
