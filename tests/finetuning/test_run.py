"""Short fine-tuning runs from arguments to checkpoint."""

import dataclasses
import errno
import json
import math
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Florence2ForConditionalGeneration

from florence_lab import load
from florence_lab.exceptions import (
    ArgumentError,
    CheckpointError,
    DatasetError,
    FlorenceLabError,
    FlorenceLabWarning,
    TrainingError,
)
from florence_lab.finetuning.lora import merge_lora
from florence_lab.finetuning.run import sft
from florence_lab.finetuning.trainer import Florence2Trainer
from florence_lab.loading.checkpoint import load_checkpoint
from florence_lab.scenes import HELD_OUT_SEEDS
from florence_lab.tasks import TASKS, Task, register_task

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def lora_run(make_arguments, tmp_path_factory):
    """The adapter of a run of two steps, and what `on_log` received."""
    lines = []
    arguments = make_arguments(tmp_path_factory.mktemp("lora"), cache_image_features=True)
    return sft(arguments, lines.append), lines


@pytest.fixture
def locate_animals():
    """A registered 16th task."""
    task = Task("<LOCATE_ANIMALS>", "Locate the animals.", "none", "boxes", "animals", coco_label="category")
    yield register_task(task)
    del TASKS[task.token]


def weights_of(checkpoint):
    (path,) = [*checkpoint.glob("adapter_model.safetensors"), *checkpoint.glob("model.safetensors")]
    return load_file(path)


# ---------------------------------------------------------------------- what a run writes


def test_the_checkpoint_stands_in_a_versioned_run(lora_run):
    checkpoint, _ = lora_run
    assert checkpoint.name == "checkpoint-2"
    assert checkpoint.parent.name.startswith("v0-")
    assert checkpoint.parent.parent.name == "tiny"
    assert json.loads((checkpoint.parent / "args.json").read_text())["max_steps"] == 2


def test_the_log_is_written_and_plotted(lora_run):
    checkpoint, lines = lora_run
    logged = [json.loads(line) for line in (checkpoint.parent / "logging.jsonl").read_text().splitlines()]
    assert [line for line in logged if "loss" in line] == lines
    assert {"step", "loss", "lr"} <= lines[0].keys()
    assert Image.open(checkpoint.parent / "images" / "loss.png").width > 300
    assert list((checkpoint.parent / "runs").rglob("events*")), "for TensorBoard"


def test_an_adapter_contains_lora_weights_only(lora_run):
    checkpoint, _ = lora_run
    assert all("lora_" in name for name in weights_of(checkpoint))
    assert json.loads((checkpoint / "adapter_config.json").read_text())["base_model_name_or_path"].endswith("tiny")


def test_a_merged_adapter_answers_like_the_adapter(lora_run, rows_folder):
    merged = merge_lora(lora_run[0])
    assert merged.name == "checkpoint-2-merged"
    image = rows_folder / f"{HELD_OUT_SEEDS[0]}.png"
    options = {"max_new_tokens": 12, "num_beams": 1}
    adapted, whole = (load(path, device="cpu").predict(image, "<OD>", **options) for path in (lora_run[0], merged))
    assert adapted.raw == whole.raw
    Florence2ForConditionalGeneration.from_pretrained(merged)


def test_an_adapter_is_not_fine_tuned(lora_run, arguments):
    with pytest.raises(ValueError, match="merge it first"):
        sft(arguments(model_id_or_path=str(lora_run[0])))


