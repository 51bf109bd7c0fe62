"""Supervised fine-tuning: transformers' `Seq2SeqTrainer` on Florence-2's own prompts and answers.

    florence-lab sft --model_type florence-2-base-ft --dataset train.jsonl --val_dataset val.jsonl

What is ours is around the loop: rows become batches, the image tokens of a frozen tower come from disk, answers are measured
with the metrics of `evaluation.py`, and a checkpoint counts only when all of it is written.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import (
    EarlyStoppingCallback,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_utils import rotate_checkpoints

from ..checkpoint import ADAPTER_CONFIG, load_checkpoint
from ..evaluation import METRICS, Question, evaluate
from ..hub import resolve
from ..predictor import DTYPES, Predictor, is_good_at_bf16
from .adapters import add_lora, freeze_vision
from .arguments import SftArguments
from .curves import draw_run
from .dataset import Example, Problem, as_questions, check_datasets, describe, identity, open_picture, read_examples
from .features import FeatureCache, read_features

ARGUMENTS = "args.json"
LOG = "logging.jsonl"
COMPLETE = "complete"
"""The empty file that is written into a checkpoint when all else is."""

IGNORED = -100
"""The label of padding, which is no part of the loss."""


class TrainingError(RuntimeError):
    """A run that can't go on, or can't begin, and why."""


# ---------------------------------------------------------------------- rows -> batches


class Row(NamedTuple):
    """What is trained on at once: an example, and the file of its picture's tokens where there is one."""

    example: Example
    features: Path | None = None


class Collator:
    """Rows -> a batch, in the published convention: the decoder reads the labels shifted by one, padding doesn't count."""

    def __init__(self, processor: Florence2Processor):
        self.processor = processor

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """
        Returns:
            `input_ids` and `attention_mask`, B x (n + P): n `<image>`, then `<s> prompt </s>`; `labels`, B x T:
            `<s> answer </s>`, -100 behind; and `pixel_values`, B x 3 x H x W, or `image_tokens`, B x n x d_model.
        """
        tokenizer, examples = self.processor.tokenizer, [row.example for row in rows]
        prompts = tokenizer([example.prompt for example in examples], padding=True, return_tensors="pt")
        answers = tokenizer([example.response for example in examples], padding=True, return_tensors="pt")
        here = torch.ones(len(rows), self.processor.num_image_tokens, dtype=torch.long)
        batch = {
            "input_ids": torch.cat([here * self.processor.image_token_id, prompts["input_ids"]], dim=1),
            "attention_mask": torch.cat([here, prompts["attention_mask"]], dim=1),
            "labels": answers["input_ids"].masked_fill(answers["attention_mask"] == 0, IGNORED),
        }
        if all(row.features for row in rows):
            return batch | {"image_tokens": read_features([row.features for row in rows])}
        pictures = [open_picture(example.image) for example in examples]
        return batch | self.processor.image_processor(pictures, return_tensors="pt")


# ---------------------------------------------------------------------- the trainer


class FlorenceTrainer(Seq2SeqTrainer):
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
            predictor = predictor_of(self.accelerator.unwrap_model(self.model), self.processing_class, "validation")
            found = [metrics_of(evaluate(predictor, self.questions, total=len(self.questions)).metrics())]
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


def predictor_of(model: torch.nn.Module, processor: Florence2Processor, name: str) -> Predictor:
    """A predictor for a model in training, LoRA or not; it shares the weights."""
    base = model if isinstance(model, Florence2ForConditionalGeneration) else model.get_base_model()
    return Predictor(base.eval(), processor, name)


def metrics_of(metrics: dict[str, dict[str, float]]) -> dict[str, float]:
    """`{"<OD>": {"mAP@0.5": …}}` -> `{"OD/mAP@0.5": …}`."""
    return {f"{task.strip('<>')}/{name}": value for task, values in metrics.items() for name, value in values.items()}


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
            draw_run(self.folder / LOG, self.folder / "images")


# ---------------------------------------------------------------------- the run


