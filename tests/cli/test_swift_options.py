"""Options of ms-swift 3 and 4: each is translated, ignored with a message, or refused with its reason."""

import argparse
import logging
from contextlib import suppress

import pytest

from florence_lab.cli import main
from florence_lab.cli.commands import COMMANDS
from florence_lab.cli.swift_option_tables import (
    REFUSED_COMMANDS,
    REFUSED_PREFIXES,
    TABLES,
    Ignore,
    Refuse,
    Rename,
    Values,
)
from florence_lab.cli.swift_options import name_as_given, translate_options
from florence_lab.exceptions import ArgumentError


def own_options(command):
    """The options of a command, in argparse's usage."""
    parser = argparse.ArgumentParser()
    COMMANDS[command].add_arguments(parser)
    return [word.strip("[]").removeprefix("--") for word in parser.format_usage().split() if word.startswith("[--")] + [
        word.removeprefix("--") for word in parser.format_usage().split() if word.startswith("--")
    ]


def translate(line):
    """The arguments of a command line, translated."""
    command, *arguments = line.split()
    return " ".join(translate_options(command, arguments, own_options(command))[0])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # training
        ("sft --model florence-2-large", "--model_type florence-2-large"),
        ("sft --model AI-ModelScope/Florence-2-base", "--model_id_or_path AI-ModelScope/Florence-2-base"),
        ("sft --model microsoft/Florence-2-base", "--model_id_or_path microsoft/Florence-2-base"),
        ("sft --model=/data/florence", "--model_id_or_path /data/florence"),
        ("sft --model x/y --model_type florence", "--model_id_or_path x/y"),
        ("sft --model_type florence-2-base", "--model_type florence-2-base"),
        ("sft --train_type lora", "--sft_type lora"),
        ("sft --tuner_type full", "--sft_type full"),
        ("sft --tuner_backend peft", ""),
        ("sft --target_modules all-linear", "--lora_target_modules ALL"),
        ("sft --target_modules q_proj v_proj", "--lora_target_modules q_proj v_proj"),
        ("sft --target_regex .*q_proj", "--target_regex .*q_proj"),
        ("sft --torch_dtype bfloat16", "--dtype bfloat16"),
        ("sft --per_device_train_batch_size 2 --per_device_eval_batch_size 1", "--batch_size 2"),
        ("sft --freeze_vit true --freeze_aligner=false", "--freeze_vit true --freeze_aligner=false"),
        ("sft --modules_to_save a b --use_dora true", "--modules_to_save a b --use_dora true"),
        ("sft --lora_bias none --init_weights true", ""),
        ("sft --use_hf true", "--hub hf"),
        ("sft --use_hf 0", "--hub modelscope"),
        ("sft --lr_scheduler_type cosine --optim adamw_torch", ""),
        ("sft --save_steps 50", "--eval_steps 50"),
        ("sft --save_steps 50 --eval_steps 50", "--eval_steps 50"),
        ("sft --save_strategy steps --eval_strategy steps", ""),
        ("sft --early_stop_interval 3", "--early_stopping_patience 3"),
        ("sft --strict false", "--skip_bad_rows true"),
        ("sft --strict true", "--skip_bad_rows false"),
        ("sft --split_dataset_ratio 0 --report_to tensorboard", ""),
        ("sft --packing false", ""),
        ("sft --dataset a b --learning_rate 1e-4", "--dataset a b --learning_rate 1e-4"),
        ("sft --device_map cpu", "--device cpu"),
        ("sft --new_special_tokens <DocVQA> tokens.txt", "--new_special_tokens <DocVQA> tokens.txt"),
        ("infer --adapters c --new_special_tokens <DocVQA>", "--ckpt_dir c"),
        # inference
        ("infer --model florence-2-base", "--model_id_or_path florence-2-base"),
        ("infer --adapters out/checkpoint-2", "--ckpt_dir out/checkpoint-2"),
        ("infer --model a/b --adapters c", "--model_id_or_path a/b --ckpt_dir c"),
        ("infer --temperature 0", "--num_beams 1"),
        ("infer --temperature 0.0 --num_beams 3", "--num_beams 3"),
        ("infer --temperature 0 --do_sample false", "--num_beams 1 --do_sample false"),
        ("infer --temperature 0.7", "--temperature 0.7 --do_sample true"),
        ("infer --temperature 0.7 --do_sample true", "--temperature 0.7 --do_sample true"),
        ("infer --max_batch_size 4", "--batch_size 4"),
        ("infer --infer_backend pt --load_args false", ""),
        ("infer --infer_backend transformers", ""),
        ("infer --template florence --load_data_args false", ""),
        ("infer --stream true --max_new_tokens 99", "--stream true --max_new_tokens 99"),
        ("infer --torch_dtype float16 --use_hf true", "--dtype float16 --hub hf"),
        # merging and evaluation
        ("export --adapters c --merge_lora true", "--ckpt_dir c --merge_lora true"),
        ("export --adapters c --safe_serialization true", "--ckpt_dir c"),
        ("eval --model a --max_batch_size 2 --temperature 0", "--model_id_or_path a --batch_size 2"),
        ("eval --adapters a --eval_output_dir b", "--ckpt_dir a --out b"),
    ],
)
def test_options_of_ms_swift_are_translated(line, expected):
    assert translate(line) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sft --lerning_rate 1", r"unknown option --lerning_rate \(did you mean --learning_rate\?\)"),
        ("sft --target_module x", "did you mean --target_modules|target_module"),
        ("sft --per-device-train-batch-size 1", "did you mean --per_device_train_batch_size"),
        ("infer --zzzz 1", "unknown option --zzzz$"),
        ("sft --model a --model_id_or_path b", "--model and --model_id_or_path set the same option"),
        ("sft --model florence-2-base --model_type florence-2-large", "--model and --model_type set the same option"),
        ("sft --batch_size 1 --per_device_train_batch_size 2", "--batch_size and --per_device_train_batch_size"),
        ("infer --adapters a --ckpt_dir b", "--adapters and --ckpt_dir set the same option"),
        ("sft --train_type lora --tuner_type lora", "--train_type and --tuner_type set the same option"),
        ("infer --model_type florence", "name the checkpoint with --model"),
        ("sft --train_type adalora", "--train_type 'adalora'.*lora, full"),
        ("infer --adapters a b", "one adapter can be loaded, got 2"),
        ("infer --adapters", "one adapter can be loaded, got 0"),
        ("sft --adapters a", "--adapters does not apply: .*--resume_from_checkpoint"),
        ("sft --save_steps 50 --eval_steps 100", "must be the same"),
        ("sft --lr_scheduler_type linear", "--lr_scheduler_type linear: .*cosine"),
        ("sft --lora_bias all", "--lora_bias all: .*--sft_type full"),
        ("sft --strict maybe", "--strict must be true or false"),
        ("sft --packing true", "--packing true"),
        ("infer --infer_backend vllm", "--infer_backend vllm: PyTorch is the only backend"),
        ("infer --vllm_max_model_len 5", "--vllm_max_model_len does not apply"),
        ("infer --temperature 0 --do_sample true", "contradicts --do_sample"),
        ("infer --use_hf maybe", "--use_hf maybe"),
        ("export --adapters a --device_map cpu", "which has no --device"),
    ],
)
def test_options_that_do_not_apply_are_refused_by_name(line, message):
    with pytest.raises(ArgumentError, match=message):
        translate(line)


