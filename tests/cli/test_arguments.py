"""Options from dataclasses, and the options that commands share."""

import argparse
import dataclasses
from typing import Literal

import pytest

from florence_lab.cli.arguments import (
    add_checkpoint_arguments,
    add_dataclass_arguments,
    add_model_arguments,
    generate_kwargs,
    load_predictor,
    parse_bool,
    to_dataclass,
)
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.pretraining.arguments import PretrainArguments


@dataclasses.dataclass(frozen=True)
class Options:
    name: str = dataclasses.field(default="a", metadata={"help": "a name"})
    rate: float | None = dataclasses.field(default=None, metadata={"help": "5% of it"})
    flag: bool = dataclasses.field(default=False, metadata={"help": "a flag"})
    maybe: bool | None = dataclasses.field(default=None, metadata={"help": "unset by default"})
    kind: Literal["x", "y"] = dataclasses.field(default="x", metadata={"help": "a literal"})
    dtype: str = dataclasses.field(default="auto", metadata={"help": "choices", "choices": ("auto", "fp32")})
    files: tuple[str, ...] = dataclasses.field(default=(), metadata={"help": "files"})
    sizes: tuple[int, ...] = dataclasses.field(default=(1, 2), metadata={"help": "sizes"})


def parse(cls, *arguments):
    parser = argparse.ArgumentParser()
    add_dataclass_arguments(parser, cls)
    return to_dataclass(parser.parse_args(arguments), cls)


@pytest.mark.parametrize("cls", [Options, SftArguments, PretrainArguments])
def test_without_options_a_dataclass_has_its_defaults(cls):
    assert parse(cls) == cls()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--name", "b"], {"name": "b"}),
        (["--rate", "1e-4"], {"rate": 1e-4}),
        (["--flag", "False"], {"flag": False}),
        (["--flag", "1"], {"flag": True}),
        (["--maybe", "no"], {"maybe": False}),
        (["--kind", "y"], {"kind": "y"}),
        (["--dtype", "fp32"], {"dtype": "fp32"}),
        (["--files", "a.jsonl", "b.jsonl"], {"files": ("a.jsonl", "b.jsonl")}),
        (["--sizes", "3"], {"sizes": (3,)}),
    ],
)
def test_an_option_is_converted_to_the_type_of_its_field(arguments, expected):
    assert parse(Options, *arguments) == dataclasses.replace(Options(), **expected)


@pytest.mark.parametrize(
    "arguments", [["--kind", "z"], ["--dtype", "z"], ["--rate", "z"], ["--flag", "z"], ["--files"]]
)
def test_a_value_of_another_type_or_choice_is_rejected(arguments, capsys):
    with pytest.raises(SystemExit):
        parse(Options, *arguments)
    assert f"argument {arguments[0]}" in capsys.readouterr().err


def test_help_shows_the_text_the_choices_and_the_default_of_each_field(capsys):
    with pytest.raises(SystemExit):
        parse(Options, "--help")
    text = " ".join(capsys.readouterr().out.split())
    for part in ("a name (default: a)", "5% of it", "{x,y}", "{auto,fp32}", "INT [INT ...]", "sizes (default: 1 2)"):
        assert part in text
    assert "5% of it (default" not in text


def test_the_options_of_sft_keep_their_spelling():
    arguments = parse(
        SftArguments, "--dataset", "a.jsonl", "coco:b.json", "--freeze_vision", "true", "--sft_type", "full"
    )
    assert arguments.dataset == ("a.jsonl", "coco:b.json")
    assert arguments.freeze_vision is True
    assert arguments.sft_type == "full"


@pytest.mark.parametrize(
    ("text", "value"), [("True", True), ("yes", True), ("1", True), ("FALSE", False), ("no", False)]
)
def test_booleans_are_spelled_in_several_ways(text, value):
    assert parse_bool(text) is value


@pytest.mark.parametrize(
    ("arguments", "model", "base", "processor"),
    [
        ([], "florence-2-nano", None, None),
        (["--model_type", "florence-2-base"], "florence-2-base", None, None),
        (["--ckpt_dir", "run/checkpoint-5"], "run/checkpoint-5", None, None),
        (["--model_type", "florence-2-base", "--model_id_or_path", "org/name"], "org/name", None, None),
        (["--ckpt_dir", "adapter", "--model_id_or_path", "org/base"], "adapter", "org/base", None),
        (["--ckpt_dir", "weights", "--processor", "florence-2-base"], "weights", None, "florence-2-base"),
    ],
)
def test_a_checkpoint_is_loaded_in_place_of_the_model_type(monkeypatch, arguments, model, base, processor):
    monkeypatch.setattr("florence_lab.predictor.load", lambda *values, **options: (values, options))
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    add_checkpoint_arguments(parser)
    options = ["--device", "cpu", "--dtype", "bf16", "--hub", "hf", "--compile", "true"]
    values, named = load_predictor(parser.parse_args([*arguments, *options]))
    assert values == (model, "cpu", "bf16", "hf", True)
    assert (named.get("base"), named.get("processor")) == (base, processor)


def test_only_generation_options_that_were_given_are_passed_on():
    arguments = argparse.Namespace(num_beams=1, do_sample=False, top_k=None)
    assert generate_kwargs(arguments, ["num_beams", "do_sample", "top_k"]) == {"num_beams": 1, "do_sample": False}
