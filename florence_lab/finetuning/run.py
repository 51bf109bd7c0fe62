"""TODO"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import (
    EarlyStoppingCallback,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)

from ..data.datasets import check_datasets, load_examples
from ..data.examples import Example, Question, as_questions, image_key
from ..data.rows import RowError
from ..data.validation import summarize_row_errors
from ..evaluation.evaluator import metric_names
from ..exceptions import TrainingError
from ..inference.device import DTYPES, has_native_bf16
from ..inference.generation import prepare_model
from ..loading.adapters import ADAPTER_CONFIG
from ..loading.checkpoint import load_checkpoint
from ..loading.hub import resolve
from .arguments import SftArguments
from .collator import Florence2DataCollator, Row
from .feature_cache import FeatureCache
from .lora import add_lora, freeze_vision
from .run_directory import _run_folder, last_checkpoint
from .trainer import Florence2Trainer, Record


def sft(arguments: SftArguments, watch: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """Fine-tune a model, or go on with that.

    Args:
        arguments: what can be chosen.
        watch: is called with every line of the log that has a loss, as a `LiveLossPlot` is.

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
    prepare_model(model)
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
    trainer = Florence2Trainer(
        model=trained,
        args=_training_arguments(arguments, run, bool(val)),
        data_collator=Florence2DataCollator(processor),
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
) -> tuple[list[Example], list[Example], list[RowError]]:
    """The examples to train on, those to measure on, and the faulty rows, if there may be any."""
    train, faulty = load_examples(arguments.dataset, processor.tokenizer, longest, arguments.seed)
    val, faulty_too = load_examples(arguments.val_dataset, processor.tokenizer, longest, arguments.seed)
    bad = [*faulty, *faulty_too]
    if bad and not arguments.skip_bad_rows:
        raise TrainingError(
            f"{len(bad)} faulty rows; mend them, or leave them out: --skip_bad_rows true\n{summarize_row_errors(bad)}"
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
        distinct = {image_key(example.image): example.image for example in examples}
        paths = dict(zip(distinct, cache.compute(distinct.values()), strict=True))
    return [Row(example, paths[image_key(example.image)]) for example in examples]


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
    known = metric_names(dict.fromkeys(question.prompt.task for question in questions))
    if chosen not in known:
        raise ValueError(f"--metric_for_best_model {chosen}: for these rows give loss or one of {', '.join(known)}")


def _early_stopping(arguments: SftArguments) -> list[TrainerCallback]:
    patience = arguments.early_stopping_patience
    return [EarlyStoppingCallback(early_stopping_patience=patience)] if patience else []


def _dtype(arguments: SftArguments, device: torch.device) -> str:
    if arguments.dtype != "auto":
        return arguments.dtype
    return "bf16" if has_native_bf16(device) else "fp32"


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