def test_a_damaged_adapter_is_refused(lora_run, tmp_path):
    (tmp_path / "adapter_config.json").write_bytes((lora_run[0] / "adapter_config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        load(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="tiny"):
        load(tmp_path)


# ---------------------------------------------------------------------- what is trained


def test_a_run_of_a_single_step_trains(arguments):
    """Warm-up starts at a learning rate of 0, so that the only step must not be a part of it."""
    trained = weights_of(sft(arguments(max_steps=1, eval_steps=1)))
    assert any(tensor.any() for name, tensor in trained.items() if "lora_B" in name)  # zeros before training


@pytest.mark.parametrize("is_frozen", [True, False])
def test_full_fine_tuning_changes_all_weights_but_a_frozen_image_encoder(arguments, checkpoint, is_frozen):
    trained = sft(arguments(sft_type="full", freeze_vision=is_frozen, gradient_checkpointing=not is_frozen))
    before = load_checkpoint(checkpoint)[0].state_dict()
    after = Florence2ForConditionalGeneration.from_pretrained(trained).state_dict()
    assert not torch.equal(before["model.language_model.shared.weight"], after["model.language_model.shared.weight"])
    vision = [name for name in before if "vision_tower" in name or "multi_modal_projector" in name]
    assert all(torch.equal(before[name], after[name]) for name in vision) == is_frozen


@pytest.mark.parametrize(("dataset", "trained_on"), [("scenes:1#3", "florence_lab scene"), (None, None)])
def test_the_note_of_a_model_that_knows_scenes_only_stays_for_scenes_only(arguments, dataset, trained_on):
    changes = {"dataset": dataset} if dataset else {}
    trained = sft(arguments(sft_type="full", max_steps=1, **changes))
    assert json.loads((trained / "config.json").read_text()).get("trained_on") == trained_on


def test_a_registered_task_is_trained_on_json_lines_and_coco(arguments, locate_animals, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    row = {"query": "<LOCATE_ANIMALS>", "response": "cat<loc_0><loc_0><loc_500><loc_500>", "images": ["a.png"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 32, 32]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    datasets = (str(tmp_path / "rows.jsonl"), f"coco:{tmp_path / 'coco.json'}?tasks=LOCATE_ANIMALS")
    assert sft(arguments(dataset=datasets, max_steps=1)).name == "checkpoint-1"


# ---------------------------------------------------------------------- validation


def test_validation_computes_the_loss_and_task_metrics(arguments, rows_folder):
    best = sft(arguments(val_dataset=str(rows_folder / "val.jsonl"), predict_with_generate=True, max_steps=1))
    lines = [json.loads(line) for line in (best.parent / "logging.jsonl").read_text().splitlines()]
    (evaluated,) = [line for line in lines if "eval_loss" in line]
    assert {"eval_OD/mAP@0.5", "eval_OD/F1@0.5"} <= evaluated.keys()
    assert any(name.startswith("eval_CAPTION/") for name in evaluated)


def test_a_metric_of_other_tasks_is_refused(arguments, rows_folder):
    with pytest.raises(ValueError, match=r"OCR/.*OD/mAP@0.5"):
        sft(arguments(val_dataset=str(rows_folder / "val.jsonl"), metric_for_best_model="OCR/word_accuracy"))


def test_an_undefined_metric_is_null_in_the_log(arguments, rows_folder, monkeypatch):
    monkeypatch.setattr(Florence2Trainer, "compute_generation_metrics", lambda self: {"OD/mAP@0.5": math.nan})
    chosen = arguments(val_dataset=str(rows_folder / "val.jsonl"), metric_for_best_model="OD/mAP@0.5", max_steps=1)
    with pytest.warns(FlorenceLabWarning, match=r"OD/mAP@0\.5 was undefined at each validation"):
        checkpoint = sft(chosen)
    assert checkpoint.name == "checkpoint-1"
    text = (checkpoint.parent / "logging.jsonl").read_text()
    assert '"eval_OD/mAP@0.5": null' in text
    assert "NaN" not in text


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": ()}, "--dataset"),
        ({"dataset": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"val_dataset": "coco:nowhere.json"}, "nowhere.json"),
        ({"dataset": "scenes:2000", "val_dataset": "scenes:200?split=train"}, "scenes of the training dataset"),
    ],
)
def test_datasets_are_checked_before_a_model_is_loaded(arguments, monkeypatch, changes, message):
    monkeypatch.setattr("florence_lab.finetuning.run.load_checkpoint", None)
    with pytest.raises((ValueError, DatasetError), match=message):
        sft(arguments(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_target_modules": "head"}, "head"),
        ({"model_id_or_path": "", "model_type": "florence-3"}, "florence-3"),
        ({"resume_from_checkpoint": True}, "no run of tiny"),
        ({"resume_from_checkpoint": "elsewhere"}, "elsewhere"),
    ],
)
def test_impossible_arguments_are_refused(arguments, changes, message):
    with pytest.raises((ValueError, FlorenceLabError), match=message):
        sft(arguments(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_dir": "{tmp}/file"}, "--output_dir .*file"),
        ({"output_dir": "{tmp}/file/below"}, "--output_dir .*below"),
        ({"output_dir": "/proc/nowhere"}, "--output_dir '/proc/nowhere"),
        ({"feature_dir": "{tmp}/file", "cache_image_features": True}, "--feature_dir .*file"),
        ({"device": "cuda:7"}, "--device 'cuda:7'"),
        ({"dtype": "fp16"}, "--dtype fp16"),
    ],
)
def test_what_the_machine_lacks_is_refused_before_a_model_is_loaded(arguments, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr("florence_lab.finetuning.run.load_checkpoint", None)
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match=message):
        sft(arguments(**{k: v.format(tmp=tmp_path) if isinstance(v, str) else v for k, v in changes.items()}))


def test_an_empty_val_dataset_is_refused(arguments, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises((DatasetError, TrainingError), match="empty"):
        sft(arguments(val_dataset=str(tmp_path / "empty.jsonl")))


def test_values_of_other_types_are_accepted(arguments, rows_folder, tmp_path):
    first = arguments(
        output_dir=tmp_path / "output",
        dataset=(rows_folder / "train.jsonl",),
        feature_dir=tmp_path / "features",
        max_steps=np.int64(1),
        learning_rate=np.float32(1e-3),
        seed=np.uint8(3),
        skip_bad_rows=np.bool_(True),
        resume_from_checkpoint=False,
    )
    checkpoint = sft(first)
    assert json.loads((checkpoint.parent / "args.json").read_text())["output_dir"] == str(tmp_path / "output")
    assert sft(dataclasses.replace(first, resume_from_checkpoint=True)) == checkpoint
    assert sft(dataclasses.replace(first, resume_from_checkpoint=checkpoint)) == checkpoint


@pytest.mark.parametrize("place", ["logging.jsonl", "loss.png"])
def test_a_full_disk_outside_of_a_checkpoint_names_the_run(arguments, monkeypatch, place):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)

    method = "on_log" if place == "logging.jsonl" else "on_save"
    monkeypatch.setattr(f"florence_lab.finetuning.trainer.RunLogger.{method}", fail)
    with pytest.raises(TrainingError, match=r"v0-.*No space left.*checkpoint"):
        sft(arguments())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_disappears_during_training_is_named(arguments, rows_folder, tmp_path, monkeypatch, workers):
    folder = shutil.copytree(rows_folder, tmp_path / "rows")

    def remove(*args, build=Florence2Trainer.get_train_dataloader, **kwargs):
        for path in folder.glob("*.png"):
            path.unlink()
        return build(*args, **kwargs)

    monkeypatch.setattr(Florence2Trainer, "get_train_dataloader", remove)
    with pytest.raises(FlorenceLabError, match=r"\.png") as caught:
        sft(arguments(dataset=str(folder / "train.jsonl"), dataloader_num_workers=workers, cache_image_features=False))
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_invalid_rows_stop_the_run_or_are_skipped(arguments, rows_folder, tmp_path):
    rows = (rows_folder / "train.jsonl").read_text().replace('["', f'["{rows_folder}/')
    no_box = json.dumps({"query": "<OD>", "response": "cat", "images": [str(rows_folder / f"{HELD_OUT_SEEDS[0]}.png")]})
    no_image = json.dumps({"query": "<OD>", "response": "cat<loc_1>", "images": ["nowhere.png"]})
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{rows}{no_box}\n{no_image}\n")
    chosen = arguments(dataset=str(path), max_steps=1)
    with pytest.raises(TrainingError, match=r"2 invalid rows; .*--skip_bad_rows(?s:.*)row 9: target does not fit"):
        sft(chosen)
    assert not list((tmp_path / "output").rglob("v*"))
    run = sft(dataclasses.replace(chosen, skip_bad_rows=True)).parent
    listed = (run / "bad_rows.txt").read_text().splitlines()
    assert [line.partition(", ")[2].partition(":")[0] for line in listed] == ["row 9", "row 10"]


def test_a_run_without_a_checkpoint_is_an_error(arguments, monkeypatch):
    monkeypatch.setattr(
        "florence_lab.finetuning.trainer.Florence2Trainer._save_checkpoint", lambda *args, **kwargs: None
    )
    with pytest.raises(TrainingError, match="without a checkpoint"):
        sft(arguments(max_steps=1))
