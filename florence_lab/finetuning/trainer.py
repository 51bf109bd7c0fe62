"""`Florence2Trainer`: transformers' trainer with cached image features, task metrics and complete checkpoints."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader, Sampler
from transformers import Florence2ForConditionalGeneration, Florence2Processor, Seq2SeqTrainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from ..data.examples import Example
from ..evaluation.evaluator import evaluate
from ..exceptions import TrainingError, summarize_error
from ..inference.preprocessing import look_up_on_device
from ..loading.adapters import ADAPTER_CONFIG
from ..loading.checkpoint_tasks import model_tasks, write_tasks
from ..loading.library import LIBRARY_LOCK
from ..predictor import Predictor
from ..visualization.curves import plot_run
from .checkpoint_files import COMPLETE_MARKER, find_non_finite, verify_names
from .run_directory import LOG_FILE, RunDirectory
from .sampling import LengthGroupedSampler
from .throughput import ThroughputMeter

_MAX_SKIPPED_STEPS = 50
"""fp16 skips steps whose gradients overflow until the loss scale, 65,536 at first, is small enough: normally below 20."""


class Florence2Trainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` that also trains on image features, and computes the metrics of generated answers.

    A checkpoint gets a marker when it is complete. Older checkpoints are removed only after that, by this class instead of by
    `Seq2SeqTrainer`, so that at any moment there is a complete one. Training stops if the loss, the norm of the gradient or a
    weight is not finite.

    Attributes:
        skipped_steps: number of steps without an update, because gradients overflowed in fp16.
    """

    def __init__(
        self,
        *,
        processor: Florence2Processor,
        run: RunDirectory,
        eval_examples: Sequence[Example] = (),
        base_model_name: str = "",
        max_checkpoints: int = 2,
        target_lengths: Sequence[int] = (),
        **trainer_kwargs: Any,
    ) -> None:
        """Create a trainer.

        Args:
            processor: saved in each checkpoint.
            run: the directory for checkpoints, the `output_dir` of the training arguments.
            eval_examples: examples to answer at each evaluation; none computes the loss only.
            base_model_name: model_type or folder that an adapter names as its base model.
            max_checkpoints: number of checkpoints to keep; the best is always kept.
            target_lengths: of the training rows, to group them by; without them the order is random.
            trainer_kwargs: arguments of `Seq2SeqTrainer`.
        """
        super().__init__(processing_class=processor, **trainer_kwargs)
        self.processor, self.run = processor, run
        self.eval_examples, self.base_model_name = eval_examples, base_model_name
        self.max_checkpoints, self.target_lengths = max_checkpoints, target_lengths
        self.throughput = ThroughputMeter()
        self.add_callback(self.throughput)
        self.skipped_steps = self._skipped_in_a_row = 0

    @property
    def trained_model(self) -> torch.nn.Module:
        """The model with its adapter."""
        assert isinstance(self.model, torch.nn.Module)  # the trainer was created with one
        return self.model

    @property
    def _scales_loss(self) -> bool:
        """Whether steps that overflow are skipped, as in fp16."""
        return getattr(self.accelerator, "scaler", None) is not None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train. If that fails, the progress bars are closed, so that the message has a line of its own."""
        try:
            return super().train(*args, **kwargs)
        except BaseException:
            for callback in self.callback_handler.callbacks:
                for name in ("prediction_bar", "training_bar"):  # of `ProgressCallback`
                    if bar := getattr(callback, name, None):
                        bar.close()
            raise

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch the micro-batches of a step, and measure how long that takes."""
        with self.throughput.waiting_for_data():
            batches, num_items = super().get_batch_samples(*args, **kwargs)
        self.throughput.count_images(sum(len(batch["labels"]) for batch in batches) * self.args.world_size)
        return batches, num_items

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log values, with the throughput beside a training loss and at the end of the run."""
        if "loss" in logs:
            logs = logs | self.throughput.take_recent()
        elif "train_runtime" in logs:
            logs = logs | self.throughput.describe_run()
        super().log(logs, *args, **kwargs)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Sampler | None:
        if not self.target_lengths:
            return super()._get_train_sampler(*args, **kwargs)
        rows_per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedSampler(self.target_lengths, rows_per_step, self.args.seed)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Create the schedule of the learning rate. A warm-up of less than a step is left out: its step would train nothing."""
        if num_training_steps * self.args.warmup_steps < 1:
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute loss and gradients of a micro-batch.

        Raises:
            TrainingError: if the loss is not finite. In fp16 that may be an overflow, whose step is skipped.
        """
        loss = super().training_step(*args, **kwargs)
        if not self._scales_loss and not torch.isfinite(loss):
            raise self._non_finite_error(f"the loss is {loss.item()}", self.state.global_step + 1)
        return loss

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        """Clip the gradients; raise `TrainingError` if their norm is not finite, in fp16 if that goes on."""
        norm = super()._clip_grad_norm(model)
        if math.isfinite(norm):
            self._skipped_in_a_row = 0
            return norm
        self.skipped_steps += 1
        self._skipped_in_a_row += 1
        if not self._scales_loss:
            raise self._non_finite_error(f"the norm of the gradient is {float(norm)}", self.state.global_step + 1)
        if self._skipped_in_a_row == _MAX_SKIPPED_STEPS:
            raise self._non_finite_error(
                f"the gradients have overflowed in {_MAX_SKIPPED_STEPS} steps in a row", self.state.global_step + 1
            )
        return norm

    def check_weights(self) -> None:
        """Verify that all trained weights are finite.

        Raises:
            TrainingError: if one is not; the message names it.
        """
        trained = ((name, weight) for name, weight in self.trained_model.named_parameters() if weight.requires_grad)
        if name := find_non_finite(trained):
            raise self._non_finite_error(f"the weights {name} contain nan or inf", self.state.global_step)

    def _non_finite_error(self, what: str, step: int) -> TrainingError:
        causes = [f"a learning rate that is too high (--learning_rate is {self.args.learning_rate:g})"]
        if self.args.fp16:
            causes.append("numbers beyond fp16, whose largest is 65,504 (--dtype bf16 or fp32)")
        if step == 1:
            causes.append("a model or images with values that are not finite")
        last = self.run.last_checkpoint()
        kept = f"{last.name} is kept" if last else "No checkpoint was written before"
        return TrainingError(
            f"{self.run.path}: training stopped at step {step}: {what}. Likely causes: {', or '.join(causes)}. {kept}"
        )

    @contextmanager
    def _loading(self, checkpoint: Any) -> Iterator[None]:
        """Raise `TrainingError` for whatever fails in the block, which restores a checkpoint."""
        try:
            yield
        except TrainingError:
            raise
        except Exception as error:  # of safetensors, pickle, PEFT, torch
            raise TrainingError(f"{checkpoint} cannot be loaded: {summarize_error(error)}") from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        with self._loading(resume_from_checkpoint):
            verify_names(self.trained_model, Path(resume_from_checkpoint))
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with self._loading(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with self._loading(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        with self._loading(self.state.best_model_checkpoint):
            super()._load_best_model()

    def _load_scaler(self, checkpoint: str | None) -> None:
        with self._loading(checkpoint):
            super()._load_scaler(checkpoint)

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute the cross-entropy of a batch, whose images are pixel values, their 8-bit levels, or image features."""
        if "levels" in inputs:
            inputs = dict(inputs)
            inputs["pixel_values"] = look_up_on_device(inputs.pop("level_table"), inputs.pop("levels"))
        if "image_features" in inputs:
            inputs = dict(inputs)
            ids, features = inputs.pop("input_ids"), inputs.pop("image_features")
            embeddings = self.accelerator.unwrap_model(model).get_input_embeddings()(ids[:, features.shape[1] :])
            inputs["inputs_embeds"] = torch.cat([features.to(embeddings.dtype), embeddings], dim=1)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Compute the validation loss and, with `eval_examples`, the metrics of generated answers.

        Raises:
            TrainingError: if a weight or the loss is not finite.
        """
        self.check_weights()
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        loss = (output.metrics or {}).get(f"{metric_key_prefix}_loss", 0.0)
        if not math.isfinite(loss) and not self.args.fp16:
            raise self._non_finite_error(f"the validation loss is {loss}", self.state.global_step)
        if self.eval_examples and output.metrics is not None:
            metrics = self.compute_generation_metrics()
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def compute_generation_metrics(self) -> dict[str, float]:
        """Answer `eval_examples` in the first process and return the metrics, `"OD/mAP@0.5"` -> value, to all of them."""
        shared: list[dict[str, float]] = [{}]
        if self.is_world_process_zero():
            model = self.accelerator.unwrap_model(self.model)
            predictor = predictor_from_training_model(model, self.processor, "validation")
            shared = [evaluate(predictor, self.eval_examples).flat_metrics()]
        return dict(broadcast_object_list(shared)[0])

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint, or remove the incomplete one and raise `TrainingError`. Weights must be finite."""
        self.check_weights()
        checkpoint = self.run.path / f"checkpoint-{self.state.global_step}"
        if self.is_world_process_zero() and checkpoint.exists():
            shutil.rmtree(checkpoint)  # of a run that was resumed before this step: its marker must not stay
        self.accelerator.wait_for_everyone()
        try:
            with LIBRARY_LOCK:
                super()._save_checkpoint(*args, **kwargs)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                write_base_model_name(checkpoint, self.base_model_name)
                write_tasks(checkpoint, model_tasks(self.accelerator.unwrap_model(self.model)))
                (checkpoint / COMPLETE_MARKER).touch()
        except Exception as error:  # a full disk makes torch, safetensors and Python raise different types
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise TrainingError(_describe_failed_save(self.run, checkpoint, error)) from error
        if self.is_world_process_zero():
            self.run.remove_old_checkpoints(self.max_checkpoints, self.state.best_model_checkpoint)


