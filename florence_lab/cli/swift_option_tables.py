"""The options of ms-swift 3 and 4 as tables: what each means here, or why it does not apply.

The names are those of its documentation (modelscope/ms-swift, `docs/source_en/Instruction/Command-line-parameters.md`). An
option that has the same name and meaning here is in no table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..exceptions import ArgumentError, shorten, unknown_name
from ..loading.registry import MODELS

FAMILY = "florence"
"""The `--model_type` of Florence-2 in ms-swift 3 and 4, which names the architecture and not a checkpoint."""

Given = Mapping[str, Sequence[str]]
"""All options of a call with their values, without dashes."""


@dataclass(frozen=True)
class Rename:
    """An option with another name here, and the same values."""

    option: str

    def translate(self, name: str, values: Sequence[str], given: Given) -> list[str]:
        """Return the arguments of florence-lab that mean the same."""
        return [f"--{self.option}", *values]


@dataclass(frozen=True)
class Values:
    """An option of which some values have a meaning here.

    Attributes:
        arguments: value, in lower case -> arguments of florence-lab; none if the value is what happens anyway.
        reason: why other values are refused.
    """

    arguments: Mapping[str, Sequence[str]]
    reason: str

    def translate(self, name: str, values: Sequence[str], given: Given) -> list[str]:
        """Return the arguments of florence-lab that mean the same. Raises an `ArgumentError` for a value without meaning."""
        value = values[0].lower() if len(values) == 1 else ""
        if value not in self.arguments:
            accepted = ", ".join(self.arguments)
            raise ArgumentError(f"--{name} {' '.join(values)}: {self.reason}; accepted: {accepted}")
        return list(self.arguments[value])


@dataclass(frozen=True)
class Convert:
    """An option whose values are converted by a function."""

    function: Callable[[str, Sequence[str], Given], list[str]]

    def translate(self, name: str, values: Sequence[str], given: Given) -> list[str]:
        """Return the arguments of florence-lab that mean the same. Raises an `ArgumentError` for a value without meaning."""
        return self.function(name, values, given)


@dataclass(frozen=True)
class Ignore:
    """An option that changes no answer and no trained weight, with the reason."""

    reason: str

    def translate(self, name: str, values: Sequence[str], given: Given) -> list[str]:
        """Return no arguments."""
        return []


@dataclass(frozen=True)
class Refuse:
    """An option that does not apply to Florence-2, or is not offered, with the reason."""

    reason: str

    def translate(self, name: str, values: Sequence[str], given: Given) -> list[str]:
        """Raise an `ArgumentError` with the reason."""
        raise ArgumentError(f"--{name} does not apply: {self.reason}")


Entry = Rename | Values | Convert | Ignore | Refuse


def _flag(reason: str, true: Sequence[str] | None = None, false: Sequence[str] | None = ()) -> Values:
    """An option that is true or false. None stands for a value that is refused."""
    spelled = {"true": true, "1": true, "false": false, "0": false}
    return Values({text: arguments for text, arguments in spelled.items() if arguments is not None}, reason)


def _model_to_train(name: str, values: Sequence[str], given: Given) -> list[str]:
    is_known = len(values) == 1 and values[0] in MODELS
    return ["--model_type" if is_known else "--model_id_or_path", *values]


def _model_type(name: str, values: Sequence[str], given: Given) -> list[str]:
    if [value.lower() for value in values] != [FAMILY]:
        return ["--model_type", *values]
    if not {"model", "model_id_or_path", "ckpt_dir", "adapters"} & given.keys():
        raise ArgumentError(f"--model_type {FAMILY} names a family of models; name the checkpoint with --model")
    return []


def _adapters(name: str, values: Sequence[str], given: Given) -> list[str]:
    if len(values) != 1:
        raise ArgumentError(f"--adapters {' '.join(values)}: one adapter can be loaded, got {len(values)}")
    return ["--ckpt_dir", *values]


def _target_modules(name: str, values: Sequence[str], given: Given) -> list[str]:
    return ["--lora_target_modules", *("ALL" if value == "all-linear" else value for value in values)]


def _tuner(name: str, values: Sequence[str], given: Given) -> list[str]:
    kinds = ("lora", "full")
    if len(values) != 1 or values[0] not in kinds:
        raise ArgumentError(unknown_name(f"--{name}", " ".join(values), kinds))
    return ["--sft_type", *values]


def _strict(name: str, values: Sequence[str], given: Given) -> list[str]:
    opposite = {"true": "false", "1": "false", "false": "true", "0": "true"}
    value = values[0].lower() if len(values) == 1 else ""
    if value not in opposite:
        raise ArgumentError(f"--strict must be true or false, got {shorten(' '.join(values))}")
    return ["--skip_bad_rows", opposite[value]]


def _save_steps(name: str, values: Sequence[str], given: Given) -> list[str]:
    if "eval_steps" not in given:
        return ["--eval_steps", *values]
    if list(given["eval_steps"]) != list(values):
        raise ArgumentError(
            f"--save_steps {' '.join(values)} and --eval_steps {' '.join(given['eval_steps'])} must be the same: each "
            "checkpoint is evaluated"
        )
    return []


def _temperature(name: str, values: Sequence[str], given: Given) -> list[str]:
    sampling = [value.lower() for value in given.get("do_sample", ())]
    if len(values) != 1 or not _is_zero(values[0]):
        return ["--temperature", *values, *([] if sampling else ["--do_sample", "true"])]
    if sampling in (["true"], ["1"], ["yes"]):
        raise ArgumentError(f"--temperature {values[0]} decodes greedily, which contradicts --do_sample {sampling[0]}")
    return [] if "num_beams" in given else ["--num_beams", "1"]


def _is_zero(text: str) -> bool:
    try:
        return float(text) == 0
    except ValueError:
        return False


_IMAGE_SIZE = "the checkpoint determines the size that images are resized to"
_ONE_TEMPLATE = "Florence-2 has one template, without system prompt, tools and turns"
_NO_QUANTIZATION = "quantized models are not offered"
_FREEZE = "parts are frozen with --freeze_vit, --freeze_aligner and --freeze_llm"
_IN_MEMORY = "datasets are read whole"
_TUNERS = "LoRA, DoRA, rsLoRA and full fine-tuning are offered"
_ADAMW = "the optimizer is AdamW with betas of 0.9 and 0.999"
_ONE_SEED = "--seed is the only seed"
_PLUGINS = "a task is registered in Python, see florence_lab.register_task"
_NO_PUSH = "nothing is uploaded"
_SPEED = "it changes speed or memory only"

_COMMON: dict[str, Entry] = {
    "model_type": Convert(_model_type),
    "model": Rename("model_id_or_path"),
    "adapters": Convert(_adapters),
    "torch_dtype": Rename("dtype"),
    "device_map": Rename("device"),
    "use_hf": _flag("it is true or false", true=("--hub", "hf"), false=("--hub", "modelscope")),
    "infer_backend": Values({"pt": (), "transformers": ()}, "PyTorch is the only backend"),
    "load_args": Ignore("an adapter names its base model itself"),
    "load_data_args": _flag("datasets are named with --val_dataset"),
    "template": Values({FAMILY: ()}, _ONE_TEMPLATE),
    "task_type": Values({"causal_lm": ()}, "Florence-2 generates text"),
    "use_chat_template": _flag(_ONE_TEMPLATE, true=(), false=None),
    "template_backend": Values({"swift": ()}, _ONE_TEMPLATE),
    "attn_impl": Ignore("attention is PyTorch's on every device"),
    "ignore_args_error": Ignore("unknown options are always refused"),
    "check_model": Ignore("a checkpoint is always checked"),
    "ddp_timeout": Ignore(_SPEED),
    "ddp_backend": Ignore(_SPEED),
    "max_memory": Ignore(_SPEED),
    "model_name": Ignore("it is used for ms-swift's self-cognition dataset only"),
    "model_author": Ignore("it is used for ms-swift's self-cognition dataset only"),
    "system": Refuse(_ONE_TEMPLATE),
    "agent_template": Refuse(_ONE_TEMPLATE),
    "tools_prompt": Refuse(_ONE_TEMPLATE),
    "response_prefix": Refuse(_ONE_TEMPLATE),
    "max_pixels": Refuse(_IMAGE_SIZE),
    "norm_bbox": Refuse("boxes are written with the location tokens of Florence-2"),
    "model_kwargs": Refuse("Florence-2 has no such arguments"),
    "model_revision": Refuse("the current revision of a hub is downloaded; another one is named by its folder"),
    "hub_token": Refuse("log in to the hub, or set HF_TOKEN or MODELSCOPE_API_TOKEN"),
    "quant_method": Refuse(_NO_QUANTIZATION),
    "quant_bits": Refuse(_NO_QUANTIZATION),
    "rope_scaling": Refuse("Florence-2 has learned positions"),
    "max_model_len": Refuse("Florence-2 has learned positions"),
    "num_labels": Refuse("Florence-2 generates text"),
    "problem_type": Refuse("Florence-2 generates text"),
    "init_strategy": Refuse("a checkpoint must have all weights"),
    "local_repo_path": Refuse("no code of a repository is executed"),
    "custom_register_path": Refuse(_PLUGINS),
    "external_plugins": Refuse(_PLUGINS),
    "custom_dataset_info": Refuse("a dataset is named by its file, hf:ID or ms:ID"),
    "columns": Refuse("columns are recognized by their names, see README.md"),
    "config": Refuse("options are given on the command line"),
    "use_ray": _flag("Ray is not used"),
    "padding_side": Refuse("the encoder pads on the right"),
    "truncation_strategy": Refuse("a row that is too long is invalid; --skip_bad_rows true skips it"),
    "push_to_hub": _flag(_NO_PUSH),
    "hub_model_id": Refuse(_NO_PUSH),
    "hub_private_repo": _flag(_NO_PUSH),
}

_TRAINED: dict[str, Entry] = {
    "new_special_tokens": Ignore("a checkpoint has the tokens that it was trained with"),
}

_GENERATION: dict[str, Entry] = {
    "temperature": Convert(_temperature),
    "max_batch_size": Rename("batch_size"),
    "repetition_penalty": Refuse("in Python it is an argument of Predictor.predict"),
    "stop_words": Refuse("an answer ends with the token that the checkpoint defines"),
    "logprobs": _flag("scores are part of each result"),
    "top_logprobs": Refuse("florence_lab.trace shows the probabilities of tokens"),
}

_TRAINING: dict[str, Entry] = {
    "model": Convert(_model_to_train),
    "adapters": Refuse(
        "training starts from a model; --resume_from_checkpoint continues a run, and florence-lab export merges an adapter"
    ),
    "train_type": Convert(_tuner),
    "tuner_type": Convert(_tuner),
    "tuner_backend": Values({"peft": ()}, "LoRA is PEFT's"),
    "target_modules": Convert(_target_modules),
    "per_device_train_batch_size": Rename("batch_size"),
    "per_device_eval_batch_size": Ignore("--batch_size is used in validation as well, which changes speed only"),
    "save_steps": Convert(_save_steps),
    "save_strategy": Values({"steps": ()}, "a checkpoint is written every --eval_steps"),
    "eval_strategy": Values({"steps": ()}, "--val_dataset is evaluated every --eval_steps"),
    "early_stop_interval": Rename("early_stopping_patience"),
    "strict": Convert(_strict),
    "lr_scheduler_type": Values({"cosine": ()}, "the learning rate decays as a cosine after warm-up"),
    "warmup_steps": Refuse("warm-up is a share of the steps: --warmup_ratio"),
    "report_to": Values({"tensorboard": ()}, "the log is written for TensorBoard, and to logging.jsonl"),
    "lora_bias": Values({"none": ()}, "biases are trained with --sft_type full"),
    "init_weights": Values({"true": ()}, "LoRA starts with an update of zero"),
    "optim": Values({"adamw_torch": (), "adamw_torch_fused": ()}, _ADAMW),
    "split_dataset_ratio": Values({"0": (), "0.0": (), "0.": ()}, "validation rows are named with --val_dataset"),
    "neftune_noise_alpha": Values({"0": (), "0.0": ()}, "NEFTune is not offered"),
    "loss_scale": Values({"default": (), "last_round": ()}, "all tokens of an answer have the same weight"),
    "deepspeed": Refuse("every GPU holds the whole model; NPROC_PER_NODE starts one process for each"),
    "fsdp": Refuse("every GPU holds the whole model; NPROC_PER_NODE starts one process for each"),
    "optimizer": Refuse(_ADAMW),
    "adam_beta1": Refuse(_ADAMW),
    "adam_beta2": Refuse(_ADAMW),
    "vit_lr": Refuse("all weights have the same learning rate"),
    "aligner_lr": Refuse("all weights have the same learning rate"),
    "lorap_lr_ratio": Refuse("all weights have the same learning rate"),
    "lr_scheduler_kwargs": Refuse("the learning rate decays as a cosine to 0"),
    "lora_dtype": Refuse("trained weights are float32; --dtype is the number format of computation"),
    "target_parameters": Refuse("LoRA is in linear layers: --target_modules"),
    "freeze_parameters": Refuse(_FREEZE),
    "freeze_parameters_ratio": Refuse(_FREEZE),
    "freeze_parameters_regex": Refuse(_FREEZE),
    "trainable_parameters": Refuse(_FREEZE),
    "trainable_parameters_regex": Refuse(_FREEZE),
    "data_seed": Refuse(_ONE_SEED),
    "resume_only_model": _flag("a run continues with its optimizer"),
    "ignore_data_skip": _flag("a run continues with the rows that are left"),
    "packing": _flag("answers are too short to gain from it"),
    "padding_free": _flag("answers are too short to gain from it"),
    "streaming": _flag(_IN_MEMORY),
    "cached_dataset": Refuse(_IN_MEMORY),
    "dataset_shuffle": _flag("training rows are always shuffled", true=(), false=None),
    "train_dataloader_shuffle": _flag("training rows are always shuffled", true=(), false=None),
    "val_dataset_shuffle": Ignore("the order of validation rows has no effect"),
    "interleave_prob": Refuse("datasets are concatenated"),
    "sequence_parallel_size": Values({"1": ()}, "a sequence is on one device"),
    "use_galore": _flag(_TUNERS),
    "enable_dft_loss": _flag("the loss is the cross-entropy"),
    "enable_channel_loss": _flag("the loss is the cross-entropy"),
    "loss_type": Refuse("the loss is the cross-entropy"),
    "metric": Refuse("--metric_for_best_model names a metric"),
    "greater_is_better": Refuse("it follows from --metric_for_best_model"),
    "max_epochs": Refuse("--num_train_epochs or --max_steps ends a run"),
    "full_determinism": Refuse("use one thread and the CPU"),
    "create_checkpoint_symlink": _flag("the command prints the path of the best checkpoint"),
    "logging_dir": Refuse("the log is in the folder of the run"),
    "max_new_tokens": Refuse("validation generates with the settings of the checkpoint"),
    "temperature": Values({"0": (), "0.0": ()}, "validation does not sample"),
    "add_version": _flag("each run has a new folder", true=(), false=None),
    "average_tokens_across_devices": _flag("each device averages over its own tokens"),
    "use_liger_kernel": _flag("the kernels are PyTorch's"),
    "logging_first_step": Ignore("the log has the steps of --logging_steps"),
    "run_name": Ignore("a run has the name of its folder"),
    "save_only_model": Ignore("a checkpoint also has the state of the optimizer, so that it can be resumed"),
    **dict.fromkeys(
        (
            "dataset_num_proc",
            "load_from_cache_file",
            "download_mode",
            "lazy_tokenize",
            "gradient_checkpointing_kwargs",
            "vit_gradient_checkpointing",
            "use_logits_to_keep",
            "ddp_find_unused_parameters",
            "dataloader_pin_memory",
            "dataloader_persistent_workers",
            "dataloader_prefetch_factor",
            "remove_unused_columns",
            "save_on_each_node",
            "save_safetensors",
            "overwrite_output_dir",
            "acc_strategy",
        ),
        Ignore("it changes neither the trained weights nor the answers"),
    ),
}

_EXPORT: dict[str, Entry] = {
    "torch_dtype": Ignore("weights are saved in float32, and `--dtype` converts them when they are loaded"),
    "safe_serialization": _flag("weights are saved as safetensors", true=(), false=None),
    "max_shard_size": Ignore("it changes the number of files only"),
    "exist_ok": Ignore("files are replaced when they are complete"),
    **dict.fromkeys(("quant_n_samples", "quant_batch_size", "group_size"), Refuse(_NO_QUANTIZATION)),
    **dict.fromkeys(("to_ollama", "to_mcore", "to_hf", "to_cached_dataset"), _flag("an adapter is merged")),
}

_EVALUATION: dict[str, Entry] = {
    "eval_output_dir": Rename("out"),
    "eval_dataset": Refuse("it names benchmarks of EvalScope; rows of your own are named with --dataset"),
    "eval_limit": Refuse("#500 appended to --dataset takes 500 rows"),
    "eval_backend": Values({"native": ()}, "the metrics are computed by florence_lab"),
    "eval_generation_config": Refuse("--num_beams is the only setting"),
    "max_new_tokens": Refuse("the checkpoint determines the longest answer"),
    "temperature": Values({"0": (), "0.0": ()}, "evaluation does not sample"),
    "stream": _flag("answers are evaluated when they are complete"),
}

TABLES: dict[str, dict[str, Entry]] = {
    "infer": _COMMON | _TRAINED | _GENERATION,
    "sft": _COMMON | _TRAINING,
    "export": _COMMON | _TRAINED | _EXPORT,
    "eval": _COMMON | _TRAINED | _GENERATION | _EVALUATION,
}
"""Command -> option of ms-swift -> what it means here."""

REFUSED_PREFIXES = {
    "vllm_": "PyTorch is the only backend",
    "sglang_": "PyTorch is the only backend",
    "lmdeploy_": "PyTorch is the only backend",
    "bnb_": _NO_QUANTIZATION,
    "hqq_": _NO_QUANTIZATION,
    "galore_": _TUNERS,
    "lisa_": _TUNERS,
    "reft_": _TUNERS,
    "adalora_": _TUNERS,
    "vera_": _TUNERS,
    "boft_": _TUNERS,
    "fourier_": _TUNERS,
    "llamapro_": _TUNERS,
    "lora_ga_": _TUNERS,
    "swanlab_": "the log is written for TensorBoard, and to logging.jsonl",
    "ref_": "alignment with rewards is not offered",
    "reward_": "alignment with rewards is not offered",
}
"""Beginning of the names of options of ms-swift -> why they do not apply, to any of the commands in `TABLES`."""

REFUSED_COMMANDS = {
    "app": "`florence-lab explore` opens a local web page",
    "web-ui": "`florence-lab explore` opens a local web page",
    "ui": "`florence-lab explore` opens a local web page",
    "deploy": "there is no server; `florence-lab infer` and florence_lab.load answer queries",
    "rollout": "there is no server; `florence-lab infer` and florence_lab.load answer queries",
    "rlhf": "alignment with rewards is not offered; `florence-lab sft` fine-tunes",
    "pt": "`florence-lab sft` fine-tunes, and `florence-lab pretrain` trains florence-2-nano",
    "sample": "`florence-lab infer --val_dataset` answers the rows of a dataset",
    "merge-lora": "`florence-lab export` merges an adapter",
    "megatron": "Megatron is not used; `florence-lab sft` fine-tunes",
}
"""Command of ms-swift that is not offered -> what to use instead."""