ENTRIES = [(command, name, entry) for command, table in TABLES.items() for name, entry in table.items()]


@pytest.mark.parametrize(("command", "name", "entry"), ENTRIES, ids=[f"{c} {n}" for c, n, _ in ENTRIES])
def test_every_entry_does_what_its_kind_says(command, name, entry, caplog):
    options = own_options(command)
    if isinstance(entry, Rename) and entry.option in options:
        translated, given_as = translate_options(command, [f"--{name}", "x"], options)
        assert translated == [f"--{entry.option}", "x"]
        assert given_as == {entry.option: name}
    elif isinstance(entry, (Rename, Refuse)):
        with pytest.raises(ArgumentError, match=f"--{name} does not apply"):
            translate_options(command, [f"--{name}", "x"], options)
    elif isinstance(entry, Ignore):
        with caplog.at_level(logging.INFO):
            assert translate_options(command, [f"--{name}", "x"], options) == ([], {})
        assert f"--{name} is ignored: {entry.reason}" in caplog.text
    elif isinstance(entry, Values):
        with pytest.raises(ArgumentError, match=f"--{name} no-such-value: .*accepted: "):
            translate_options(command, [f"--{name}", "no-such-value"], options)
    assert "  " not in getattr(entry, "reason", "")


def test_no_entry_hides_an_option_of_our_own():
    """But those whose values are converted and may be given as they are."""
    for command, name, entry in ENTRIES:
        if name in own_options(command):
            assert name in ("model_type", "temperature"), (command, name, entry)