def _describe_failed_save(run: RunDirectory, checkpoint: Path, error: Exception) -> str:
    free = shutil.disk_usage(run.path).free / 1e6
    return f"{checkpoint} cannot be written: {summarize_error(error)} ({free:,.0f} MB of disk space are free). {describe_resumption(run)}"


def describe_resumption(run: RunDirectory) -> str:
    """Return a sentence for an error: from which checkpoint an interrupted run can be resumed."""
    last = run.last_checkpoint()
    if last is None:
        return "There is no earlier checkpoint"
    return f"The last complete checkpoint is {last.name}; --resume_from_checkpoint true resumes from there"


def write_base_model_name(checkpoint: Path, base_model_name: str) -> None:
    """Write the base model into the configuration of an adapter; other checkpoints stay as they are.

    It is written after saving, because PEFT looks the name up on the Hugging Face hub while it saves.
    """
    path = checkpoint / ADAPTER_CONFIG
    if path.exists():
        config = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": base_model_name}
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def predictor_from_training_model(model: torch.nn.Module, processor: Florence2Processor, name: str) -> Predictor:
    """Return a predictor that shares the weights of a model in training, which is put into evaluation mode.

    Args:
        model: a `Florence2ForConditionalGeneration`, or a `PeftModel` of one.
        processor: its processor.
        name: the name of the predictor.
    """
    base: Any = model if isinstance(model, Florence2ForConditionalGeneration) else model.get_base_model()  # type: ignore[operator]  # PeftModel
    return Predictor(base.eval(), processor, name)


class RunLogger(TrainerCallback):
    """Writes the log of a run as JSON lines, and plots it at each checkpoint."""

    def __init__(self, folder: Path, on_log: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Create the callback.

        Args:
            folder: the run directory.
            on_log: called with each line that contains a training loss.
        """
        self.folder, self.on_log_line = folder, on_log

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append a line to the log. Metrics that are undefined are null: JSON has no nan."""
        if not state.is_world_process_zero:
            return
        line = {"step": state.global_step} | (logs or {})
        if "learning_rate" in line:
            line["lr"] = line.pop("learning_rate")
        line = {name: value if _is_json(value) else None for name, value in line.items()}
        with (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.on_log_line and "loss" in line:
            self.on_log_line(line)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Plot the log into the folder `images` of the run."""
        if state.is_world_process_zero:
            plot_run(self.folder / LOG_FILE, self.folder / "images")


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
