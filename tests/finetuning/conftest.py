"""Fixtures of the tests of fine-tuning: a small checkpoint, small datasets, and arguments of short runs."""

import gc
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import copy_of_tiny, edit_json

from florence_lab import load
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.run import sft
from florence_lab.finetuning.trainer import Florence2Trainer
from florence_lab.scenes import HELD_OUT_SEEDS, TRAIN_SEEDS, draw_scene


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The weights of `TINY` at 64 x 64 pixels (5 image tokens), with short answers, marked as trained on scenes only."""
    folder = copy_of_tiny(tmp_path_factory.mktemp("published") / "tiny")
    edit_json(folder / "preprocessor_config.json", size={"height": 64, "width": 64}, image_seq_length=5)
    predictor = load(folder, device="cpu")
    predictor.model.generation_config.max_new_tokens = 20
    predictor.model.config.trained_on = "florence_lab scene"
    saved = tmp_path_factory.mktemp("base") / "tiny"
    predictor.save_pretrained(saved)
    return saved


@pytest.fixture(scope="session", autouse=True)
def _imported_objects_are_not_collected():
    """Keep the garbage collector from the objects that exist already: a run collects several times, 0.3 s each with them."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def curves():
    """Let the runs of a test draw their curves."""


@pytest.fixture(autouse=True)
def _no_curves(request):
    """Draw no curves, which take as long as the training steps of a test, unless the test has the fixture `curves`."""
    if "curves" in request.fixturenames:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("florence_lab.finetuning.trainer.plot_run", lambda log, folder: None)
        yield


@pytest.fixture(scope="session")
def rows_folder(tmp_path_factory):
    """A folder with `train.jsonl`, 8 rows about 4 images, `val.jsonl`, 4 rows about 2, and the images."""
    folder = tmp_path_factory.mktemp("rows")
    for name, seeds in (("train", TRAIN_SEEDS[-4:]), ("val", HELD_OUT_SEEDS[:2])):
        rows = []
        for seed in seeds:
            scene = draw_scene(seed, 64)
            scene.image.save(folder / f"{seed}.png")
            for task in ("<OD>", "<CAPTION>"):
                rows.append({"query": task, "response": scene.answer(task).raw, "images": [f"{seed}.png"]})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def make_arguments(checkpoint, rows_folder):
    """Return the arguments of a run of two steps, with changes."""

    def make(output_dir, **changes) -> SftArguments:
        defaults = {
            "model_id_or_path": str(checkpoint),
            "dataset": str(rows_folder / "train.jsonl"),
            "output_dir": str(output_dir),
            "feature_dir": str(rows_folder / "features"),
            "max_steps": 2,
            "eval_steps": 1,
            "batch_size": 2,
            "logging_steps": 1,
            "learning_rate": 1e-3,
            "dataloader_num_workers": 0,
            "dtype": "fp32",
            "device": "cpu",
        }
        return SftArguments(**(defaults | changes))

    return make


@pytest.fixture
def arguments(make_arguments, tmp_path):
    """`make_arguments` with a new output folder."""
    return lambda **changes: make_arguments(**({"output_dir": tmp_path / "output"} | changes))


@pytest.fixture
def write_checkpoint():
    """Write a checkpoint with all files that a run is resumed from, of a single weight."""

    def write(run, step, max_steps=100, **state):
        folder = run / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"lora_A.weight": torch.ones(2)}, folder / "adapter_model.safetensors")
        torch.save({"state": {0: torch.ones(2)}, "param_groups": []}, folder / "optimizer.pt")
        torch.save({"last_epoch": step, "lr_lambdas": [None]}, folder / "scheduler.pt")
        numpy_state = np.arange(3, dtype=np.uint32)
        torch.save({"python": (3,), "numpy": numpy_state, "cpu": torch.get_rng_state()}, folder / "rng_state.pth")
        state = {"global_step": step, "max_steps": max_steps, "best_model_checkpoint": None} | state
        (folder / "trainer_state.json").write_text(json.dumps(state))
        (folder / "complete").touch()
        return folder

    return write


@pytest.fixture
def interrupt_run(monkeypatch):
    """Start a run and interrupt it after a number of steps."""

    def interrupt(arguments, steps):
        def training_step(self, *args, step=Florence2Trainer.training_step):
            if self.state.global_step == steps:
                raise KeyboardInterrupt
            return step(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Florence2Trainer, "training_step", training_step)
            with pytest.raises(KeyboardInterrupt):
                sft(arguments)

    return interrupt