def sft(arguments: SftArguments, watch: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """Fine-tune a model, or go on with that.

    Args:
        arguments: what can be chosen.
        watch: is called with every line of the log that has a loss, as a `LiveCurve` is.

    Returns:
        The checkpoint: the best one by `metric_for_best_model` if there is a `val_dataset`, else the last.

    Raises:
        ValueError: for arguments that don't go together; `DatasetError` for a dataset that can't be read.
        TrainingError: for faulty rows, for a run that can't be resumed, for a full disk.
        HubError, CheckpointError: as `load`.
    """
    _check(arguments)
    check_datasets([*arguments.dataset, *arguments.val_dataset])
    state = PartialState(cpu=arguments.device == "cpu")
    source = arguments.model_id_or_path or arguments.model_type
    folder = resolve(source, arguments.hub or None)
    if (folder / ADAPTER_CONFIG).is_file():
        raise ValueError(
            f"{folder} is an adapter: make a whole model of it first, with florence-lab export --merge_lora"
        )
    set_seed(arguments.seed)  # LoRA's matrices begin at random
    model, processor = load_checkpoint(folder)
    longest = min(arguments.max_length, model.config.text_config.max_position_embeddings)
    train, val, bad = _read(arguments, processor, longest)
    questions = as_questions(val) if _generates(arguments) else []
    _check_metric(arguments, questions)

    run, resumed = _run_folder(arguments, state)
    if bad and state.is_main_process:
        (run / "bad_rows.txt").write_text("".join(f"{problem}\n" for problem in bad), encoding="utf-8")
    if _is_vision_frozen(arguments):
        freeze_vision(model)
    rows, val_rows = (_rows(examples, arguments, model, processor, state) for examples in (train, val))
    trained = model
    if arguments.sft_type == "lora":
        chosen = arguments.lora_target_modules
        trained = add_lora(model, chosen, arguments.lora_rank, arguments.lora_alpha, arguments.lora_dropout)
    trainer = FlorenceTrainer(
        model=trained,
        args=_training_arguments(arguments, run, bool(val)),
        data_collator=Collator(processor),
        train_dataset=rows,
        eval_dataset=val_rows or None,
        processing_class=processor,
        callbacks=[Record(run, watch), *_early_stopping(arguments)],
        questions=questions,
        base=source if source == arguments.model_type else str(folder.resolve()),
        keep=arguments.save_total_limit,
    )
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    best = trainer.state.best_model_checkpoint
    return Path(best) if best else last_checkpoint(run)


def _read(
    arguments: SftArguments, processor: Florence2Processor, longest: int
) -> tuple[list[Example], list[Example], list[Problem]]:
    """The examples to train on, those to measure on, and the faulty rows, if there may be any."""
    train, faulty = read_examples(arguments.dataset, processor.tokenizer, longest, arguments.seed)
    val, faulty_too = read_examples(arguments.val_dataset, processor.tokenizer, longest, arguments.seed)
    bad = [*faulty, *faulty_too]
    if bad and not arguments.skip_bad_rows:
        raise TrainingError(
            f"{len(bad)} faulty rows; mend them, or leave them out: --skip_bad_rows true\n{describe(bad)}"
        )
    if not train:
        raise TrainingError(f"nothing to train on: no good row in {', '.join(arguments.dataset)}")
    return train, val, bad


def _rows(
    examples: list[Example],
    arguments: SftArguments,
    model: Florence2ForConditionalGeneration,
    processor: Florence2Processor,
    state: PartialState,
) -> list[Row]:
    if not examples or not arguments.cache_image_features:
        return [Row(example) for example in examples]
    dtype = DTYPES[_dtype(arguments, state.device)]
    with state.main_process_first():  # the others find what it made
        cache = FeatureCache(model.to(state.device), processor, dtype, arguments.feature_dir or None)
        distinct = {identity(example.image): example.image for example in examples}
        paths = dict(zip(distinct, cache.compute(distinct.values()), strict=True))
    return [Row(example, paths[identity(example.image)]) for example in examples]


def _check(arguments: SftArguments) -> None:
    """What doesn't go together, said before anything is loaded."""
    faults = {
        "--dataset: give at least one, as in --dataset train.jsonl": not arguments.dataset,
        f"--sft_type {arguments.sft_type}: give lora or full": arguments.sft_type not in ("lora", "full"),
        "--cache_image_features true wants a vision tower that stays as it is: --freeze_vision true": (
            arguments.cache_image_features and not _is_vision_frozen(arguments)
        ),
        "--early_stopping_patience wants a --val_dataset to measure on": (
            arguments.early_stopping_patience > 0 and not arguments.val_dataset
        ),
        f"--metric_for_best_model {arguments.metric_for_best_model} wants a --val_dataset to measure on": (
            arguments.metric_for_best_model != "loss" and not arguments.val_dataset
        ),
    }
    for fault, is_so in faults.items():
        if is_so:
            raise ValueError(fault)


def _is_vision_frozen(arguments: SftArguments) -> bool:
    return arguments.sft_type == "lora" if arguments.freeze_vision is None else arguments.freeze_vision


def _generates(arguments: SftArguments) -> bool:
    return arguments.predict_with_generate or arguments.metric_for_best_model != "loss"


def _check_metric(arguments: SftArguments, questions: Sequence[Question]) -> None:
    """Whether the metric is one that the validation rows have; found out by measuring the truth."""
    chosen = arguments.metric_for_best_model
    if chosen == "loss":
        return
    known = {}
    for task in dict.fromkeys(question.task for question in questions):
        truths = [question.truth for question in questions if question.task == task]
        known |= metrics_of({task: METRICS[task](truths, truths)})
    if chosen not in known:
        raise ValueError(f"--metric_for_best_model {chosen}: for these rows give loss or one of {', '.join(known)}")


def _early_stopping(arguments: SftArguments) -> list[TrainerCallback]:
    patience = arguments.early_stopping_patience
    return [EarlyStoppingCallback(early_stopping_patience=patience)] if patience else []


def _dtype(arguments: SftArguments, device: torch.device) -> str:
    if arguments.dtype != "auto":
        return arguments.dtype
    return "bf16" if is_good_at_bf16(device) else "fp32"


def _training_arguments(arguments: SftArguments, run: Path, has_val: bool) -> Seq2SeqTrainingArguments:
    """Ours in transformers' words."""
    device = PartialState().device
    dtype = _dtype(arguments, device)
    rate = arguments.learning_rate or {"lora": 1e-4, "full": 1e-5}[arguments.sft_type]
    measured = {
        "eval_strategy": "steps",
        "eval_steps": arguments.eval_steps,
        "load_best_model_at_end": True,
        "metric_for_best_model": arguments.metric_for_best_model,
        "greater_is_better": not arguments.metric_for_best_model.endswith(("loss", "ECE")),
    }
    checkpointed = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    return Seq2SeqTrainingArguments(
        output_dir=str(run),
        num_train_epochs=arguments.num_train_epochs,
        max_steps=arguments.max_steps,
        per_device_train_batch_size=arguments.batch_size,
        per_device_eval_batch_size=arguments.batch_size,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=arguments.warmup_ratio,  # below 1 it is a share
        weight_decay=arguments.weight_decay,
        max_grad_norm=arguments.max_grad_norm,
        bf16=dtype == "bf16",
        fp16=dtype == "fp16",
        use_cpu=device.type == "cpu",
        dataloader_num_workers=arguments.dataloader_num_workers,
        dataloader_pin_memory=device.type == "cuda",
        logging_steps=arguments.logging_steps,
        save_strategy="steps",
        save_steps=arguments.eval_steps,
        remove_unused_columns=False,  # a row is no table
        label_names=["labels"],
        prediction_loss_only=True,
        ddp_find_unused_parameters=False,
        report_to="tensorboard",
        seed=arguments.seed,
        **(measured if has_val else {"eval_strategy": "no"}),
        **(checkpointed if arguments.gradient_checkpointing else {}),
    )


# ---------------------------------------------------------------------- the folders of runs


def last_checkpoint(run: Path) -> Path | None:
    """The latest checkpoint of a run that was written to its end."""
    whole = [path.parent for path in run.glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _run_folder(arguments: SftArguments, state: PartialState) -> tuple[Path, Path | None]:
    """Where this run is kept, the same for every process, and the checkpoint to go on from."""
    found: list[Any] = [None]
    if state.is_main_process:
        found = [_resumed_run(arguments) or (_new_run(arguments), None)]
    return broadcast_object_list(found)[0]


def _new_run(arguments: SftArguments) -> Path:
    runs = Path(arguments.output_dir).expanduser() / _name(arguments)
    number = max([-1, *(_number(path) for path in runs.glob("v*-*"))]) + 1
    run = runs / f"v{number}-{time.strftime('%Y%m%d-%H%M%S')}"
    run.mkdir(parents=True)
    (run / ARGUMENTS).write_text(json.dumps(dataclasses.asdict(arguments), indent=2) + "\n", encoding="utf-8")
    return run.resolve()


def _name(arguments: SftArguments) -> str:
    return Path(arguments.model_id_or_path).name or arguments.model_type


def _number(run: Path) -> int:
    match = re.match(r"v(\d+)-", run.name)
    return int(match[1]) if match else -1


def _resumed_run(arguments: SftArguments) -> tuple[Path, Path | None] | None:
    """The run to go on with and its checkpoint, None for its beginning; None if a new one is asked for."""
    asked = arguments.resume_from_checkpoint
    if asked.lower() in ("false", ""):
        return None
    if asked.lower() == "true":
        runs = [
            path.parent for path in (Path(arguments.output_dir).expanduser() / _name(arguments)).glob(f"*/{ARGUMENTS}")
        ]
        if not runs:
            raise TrainingError(f"there is no run of {_name(arguments)} in {arguments.output_dir} to go on with")
        run, checkpoint = max(runs, key=_number), None
    else:
        path = Path(asked).expanduser()
        run, checkpoint = (path.parent, path) if (path.parent / ARGUMENTS).exists() else (path, None)
        if not (run / ARGUMENTS).exists() or (checkpoint and not (checkpoint / COMPLETE).exists()):
            raise TrainingError(f"{asked} is neither the folder of a run nor a whole checkpoint of one")
    _compare(arguments, run)
    for half in run.glob("checkpoint-*"):
        if not (half / COMPLETE).exists():
            shutil.rmtree(half)  # it was being written when the run was killed
    checkpoint = checkpoint or last_checkpoint(run)
    _forget_after(run / LOG, int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
    return run.resolve(), checkpoint.resolve() if checkpoint else None


def _compare(arguments: SftArguments, run: Path) -> None:
    """A run goes on as it began, or it would not end where it would have ended."""
    then = json.loads((run / ARGUMENTS).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(dataclasses.asdict(arguments)))
    different = [n for n in now if n != "resume_from_checkpoint" and now[n] != then.get(n, now[n])]
    if different:
        said = "; ".join(f"--{name} was {then[name]} and is {now[name]}" for name in different)
        raise TrainingError(f"{run} was begun with other arguments: {said}")


def _forget_after(log: Path, step: int) -> None:
    """What the log says of steps that are done again."""
    if log.exists():
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
