"""TODO"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field with its line for `--help`, and the values that it may have."""
    return field(default=default, metadata={"help": help, "choices": choices})


DTYPES = ("auto", "fp32", "fp16", "bf16")


@dataclass(frozen=True)
class SftArguments:
    """Fine-tuning. The names are those of ms-swift and of transformers' `TrainingArguments`."""

    model_type: str = option("florence-2-nano", "what to start from, one of available_models()")
    model_id_or_path: str = option("", "what to start from instead: a folder or the id of a model on a hub")
    hub: str = option("", "modelscope or hf; empty is $FLORENCE_LAB_HUB, else modelscope")
    dataset: tuple[str, ...] = option((), "files, coco:FILE, scenes:COUNT, hf:ID, ms:ID; #500 behind takes a sample")
    val_dataset: tuple[str, ...] = option((), "the same, to measure on; with one, the best checkpoint is kept")
    skip_bad_rows: bool = option(False, "train without the rows that are faulty, instead of stopping")
    max_length: int = option(1024, "the longest answer in tokens; a row with a longer one is faulty")
    sft_type: str = option(
        "lora", "what is trained: small matrices beside the weights, or all weights", ("lora", "full")
    )
    lora_target_modules: tuple[str, ...] = option(
        ("DEFAULT",), "linear layers with LoRA: DEFAULT is attention, ALL every one, or names, as in q_proj v_proj"
    )
    lora_rank: int = option(8, "rank of LoRA's matrices")
    lora_alpha: int = option(32, "scale of what they add, over the rank")
    lora_dropout: float = option(0.05, "dropout before them")
    freeze_vision: bool | None = option(
        None, "whether picture to tokens stays as it is; by default with lora, not full"
    )
    cache_image_features: bool = option(False, "keep each picture's tokens on disk, with a frozen vision tower")
    feature_dir: str = option("", "where these are kept; empty is ~/.cache/florence_lab/features")
    output_dir: str = option("output", "a run goes to output_dir/model_type/v<N>-<time>")
    resume_from_checkpoint: str = option("false", "true continues the latest run there; or its folder, or a checkpoint")
    num_train_epochs: float = option(1.0, "how often each row is met")
    max_steps: int = option(-1, "how many steps instead")
    batch_size: int = option(4, "rows a step on each device")
    gradient_accumulation_steps: int = option(1, "batches of which a step is made")
    learning_rate: float | None = option(None, "the highest; by default 1e-4 with lora, 1e-5 with full")
    warmup_ratio: float = option(0.05, "share of the steps in which it rises; then it falls as a cosine")
    weight_decay: float = option(0.01, "of AdamW")
    max_grad_norm: float = option(1.0, "longest gradient")
    gradient_checkpointing: bool = option(False, "less memory for more time")
    dtype: str = option("auto", "what is computed in; auto: bf16 where the machine is good at it, else fp32", DTYPES)
    device: str = option("auto", "auto or cpu")
    dataloader_num_workers: int = option(1, "processes that read pictures")
    logging_steps: int = option(5, "steps between lines of the log")
    eval_steps: int = option(100, "steps between checkpoints, each measured on val_dataset")
    save_total_limit: int = option(2, "how many checkpoints are kept; the best is always one of them")
    predict_with_generate: bool = option(False, "measure answers too, not the loss alone")
    metric_for_best_model: str = option("loss", "loss, or a task's metric, as in OD/mAP@0.5")
    early_stopping_patience: int = option(0, "end after so many measurements without a better one; 0 never does")
    seed: int = option(42, "of everything random")
