"""TODO"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import Florence2ForConditionalGeneration, Florence2Processor, Seq2SeqTrainer, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from ..data.examples import Question
from ..evaluation.evaluator import evaluate
from ..exceptions import TrainingError
from ..loading.adapters import ADAPTER_CONFIG
from ..predictor import Predictor
from ..visualization.curves import plot_run
from .run_directory import COMPLETE, LOG, last_checkpoint


class Florence2Trainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` with image tokens as input, our metrics, and checkpoints that are whole or don't count."""

    def __init__(self, *args: Any, questions: Sequence[Question] = (), base: str = "", keep: int = 2, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.questions, self.base, self.keep = questions, base, keep

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if "image_tokens" in inputs:
            inputs = dict(inputs)
            ids, images = inputs.pop("input_ids"), inputs.pop("image_tokens")
            words = self.accelerator.unwrap_model(model).get_input_embeddings()(ids[:, images.shape[1] :])
            inputs["inputs_embeds"] = torch.cat([images.to(words.dtype), words], dim=1)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.questions:
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in self._measured().items()})
        return output

    def _measured(self) -> dict[str, float]:
        """Metrics of generated answers. The first process asks, the others wait for what comes out."""
        found: list[Any] = [None]
        if self.is_world_process_zero():
            predictor = predictor_from_training_model(
                self.accelerator.unwrap_model(self.model), self.processing_class, "validation"
            )
            found = [evaluate(predictor, self.questions).flat_metrics()]
        return broadcast_object_list(found)[0]

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        try:
            super()._save_checkpoint(*args, **kwargs)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                _name_base(folder, self.base)
                (folder / COMPLETE).touch()
        except Exception as error:  # a full disk makes torch, safetensors and Python raise errors of their own each
            shutil.rmtree(folder, ignore_errors=True)
            free = shutil.disk_usage(self.args.output_dir).free / 1e6
            last = last_checkpoint(Path(self.args.output_dir))
            raise TrainingError(
                f"{folder} can't be written ({str(error).splitlines()[0][:200]}; {free:,.0f} MB are free there). "
                + (f"The last whole one is {last.name}" if last else "There is no earlier one")
                + "; with room for it, --resume_from_checkpoint true goes on from there"
            ) from error
        if self.is_world_process_zero():  # only now, so that there is a whole one at any moment
            rotate_checkpoints(
                output_dir=self.args.output_dir,
                save_total_limit=self.keep,
                best_model_checkpoint=self.state.best_model_checkpoint,
            )


def _name_base(folder: Path, base: str) -> None:
    """Write into an adapter's folder to which model it belongs. PEFT would look that name up on a hub while it saves."""
    path = folder / ADAPTER_CONFIG
    if path.exists():
        config = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": base}
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def predictor_from_training_model(model: torch.nn.Module, processor: Florence2Processor, name: str) -> Predictor:
    """A predictor for a model in training, LoRA or not; it shares the weights."""
    base = model if isinstance(model, Florence2ForConditionalGeneration) else model.get_base_model()
    return Predictor(base.eval(), processor, name)


class Record(TrainerCallback):
    """The run's log as JSON lines and as pictures; `watch` gets every line."""

    def __init__(self, folder: Path, watch: Callable[[dict[str, Any]], None] | None):
        self.folder, self.watch = folder, watch

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        line = {"step": state.global_step} | (logs or {})
        if "learning_rate" in line:
            line["lr"] = line.pop("learning_rate")
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.watch and "loss" in line:
            self.watch(line)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            plot_run(self.folder / LOG, self.folder / "images")
