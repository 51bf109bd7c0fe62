"""`sft`: a fine-tuning run from its arguments to its checkpoint."""

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

from ..data.datasets import check_datasets, check_disjoint_scenes, load_examples, parse_datasets
from ..data.examples import Example
from ..data.rows import RowError
from ..data.validation import RowValidator, summarize_row_errors
from ..evaluation.evaluator import metric_names
from ..exceptions import TrainingError, unknown_name
from ..inference.device import resolve_dtype
from ..inference.generation import prepare_model
from ..loading.adapters import ADAPTER_CONFIG
from ..loading.checkpoint import load_checkpoint
from ..loading.hub import resolve
from .arguments import SftArguments
from .collator import Florence2DataCollator, TrainingRow
from .feature_cache import FeatureCache
from .lora import add_lora, freeze_image_encoder
from .run_directory import BAD_ROWS_FILE, RunDirectory
from .trainer import Florence2Trainer, RunLogger


def sft(arguments: SftArguments, on_log: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """Fine-tune a model, or resume a run.

    Args:
        arguments: the options.
        on_log: called with each line of the log that contains a training loss; a `LiveLossPlot`, for example.

    Returns:
        The checkpoint: the best one by `metric_for_best_model` with a `val_dataset`, else the last.

    Raises:
        ValueError: for an unknown model, target module or metric.
        DatasetError: for a dataset that cannot be read, or scenes that are both trained and validated on.
        TrainingError: for invalid rows, a run that cannot be resumed, a full disk, or a run that wrote no checkpoint.
        HubError, CheckpointError: see `load`.
    """
    check_data_arguments(arguments)
    state = PartialState(cpu=arguments.device == "cpu")
    source = arguments.model_id_or_path or arguments.model_type
    folder = resolve(source, arguments.hub or None)
    if (folder / ADAPTER_CONFIG).is_file():
        raise ValueError(f"{folder} is an adapter; merge it first: florence-lab export --ckpt_dir {folder}")
    set_seed(arguments.seed)  # LoRA initializes matrices at random
    model, processor = load_checkpoint(folder)
    prepare_model(model)
    train, val, errors = load_training_data(arguments, model, processor)
    check_metric(arguments, val)

    run = RunDirectory.open(arguments, state)
    if errors and state.is_main_process:
        (run.path / BAD_ROWS_FILE).write_text("".join(f"{error}\n" for error in errors), encoding="utf-8")
    if arguments.is_vision_frozen:
        freeze_image_encoder(model)
    if any(spec.kind != "scenes" for spec in parse_datasets(arguments.dataset)):
        model.config.trained_on = None  # florence-2-nano's note that it knows scenes only
    rows, val_rows = (build_rows(examples, arguments, model, processor, state) for examples in (train, val))
    trainer = Florence2Trainer(
        model=_trainable_model(model, arguments),
        args=to_training_arguments(arguments, run.path),
        data_collator=Florence2DataCollator(processor),
        train_dataset=rows,
        eval_dataset=val_rows or None,
        processor=processor,
        run=run,
        callbacks=[RunLogger(run.path, on_log), *_early_stopping(arguments)],
        eval_examples=val if arguments.needs_generation else (),
        base_model_name=source if source == arguments.model_type else str(folder.resolve()),
        max_checkpoints=arguments.save_total_limit,
    )
    trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
    best = trainer.state.best_model_checkpoint
    checkpoint = Path(best) if best else run.last_checkpoint()
    if checkpoint is None:
        raise TrainingError(f"{run.path}: the run ended after {trainer.state.global_step} steps without a checkpoint")
    return checkpoint


def check_data_arguments(arguments: SftArguments) -> None:
    """Verify the datasets before a model is loaded.

    Raises:
        ValueError: if there is no dataset.
        DatasetError: for a dataset that cannot be read, or scenes that are both trained and validated on.
    """
    if not arguments.dataset:
        raise ValueError("--dataset: at least one is required, as in --dataset train.jsonl")
    check_datasets(arguments.dataset)
    check_datasets(arguments.val_dataset, "held_out")
    check_disjoint_scenes(arguments.dataset, arguments.val_dataset)


def load_training_data(
    arguments: SftArguments, model: Florence2ForConditionalGeneration, processor: Florence2Processor
) -> tuple[list[Example], list[Example], list[RowError]]:
    """Return the training examples, the validation examples, and the invalid rows if they are to be skipped.

    Raises:
        TrainingError: if rows are invalid and not to be skipped, or if no valid one is left to train or validate on.
    """
    text_config: Any = model.config.text_config
    max_tokens = min(arguments.max_length, text_config.max_position_embeddings)
    validator = RowValidator.for_model(model, processor, max_tokens)
    skip = arguments.skip_bad_rows
    train = load_examples(arguments.dataset, validator, arguments.seed, skip_bad_rows=skip)
    val = load_examples(arguments.val_dataset, validator, arguments.seed, "held_out", skip_bad_rows=skip)
    errors = [*train.errors, *val.errors]
    if errors and not arguments.skip_bad_rows:
        raise TrainingError(
            f"{len(errors)} invalid rows; correct them or skip them: --skip_bad_rows true\n"
            f"{summarize_row_errors(errors)}"
        )
    for name, datasets, examples in (
        ("dataset", arguments.dataset, train.examples),
        ("val_dataset", arguments.val_dataset, val.examples),
    ):
        if datasets and not examples:
            raise TrainingError(f"--{name} {' '.join(datasets)}: no valid rows")
    return train.examples, val.examples, errors


def check_metric(arguments: SftArguments, val: Sequence[Example]) -> None:
    """Verify that the validation examples have the metric that selects the best checkpoint.

    Raises:
        ValueError: if they do not; the message lists the metrics that they have.
    """
    tasks = {example.prompt.task.token: example.prompt.task for example in val}
    known = ["loss", *metric_names(tasks.values())]
    if arguments.metric_for_best_model not in known:
        raise ValueError(unknown_name("--metric_for_best_model", arguments.metric_for_best_model, known))


def build_rows(
    examples: Sequence[Example],
    arguments: SftArguments,
    model: Florence2ForConditionalGeneration,
    processor: Florence2Processor,
    state: PartialState,
) -> list[TrainingRow]:
    """Return examples as rows of the trainer, with cached image features if the arguments ask for them."""
    if not examples or not arguments.cache_image_features:
        return [TrainingRow(example) for example in examples]
    dtype = resolve_dtype(arguments.dtype, state.device)
    with state.main_process_first():  # the other processes find the features in the cache
        cache = FeatureCache(model.to(state.device), processor, dtype, arguments.feature_dir or None)
        sources = {example.image_key: example.image for example in examples}
        paths = dict(zip(sources, cache.encode_images(sources.values()), strict=True))
    return [TrainingRow(example, paths[example.image_key]) for example in examples]


def to_training_arguments(arguments: SftArguments, output_dir: Path) -> Seq2SeqTrainingArguments:
    """Translate the options into those of transformers' trainer."""
    device = PartialState().device
    dtype = resolve_dtype(arguments.dtype, device)
    options: dict[str, Any] = {"eval_strategy": "no"}
    if arguments.val_dataset:
        options = {
            "eval_strategy": "steps",
            "eval_steps": arguments.eval_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": arguments.metric_for_best_model,
            "greater_is_better": not arguments.metric_for_best_model.endswith(("loss", "ECE")),
        }
    if arguments.gradient_checkpointing:
        options |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    return Seq2SeqTrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=arguments.num_train_epochs,
        max_steps=arguments.max_steps,
        per_device_train_batch_size=arguments.batch_size,
        per_device_eval_batch_size=arguments.batch_size,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        learning_rate=arguments.effective_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=arguments.warmup_ratio,  # a value below 1 is a share of the steps
        weight_decay=arguments.weight_decay,
        max_grad_norm=arguments.max_grad_norm,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=device.type == "cpu",
        dataloader_num_workers=arguments.dataloader_num_workers,
        dataloader_pin_memory=device.type == "cuda",
        logging_steps=arguments.logging_steps,
        save_strategy="steps",
        save_steps=arguments.eval_steps,
        remove_unused_columns=False,  # rows are objects, not columns
        label_names=["labels"],
        prediction_loss_only=True,
        ddp_find_unused_parameters=False,
        report_to="tensorboard",
        seed=arguments.seed,
        **options,
    )


def _trainable_model(model: Florence2ForConditionalGeneration, arguments: SftArguments) -> torch.nn.Module:
    """The model itself, or the model with LoRA."""
    if arguments.sft_type == "full":
        return model
    rank, alpha, dropout = arguments.lora_rank, arguments.lora_alpha, arguments.lora_dropout
    return add_lora(model, arguments.lora_target_modules, rank, alpha, dropout)


def _early_stopping(arguments: SftArguments) -> list[TrainerCallback]:
    patience = arguments.early_stopping_patience
    return [EarlyStoppingCallback(early_stopping_patience=patience)] if patience else []
