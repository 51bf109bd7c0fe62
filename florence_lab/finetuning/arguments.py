"""`SftArguments`: the options of fine-tuning. Importing this module needs neither torch nor transformers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from ..argument_validation import Range, validate_fields
from ..exceptions import ArgumentError, shorten


def _option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """Return a dataclass field with its line for `--help` and the values that it accepts."""
    return field(default=default, metadata={"help": help, "choices": choices})


DTYPES = ("auto", "fp32", "fp16", "bf16", "float32", "float16", "bfloat16")
_SHORT_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_HUBS = ("", "modelscope", "hf")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_LORA_OPTIONS = ("target_regex", "modules_to_save", "use_dora", "use_rslora")
_NOT_ALL = Range(0, 0.99)  # a share that leaves something


@dataclass(frozen=True)
class SftArguments:
    """Options of fine-tuning. Their names follow ms-swift 2 and, where it has none, transformers' `TrainingArguments`.

    A `Path` is accepted wherever a path is named, a single string for a tuple, and a bool for `resume_from_checkpoint`.

    Raises:
        ArgumentTypeError: for a value of another type.
        ArgumentError: for a number out of its range, a value that does not exist, or options that contradict each other. The
            message begins with the option, as in `--batch_size`.
    """

    model_type: str = _option("florence-2-nano", "model to start from, one of available_models()")
    model_id_or_path: str = _option("", "checkpoint folder or hub id to start from, instead of model_type")
    hub: str = _option("", "modelscope or hf; empty: $FLORENCE_LAB_HUB, else modelscope")
    dataset: tuple[str, ...] = _option(
        (), "files, coco:FILE, scenes:COUNT, hf:ID or ms:ID; #500 appended takes a sample"
    )
    val_dataset: tuple[str, ...] = _option(
        (), "datasets to validate on (scenes are held out); with one, the best checkpoint is kept"
    )
    skip_bad_rows: bool = _option(False, "skip invalid rows instead of aborting")
    max_length: int = _option(1024, "maximum target length in tokens; longer rows are invalid")
    sft_type: str = _option("lora", "lora: train low-rank adapters; full: train all weights", ("lora", "full"))
    lora_target_modules: tuple[str, ...] = _option(
        ("DEFAULT",), "linear layers with LoRA: DEFAULT (attention), ALL, or names such as q_proj v_proj"
    )
    lora_rank: int = _option(8, "rank of the LoRA matrices")
    lora_alpha: int = _option(32, "LoRA scaling: the update is multiplied by lora_alpha / lora_rank")
    lora_dropout: Annotated[float, _NOT_ALL] = _option(0.05, "dropout before the LoRA matrices")
    freeze_vision: bool | None = _option(
        None, "freeze the image encoder and its projector (default: true for lora, false for full)"
    )
    freeze_vit: bool | None = _option(
        None, "freeze the image encoder without its projector (default: as freeze_vision)"
    )
    freeze_aligner: bool | None = _option(None, "freeze the projector (default: as freeze_vision)")
    freeze_llm: bool = _option(False, "freeze the language model; with lora it gets no adapter")
    target_regex: str = _option(
        "", "linear layers with LoRA whose whole name this pattern matches, instead of lora_target_modules"
    )
    modules_to_save: tuple[str, ...] = _option(
        (), "modules that are trained whole and saved beside LoRA, such as multi_modal_projector"
    )
    use_dora: bool = _option(False, "train the magnitude of the weights beside LoRA (DoRA, Liu et al., 2024)")
    use_rslora: bool = _option(False, "multiply by lora_alpha / sqrt(lora_rank) (rsLoRA, Kalajdzievski, 2023)")
    new_special_tokens: tuple[str, ...] = _option(
        (), "tokens to add to the vocabulary, such as <DocVQA>, or .txt files of them; their embeddings are trained"
    )
    cache_image_features: bool | None = _option(
        None,
        "cache image features on disk (default: true if the image encoder is frozen and half of the free disk space holds them)",
    )
    feature_dir: str = _option("", "folder of cached image features; empty: ~/.cache/florence_lab/features")
    output_dir: str = _option("output", "runs are written to output_dir/model_type/v<N>-<time>")
    resume_from_checkpoint: str = _option(
        "false", "true: resume the latest run in output_dir; or the path of a run or checkpoint"
    )
    num_train_epochs: float = _option(1.0, "number of training epochs")
    max_steps: Annotated[int, Range(-1)] = _option(
        -1, "number of optimizer steps, instead of num_train_epochs; -1: not limited"
    )
    batch_size: int = _option(4, "batch size of each device, in training and validation")
    gradient_accumulation_steps: int = _option(1, "micro-batches accumulated before each optimizer step")
    learning_rate: float | None = _option(None, "peak learning rate (default: 1e-4 for lora, 1e-5 for full)")
    warmup_ratio: Annotated[float, _NOT_ALL] = _option(
        0.05, "share of the steps with linear warm-up; a cosine decay follows"
    )
    weight_decay: float = _option(0.01, "weight decay of AdamW")
    max_grad_norm: float = _option(1.0, "maximum gradient norm (clipping)")
    gradient_checkpointing: bool = _option(False, "recompute activations in the backward pass to save memory")
    dtype: str = _option(
        "auto", "number format of computation; auto: bf16 if the device computes in it, else fp32", DTYPES
    )
    device: str = _option("auto", "auto, cpu, cuda or mps; CUDA_VISIBLE_DEVICES selects one of several GPUs")
    dataloader_num_workers: int | None = _option(
        None,
        "processes that load images (default: by the cores and the size of the dataset; 0 where processes are not forked)",
    )
    group_by_length: bool = _option(
        False,
        "put targets of similar lengths into a batch, which leaves less padding, but less chance in what meets there",
    )
    torch_compile: bool = _option(False, "compile the model with torch.compile, which takes minutes at the first steps")
    logging_steps: int = _option(5, "steps between log lines")
    eval_steps: int = _option(100, "steps between checkpoints; each is evaluated on val_dataset")
    save_total_limit: int = _option(2, "number of checkpoints to keep; the best is always kept")
    predict_with_generate: bool = _option(False, "also compute task metrics of generated answers, not the loss alone")
    metric_for_best_model: str = _option("loss", "loss, or a task metric such as OD/mAP@0.5")
    early_stopping_patience: int = _option(0, "stop after this many evaluations without improvement; 0 disables it")
    seed: int = _option(42, "random seed")

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _normalize(getattr(self, item.name), isinstance(item.default, tuple)))
        if isinstance(self.resume_from_checkpoint, bool):
            object.__setattr__(self, "resume_from_checkpoint", str(self.resume_from_checkpoint).lower())
        try:
            validate_fields(self)
        except ArgumentError as error:
            raise type(error)(f"--{error}") from None
        object.__setattr__(self, "dtype", _SHORT_DTYPES.get(self.dtype, self.dtype))
        self._validate()

    def _validate(self) -> None:
        """Raise `ArgumentError` for the first value that does not exist or contradicts another."""
        for item in fields(self):
            choices, value = item.metadata["choices"], getattr(self, item.name)
            if isinstance(value, tuple) and "" in value:
                raise ArgumentError(f"--{item.name} {shorten(value)}: contains an empty name")
            if "\0" in "".join(value if isinstance(value, tuple) else str(value)):
                raise ArgumentError(f"--{item.name} {shorten(value)}: contains a null byte")
            if choices and value not in choices:
                raise ArgumentError(f"--{item.name} {shorten(value)}: must be one of {', '.join(choices)}")
        if self.hub not in _HUBS:
            raise ArgumentError(f"--hub {shorten(self.hub)}: must be modelscope or hf")
        if not _DEVICE.fullmatch(self.device):
            raise ArgumentError(f"--device {shorten(self.device)}: must be auto, cpu, cuda, cuda:0 or mps")
        if self.max_steps == 0:
            raise ArgumentError("--max_steps 0: must be at least 1, or -1 to train for num_train_epochs")
        self._validate_trained_parts()
        if self.early_stopping_patience > 0 and not self.val_dataset:
            raise ArgumentError(f"--early_stopping_patience {self.early_stopping_patience} requires a --val_dataset")
        if self.metric_for_best_model != "loss" and not self.val_dataset:
            raise ArgumentError(f"--metric_for_best_model {self.metric_for_best_model} requires a --val_dataset")

    def _validate_trained_parts(self) -> None:
        for name in ("freeze_vit", "freeze_aligner"):
            value = getattr(self, name)
            if None not in (value, self.freeze_vision) and value != self.freeze_vision:
                raise ArgumentError(
                    f"--{name} {str(value).lower()} contradicts --freeze_vision {str(self.freeze_vision).lower()}"
                )
        if self.sft_type == "full":
            for name in _LORA_OPTIONS:
                if getattr(self, name):
                    raise ArgumentError(f"--{name} requires --sft_type lora, but --sft_type is full")
            if self.freeze_llm and self.new_special_tokens:
                raise ArgumentError(
                    "--new_special_tokens are part of the language model, which --freeze_llm true leaves as it is; use "
                    "--sft_type lora, which trains them all the same"
                )
        if self.is_vision_frozen and self.freeze_llm and not self.modules_to_save:
            raise ArgumentError(
                "nothing is left to train: image encoder, projector and language model are frozen (--freeze_llm true); "
                "with --sft_type lora the first two are unless --freeze_vit false or --freeze_aligner false is given"
            )
        if self.cache_image_features and not self.is_vision_frozen:
            raise ArgumentError(
                "--cache_image_features true requires a frozen image encoder and projector: --freeze_vision true"
            )

    @property
    def is_image_encoder_frozen(self) -> bool:
        """Whether the image encoder, without its projector, keeps its weights."""
        return self._is_frozen(self.freeze_vit)

    @property
    def is_projector_frozen(self) -> bool:
        """Whether the projector behind the image encoder keeps its weights."""
        return self._is_frozen(self.freeze_aligner)

    @property
    def is_vision_frozen(self) -> bool:
        """Whether the image encoder and its projector keep their weights, apart from `modules_to_save`."""
        return self.is_image_encoder_frozen and self.is_projector_frozen

    def _is_frozen(self, choice: bool | None) -> bool:
        given = [value for value in (choice, self.freeze_vision) if value is not None]
        return given[0] if given else self.sft_type == "lora"

    @property
    def needs_generation(self) -> bool:
        """Whether validation generates answers."""
        return self.predict_with_generate or self.metric_for_best_model != "loss"

    @property
    def effective_learning_rate(self) -> float:
        """The peak learning rate: `learning_rate`, or the default of `sft_type`."""
        if self.learning_rate is None:
            return {"lora": 1e-4, "full": 1e-5}[self.sft_type]
        return self.learning_rate


def _normalize(value: Any, is_tuple: bool) -> Any:
    """Return a value in the form that the fields have: a list of items for a tuple, and text for paths."""
    if is_tuple:
        if isinstance(value, (str, os.PathLike)):
            value = (value,)
        return [_to_text(item) for item in value] if isinstance(value, (list, tuple)) else value
    return _to_text(value)


def _to_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
