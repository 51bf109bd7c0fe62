"""Runs whose numbers are not finite."""

import contextlib
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from florence_lab.exceptions import TrainingError
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.run import sft, to_training_arguments
from florence_lab.finetuning.run_directory import RunDirectory
from florence_lab.finetuning.trainer import Florence2Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def at_step(step, change):
    """A training step that changes the model or the loss in one step, counted from 1."""

    def training_step(self, *args, original=Florence2Trainer.training_step):
        return change(self, original, args) if self.state.global_step + 1 == step else original(self, *args)

    return training_step


def spoil_loss(trainer, original, args):
    """The next forward pass gives nan."""
    compute_loss = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: compute_loss(*args, **kwargs) * math.nan
    return original(trainer, *args)


def spoil_gradients(trainer, original, args):
    """Only the gradient is infinite."""
    loss = original(trainer, *args)
    next(p for p in trainer.model.parameters() if p.grad is not None).grad.fill_(math.inf)
    return loss


def spoil_weights(trainer, original, args):
    """The update gives nan, from a finite loss and gradient."""
    loss = original(trainer, *args)
    step = trainer.optimizer.step

    def spoiled_step(*args, **kwargs):
        step(*args, **kwargs)
        next(p for p in trainer.model.parameters() if p.requires_grad).data.fill_(math.nan)

    trainer.optimizer.step = spoiled_step
    return loss


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_loss, "at step 2: the loss is nan"),
        (spoil_gradients, "at step 2: the norm of the gradient is inf"),
        (spoil_weights, "at step 2: the weights .* contain nan or inf"),
    ],
)
def test_a_run_that_is_not_finite_stops_and_keeps_the_last_checkpoint(arguments, monkeypatch, spoil, message):
    monkeypatch.setattr(Florence2Trainer, "training_step", at_step(2, spoil))
    with pytest.raises(TrainingError, match=f"{message}.*learning rate.*0.001.*checkpoint-1 is kept") as caught:
        sft(arguments(save_total_limit=1))
    run = RunDirectory(*Path(arguments().output_dir).glob("tiny/v0-*"))
    assert str(run.path) in str(caught.value)
    assert [path.name for path in run.path.glob("checkpoint-*")] == ["checkpoint-1"]
    assert run.last_checkpoint() is not None


@pytest.mark.slow
@pytest.mark.parametrize("sft_type", ["lora", "full"])
@pytest.mark.parametrize("changes", [{"learning_rate": 1e30, "warmup_ratio": 0.0}, {"weight_decay": 1e38}])
def test_absurd_numbers_do_not_give_a_checkpoint_of_nan(arguments, sft_type, changes):
    with contextlib.suppress(TrainingError):
        sft(arguments(max_steps=4, sft_type=sft_type, **changes))
    weights = Path(arguments().output_dir).glob("tiny/v0-*/checkpoint-*/*.safetensors")
    assert all(torch.isfinite(weight).all() for path in weights for weight in load_file(path).values())


def test_overflowing_steps_of_fp16_do_not_stop_a_run(arguments, monkeypatch):
    """The scaler of fp16 skips them, and lowers its scale."""
    monkeypatch.setattr(Florence2Trainer, "training_step", at_step(1, spoil_gradients))
    monkeypatch.setattr(Florence2Trainer, "_scales_loss", True)

    def create_optimizer(self, *args, create=Florence2Trainer.create_optimizer, **kwargs):
        optimizer = create(self, *args, **kwargs)
        update = optimizer.step

        def skipping(*args, **kwargs):
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if all(torch.isfinite(gradient).all() for gradient in gradients):
                update(*args, **kwargs)

        optimizer.step = skipping
        return optimizer

    monkeypatch.setattr(Florence2Trainer, "create_optimizer", create_optimizer)
    assert sft(arguments()).name == "checkpoint-2"


def test_fp16_that_always_overflows_stops(small, tmp_path, monkeypatch):
    monkeypatch.setattr(Florence2Trainer, "_scales_loss", True)
    options = to_training_arguments(SftArguments(device="cpu", dtype="fp32"), tmp_path)
    model = nn.Linear(2, 2)
    model.weight.grad = torch.full_like(model.weight, math.nan)
    trainer = Florence2Trainer(model=model, args=options, processor=small.processor, run=RunDirectory(tmp_path))
    for _ in range(49):
        trainer._clip_grad_norm(model)
    with pytest.raises(TrainingError, match="overflowed in 50 steps in a row"):
        trainer._clip_grad_norm(model)
    assert trainer.skipped_steps == 50


@pytest.mark.gpu
def test_a_run_in_fp16_trains(arguments):
    checkpoint = sft(arguments(dtype="fp16", device="auto", max_steps=6))
    assert all(torch.isfinite(weight).all() for weight in load_file(checkpoint / "adapter_model.safetensors").values())