@pytest.mark.parametrize("prefix", REFUSED_PREFIXES)
@pytest.mark.parametrize("command", TABLES)
def test_families_of_options_are_refused(command, prefix):
    with pytest.raises(ArgumentError, match=f"--{prefix}x does not apply: {REFUSED_PREFIXES[prefix]}"):
        translate(f"{command} --{prefix}x 1")


@pytest.mark.parametrize("command", REFUSED_COMMANDS)
def test_other_commands_of_ms_swift_are_not_offered(command, capsys):
    with pytest.raises(SystemExit) as status:
        main([command, "--model", "x"])
    assert status.value.code == 2
    assert f"the command {command} is not offered: {REFUSED_COMMANDS[command]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sft", "--per_device_train_batch_size", "x"], "--per_device_train_batch_size: invalid int value: 'x'"),
        (["sft", "--per_device_train_batch_size", "0"], "--per_device_train_batch_size must be at least 1, got 0"),
        (["infer", "--max_batch_size", "0"], "--max_batch_size: must be at least 1, got 0"),
        (["sft", "--model", "", "--dataset", "scenes:1"], "--model: got ''"),
        (["sft", "--system", "x"], "--system does not apply: Florence-2 has one template"),
    ],
)
def test_messages_have_the_name_that_was_given(arguments, message, capsys):
    with suppress(SystemExit):  # for arguments that argparse refuses
        assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_only_whole_names_are_replaced():
    message = "--batch_size 0, --batch_size_limit"
    assert name_as_given(message, {"batch_size": "max_batch_size"}) == "--max_batch_size 0, --batch_size_limit"
    assert name_as_given(message, None) == message


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "--train_type lora --target_modules all-linear --lora_rank 4 --lora_alpha 8 --freeze_vit true",
        "--tuner_type full --freeze_vit true --freeze_aligner false --freeze_llm false",
        "--tuner_type lora --use_dora true --use_rslora true --modules_to_save multi_modal_projector",
    ],
)
def test_a_script_of_ms_swift_trains_merges_and_answers(options, tmp_path, capsys):
    """The shape of the scripts in its documentation, with `florence-lab` in place of `swift`."""
    script = f"""
        sft --model florence-2-nano --model_type florence --dataset scenes:4 {options}
        --torch_dtype float32 --num_train_epochs 1 --max_steps 2 --per_device_train_batch_size 1
        --per_device_eval_batch_size 1 --learning_rate 1e-2 --gradient_accumulation_steps 1 --eval_steps 1 --save_steps 1
        --save_total_limit 2 --logging_steps 1 --max_length 512 --output_dir {tmp_path} --warmup_ratio 0.05
        --dataloader_num_workers 0 --dataset_num_proc 1 --attn_impl sdpa --device_map cpu --use_hf true
    """
    assert main(script.split()) == 0
    checkpoint = capsys.readouterr().out.splitlines()[-1]
    is_adapter = "full" not in options
    if is_adapter:
        export = f"export --adapters {checkpoint} --merge_lora true --output_dir {tmp_path}/merged"
        assert main(export.split()) == 0
        assert capsys.readouterr().out == f"{tmp_path}/merged\n"
    name = "--adapters" if is_adapter else "--model"
    answer = f"infer {name} {checkpoint} --infer_backend pt --temperature 0 --max_new_tokens 8 --stream false"
    assert main([*answer.split(), "--query", "<OD>", "--images", str(sample("sheep"))]) == 0
    found = capsys.readouterr().out
    if is_adapter:
        merged = answer.replace(f"{name} {checkpoint}", f"--model {tmp_path}/merged").split()
        assert main([*merged, "--query", "<OD>", "--images", str(sample("sheep"))]) == 0
        assert capsys.readouterr().out == found


def sample(name):
    from florence_lab.scenes import sample_path

    return sample_path(name)


@pytest.mark.slow
def test_a_script_of_ms_swift_writes_answers_to_its_file(tmp_path, capsys):
    path = tmp_path / "results" / "answers of nano.jsonl"
    script = ["infer", "--model", "florence-2-nano", "--val_dataset", "scenes:1", "--result_path", str(path)]
    assert main([*script, "--max_new_tokens", "8", "--temperature", "0", "--max_batch_size", "4"]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    assert len(path.read_text().splitlines()) > 5
    assert path.with_suffix(".settings.json").exists()


@pytest.mark.parametrize(
    "options", [["--result_path", "a.jsonl", "--result_dir", "x"], ["--result_path", "a.txt"], ["--result_path", "."]]
)
def test_a_file_of_answers_is_a_jsonl_file(options, capsys):
    assert main(["infer", "--val_dataset", "scenes:1", *options]) == 2
    assert "--result_path" in capsys.readouterr().err
