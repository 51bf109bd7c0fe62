"""`sft`: a fine-tuning run from its arguments to its checkpoint."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from transformers import (
    EarlyStoppingCallback,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)

from ..argument_validation import validate_arguments
from ..data.datasets import check_datasets, check_disjoint_scenes, load_examples, parse_datasets
from ..data.examples import Example
from ..data.rows import RowError
from ..data.validation import RowValidator, summarize_row_errors
from ..data.worker_errors import is_worker_error, summarize_data_error
from ..evaluation.evaluator import metric_names
from ..exceptions import ArgumentError, TrainingError, shorten, unknown_name, warn
from ..inference.device import resolve_dtype
from ..inference.generation import prepare_model
from ..loading.adapters import ADAPTER_CONFIG
from ..loading.added_tokens import add_tokens
from ..loading.checkpoint import load_checkpoint
from ..loading.checkpoint_tasks import add_model_tasks
from ..loading.hub import resolve
from ..output_files import prepare_output_folder, write_text
from .arguments import SftArguments
from .checkpoint_files import step_of
from .collator import Florence2DataCollator
from .linear_cross_entropy import use_chunked_loss
from .lora import add_lora, freeze_parts
from .new_tokens import read_new_tokens
from .run_directory import BAD_ROWS_FILE, RunDirectory, is_resumed, runs_folder
from .trainer import Florence2Trainer, RunLogger, describe_resumption
from .training_rows import build_rows, decide_caching, features_folder, num_training_workers


@validate_arguments
def sft(arguments: SftArguments, on_log: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """Fine-tune a model, or resume a run. A finished run that is resumed stays as it is.

    Args:
        arguments: the options.
        on_log: called with each line of the log that contains a training loss; a `LiveLossPlot`, for example.

    Returns:
        The checkpoint: the best one by `metric_for_best_model` with a `val_dataset`, else the last.

    Raises:
        ValueError: for an unknown model, target module or metric, a device or number format that this machine lacks, or a
            folder that cannot be written to.
        DatasetError: for a dataset that cannot be read, or scenes that are both trained and validated on.
        TrainingError: for invalid rows, a run that cannot be resumed, a loss or weights that are not finite, a full disk, or a
            run that wrote no checkpoint.
        HubError, CheckpointError: see `load`.
    """
    state = start_process(arguments)
    run = RunDirectory.open(arguments, state) if is_resumed(arguments) else None
    if run is not None and (finished := run.finished_checkpoint()):
        return finished
    check_data_arguments(arguments)
    new_tokens = read_new_tokens(arguments)
    prepare_folders(arguments, run)
    source = arguments.model_id_or_path or arguments.model_type
    folder = resolve(source, arguments.hub or None)
    if (folder / ADAPTER_CONFIG).is_file():
        raise ArgumentError(f"{folder} is an adapter; merge it first: florence-lab export --ckpt_dir {folder}")
    set_seed(arguments.seed)  # LoRA initializes matrices at random
    model, processor = load_checkpoint(folder)
    token_ids = add_tokens(model, processor.tokenizer, new_tokens)
    prepare_model(model)
    use_chunked_loss(model)
    train, val, errors = load_training_data(arguments, model, processor)
    add_model_tasks(model, [example.prompt.task for example in (*train, *val)])
    check_metric(arguments, val)

    arguments = (
        run.with_decisions(arguments)
        if run
        else dataclasses.replace(
            arguments, cache_image_features=decide_caching(arguments, model, processor, [*train, *val])
        )
    )
    run = run or RunDirectory.open(arguments, state)
    with describe_failures(run):
        if errors and state.is_main_process:
            write_text(run.path / BAD_ROWS_FILE, "".join(f"{error}\n" for error in errors))
        freeze_parts(model, arguments)
        if any(spec.kind != "scenes" for spec in parse_datasets(arguments.dataset)):
            model.config.trained_on = None  # florence-2-nano's note that it knows scenes only
        rows, val_rows = (build_rows(examples, arguments, model, processor, state) for examples in (train, val))
        trainer = Florence2Trainer(
            model=model if arguments.sft_type == "full" else add_lora(model, arguments, token_ids),
            args=to_training_arguments(
                arguments,
                run.path,
                num_training_workers(arguments, model, processor, len(rows), state.device.type),
            ),
            data_collator=Florence2DataCollator(processor, keeps_levels=state.device.type == "cuda"),
            train_dataset=rows,
            eval_dataset=val_rows or None,
            processor=processor,
            run=run,
            callbacks=[RunLogger(run.path, on_log), *_early_stopping(arguments)],
            eval_examples=val if arguments.needs_generation else (),
            base_model_name=source if source == arguments.model_type else str(folder.resolve()),
            max_checkpoints=arguments.save_total_limit,
            target_lengths=count_target_tokens(train, processor) if arguments.group_by_length else (),
        )
        trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
    return _choose_checkpoint(trainer, run, arguments)


def start_process(arguments: SftArguments) -> PartialState:
    """Return the state of this process, on the device of the arguments.

    Raises:
        ArgumentError: if the device, or the number format on it, does not exist on this machine.
    """
    local_rank, gpus = os.environ.get("LOCAL_RANK", "0"), torch.cuda.device_count()
    if arguments.device != "cpu" and 0 < gpus <= int(local_rank):
        raise ArgumentError(f"process {local_rank} of this machine has no GPU: there are {gpus}; start at most as many")
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001  # an earlier run may have used another device
    state = PartialState(cpu=arguments.device == "cpu")
    if arguments.device not in ("auto", state.device.type, str(state.device)):
        kinds = dict.fromkeys(("auto", "cpu", state.device.type))
        one_gpu = "; choose a GPU with CUDA_VISIBLE_DEVICES" if state.device.type == "cuda" else ""
        raise ArgumentError(
            f"--device {shorten(arguments.device)}: training here uses one of {', '.join(kinds)}{one_gpu}"
        )
    dtype = resolve_dtype(arguments.dtype, state.device)
    if dtype == torch.float16 and state.device.type == "cpu":
        raise ArgumentError(f"--dtype {arguments.dtype}: training in fp16 needs a GPU; use fp32, bf16 or auto")
    if dtype == torch.bfloat16 and state.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ArgumentError(f"--dtype {arguments.dtype}: this GPU has no bf16; use fp16, fp32 or auto")
    return state


def prepare_folders(arguments: SftArguments, run: RunDirectory | None) -> None:
    """Create the folders that a run writes to, and verify that files can be written.

    Args:
        arguments: the options.
        run: the run that is resumed.

    Raises:
        ArgumentError: if one cannot be written to.
    """
    prepare_output_folder("--output_dir", run.path if run else runs_folder(arguments))
    if arguments.cache_image_features:
        prepare_output_folder("--feature_dir", features_folder(arguments))


@contextmanager
def describe_failures(run: RunDirectory) -> Iterator[None]:
    """Raise `TrainingError` for a full disk, a GPU without memory, and errors of the processes that load images."""
    try:
        yield
    except TrainingError as error:
        if not is_worker_error(error):
            raise
        raise TrainingError(f"{run.path}: {summarize_data_error(error)}") from error
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{run.path}: the GPU has too little memory: a smaller --batch_size with more --gradient_accumulation_steps, or "
            f"--gradient_checkpointing true, needs less. {describe_resumption(run)}"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) or is_worker_error(error):
            raise TrainingError(f"{run.path}: {summarize_data_error(error)}. {describe_resumption(run)}") from error
        raise


def _choose_checkpoint(trainer: Florence2Trainer, run: RunDirectory, arguments: SftArguments) -> Path:
    """The result of a run that has ended."""
    steps = trainer.state.global_step
    if 0 < steps - (step_of(run.checkpoint) if run.checkpoint else 0) <= trainer.skipped_steps:
        warn(
            "the gradients of all steps overflowed in fp16, so nothing was trained; use --dtype bf16 or fp32, or more steps"
        )
    best = trainer.state.best_model_checkpoint
    if arguments.val_dataset and not best:
        warn(f"{arguments.metric_for_best_model} was undefined at each validation; the last checkpoint is returned")
    checkpoint = Path(best) if best else run.last_checkpoint()
    if checkpoint is None:
        raise TrainingError(f"{run.path}: the run ended after {steps} steps without a checkpoint")
    return checkpoint


def check_data_arguments(arguments: SftArguments) -> None:
    """Verify the datasets before a model is loaded.

    Raises:
        ValueError: if there is no dataset.
        DatasetError: for a dataset that cannot be read, or scenes that are both trained and validated on.
    """
    if not arguments.dataset:
        raise ArgumentError("--dataset: at least one is required, as in --dataset train.jsonl")
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
            f"{len(errors)} invalid row{'s' * (len(errors) > 1)}; correct them or skip them: --skip_bad_rows true\n"
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
        message = unknown_name("--metric_for_best_model", arguments.metric_for_best_model, known)
        raise ArgumentError(f"{message}. Known are the metrics of the tasks of --val_dataset: {_list_tasks(tasks)}")


def _list_tasks(tokens: Iterable[str]) -> str:
    return ", ".join(token or "free questions" for token in tokens) or "none"


def count_target_tokens(examples: Sequence[Example], processor: Florence2Processor) -> list[int]:
    """Return the number of tokens of each target."""
    encoded = processor.tokenizer([example.target for example in examples])
    return [len(ids) for ids in encoded["input_ids"]]


def to_training_arguments(arguments: SftArguments, output_dir: Path, num_workers: int = 0) -> Seq2SeqTrainingArguments:
    """Translate the options into those of transformers' trainer.

    Args:
        arguments: the options.
        output_dir: the run directory.
        num_workers: processes that load batches.
    """
    device = PartialState().device
    dtype = resolve_dtype(arguments.dtype, device)
    options: dict[str, Any] = {"eval_strategy": "no"}
    if arguments.val_dataset:
        options = {
            "eval_strategy": "steps",
            "eval_steps": arguments.eval_steps,
            "load_best_model_at_end": True,
            "restore_callback_states_from_checkpoint": True,  # the count of early stopping
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
        optim="adamw_torch_fused",
        torch_compile=arguments.torch_compile,
        dataloader_num_workers=num_workers,
        dataloader_persistent_workers=num_workers > 0,
        dataloader_pin_memory=device.type == "cuda",
        accelerator_config={"non_blocking": device.type == "cuda"},  # copies while the GPU computes
        logging_nan_inf_filter=dtype == torch.float16,  # else the trainer stops at a loss that is not finite
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


def _early_stopping(arguments: SftArguments) -> list[TrainerCallback]:
    patience = arguments.early_stopping_patience
    return [EarlyStoppingCallback(early_stopping_patience=patience)] if patience else []
