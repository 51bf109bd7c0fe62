"""Command lines that cannot be carried out: each ends with exit status 2 and one line that names the argument and its value."""

import json
import os

import pytest
from support import UNREACHABLE

from florence_lab.cli import main
from florence_lab.cli.commands import COMMANDS
from florence_lab.scenes import sample_path

IMAGE = str(sample_path("sheep"))
ASK = ["infer", "--query", "<CAPTION>", "--images", IMAGE]
REGION = ["infer", "--query", "<REGION_TO_OCR>", "--images", IMAGE, "--region"]
EVAL = ["eval", "--dataset", "scenes:1"]
SFT = ["sft", "--dataset", "scenes:2"]
LONG = "x" * 5000

# Command line (FILE is an existing file, DIR a folder) -> what the message contains. No model is loaded.
REFUSED = [
    # words that no command understands
    ([], "COMMAND"),
    (["inferr"], "inferr"),
    (["models", "more"], "unrecognized arguments: more"),
    (["infer", "more"], "unrecognized arguments: more"),
    (["infer", "--no_such_option", "1"], "--no_such_option"),
    (["infer", "--max_new_tokens"], "--max_new_tokens: expected one argument"),
    # shell variables that are not set
    *(
        ([*command, option, value], f"argument {option}: got {value!r}; is it a shell variable that is not set?")
        for value in ("", " ")
        for command, option in (
            (ASK, "--ckpt_dir"),
            (ASK, "--model_id_or_path"),
            (ASK, "--model_type"),
            (ASK, "--processor"),
            (ASK, "--device"),
            (ASK, "--dtype"),
            (ASK, "--overlay"),
            (ASK, "--result_dir"),
            (ASK, "--batch_size"),
            (["infer"], "--query"),
            (["infer", "--query", "<OD>"], "--images"),
            (["infer", "--result_dir", "DIR"], "--val_dataset"),
            (["eval"], "--dataset"),
            (EVAL, "--tasks"),
            (EVAL, "--out"),
            (["scenes"], "--out"),
            (["demo"], "--out"),
            (["explore"], "--model_type"),
            (["export"], "--ckpt_dir"),
            (["export", "--ckpt_dir", "DIR"], "--output_dir"),
            (["benchmark"], "--model_type"),
            (["benchmark"], "--json"),
            (["sft"], "--dataset"),
            (SFT, "--model_id_or_path"),
            (SFT, "--resume_from_checkpoint"),
            (["pretrain"], "--out"),
            (["pretrain"], "--init_from"),
        )
    ),
    (["infer", "--ckpt_dir="], "argument --ckpt_dir: got ''"),
    ([""], "got ''"),
    # null bytes and bytes that are not UTF-8
    ([*ASK, "--overlay", "a\0b"], "'a\\x00b' contains a null byte"),
    (["scenes", "--out", "a\0b"], "'a\\x00b' contains a null byte"),
    (["infer", "--query", "\udcff", "--images", IMAGE], "'\\udcff' contains a lone surrogate"),
    (["infer", "--query", "<CAPTION_TO_PHRASE_GROUNDING>\udcff", "--images", IMAGE], "lone surrogate"),
    ([*EVAL, "--tasks", "\udcff"], "\\udcff"),
    ([*ASK, "--model_type", "\udcff"], "\\udcff"),
    # numbers
    ([*ASK, "--num_beams", "0"], "argument --num_beams: must be at least 1 and at most 1,000, got 0"),
    ([*ASK, "--num_beams", "100000000"], "argument --num_beams: must be at least 1 and at most 1,000, got 100000000"),
    ([*ASK, "--num_beams", "2.5"], "argument --num_beams: expected a whole number, got '2.5'"),
    ([*ASK, "--max_new_tokens", "0"], "argument --max_new_tokens: must be at least 1, got 0"),
    ([*ASK, "--max_new_tokens", "1e3"], "argument --max_new_tokens: expected a whole number, got '1e3'"),
    ([*ASK, "--max_new_tokens", "9" * 5000], "argument --max_new_tokens: expected a whole number, got '999"),
    ([*ASK, "--temperature", "inf"], "argument --temperature: must be finite, got inf"),
    ([*ASK, "--temperature", "nan"], "argument --temperature: must be finite, got nan"),
    ([*ASK, "--temperature", "-0.5"], "argument --temperature: must be greater than 0, got -0.5"),
    ([*ASK, "--top_p", "2"], "argument --top_p: must be greater than 0 and at most 1, got 2"),
    ([*ASK, "--top_p", "x"], "argument --top_p: expected a number, got 'x'"),
    ([*ASK, "--top_k", "-1"], "argument --top_k: must be at least 0, got -1"),
    ([*ASK, "--seed", "-1"], "argument --seed: must be at least 0"),
    ([*ASK, "--seed", str(2**32)], "argument --seed: must be at least 0"),
    ([*ASK, "--batch_size", "0"], "argument --batch_size: must be at least 1, got 0"),
    ([*ASK, "--stream", "true", "--num_beams", "2"], "num_beams=1 only, got 2"),
    ([*ASK, "--do_sample", "maybe"], "argument --do_sample: expected true or false, got 'maybe'"),
    ([*ASK, "--compile", "maybe"], "argument --compile: expected true or false, got 'maybe'"),
    ([*ASK, "--recursive", "maybe"], "argument --recursive: expected true or false, got 'maybe'"),
    *(([*ASK, "--every", value], "argument --every: expected") for value in ("0", "-1s", "1h", "nan", "9" * 400)),
    ([*EVAL, "--batch_size", "0"], "argument --batch_size: must be at least 1, got 0"),
    ([*EVAL, "--batch_size", "-1"], "argument --batch_size: must be at least 1, got -1"),
    ([*EVAL, "--num_beams", "0"], "argument --num_beams: must be at least 1"),
    (["scenes", "--out", "DIR", "--size", "0"], "argument --size: must be at least 1, got 0"),
    (["scenes", "--out", "DIR", "--size", "x"], "argument --size: expected a whole number, got 'x'"),
    (["scenes", "--out", "DIR", "--size", "1"], "size 1 is too small"),
    (["scenes", "--out", "DIR", "--size", "1000000"], "size 1000000 is too large"),
    (["scenes", "--out", "DIR", "--count", "0"], "argument --count: must be at least 1, got 0"),
    (["scenes", "--out", "DIR", "--count", "-3"], "argument --count: must be at least 1, got -3"),
    (["scenes", "--out", "DIR", "--count", "9999999999999"], "--count must be 1 to"),
    (["explore", "--port", "99999"], "argument --port: must be at least 0 and at most 65,535, got 99999"),
    (["explore", "--port", "-1"], "argument --port: must be at least 0"),
    (["benchmark", "--repeats", "0"], "argument --repeats: must be at least 1, got 0"),
    (
        ["benchmark", "--time_limit", "soon"],
        "argument --time_limit: expected a time such as 1s, 500ms or 2, got 'soon'",
    ),
    (["benchmark", "--rows", "one anser"], "unknown row 'one anser'; did you mean 'one answer'?"),
    # devices, formats, models
    ([*ASK, "--device", "abacus"], "'abacus'"),
    ([*ASK, "--device", "meta"], "'meta'"),
    ([*ASK, "--device", "hpu"], "'hpu'"),
    ([*ASK, "--device", "-1"], "'-1'"),
    ([*ASK, "--dtype", "int8"], "'int8'"),
    ([*ASK, "--hub", "nowhere"], "'nowhere'"),
    ([*ASK, "--model_type", "florence-2-larg"], "did you mean 'florence-2-large'?"),
    ([*ASK, "--model_type", "a/b/c/d"], "a/b/c/d"),
    ([*ASK, "--ckpt_dir", "/no/such/folder"], "/no/such/folder does not exist"),
    ([*ASK, "--ckpt_dir", "FILE"], "FILE"),
    ([*ASK, "--ckpt_dir", "DIR"], "DIR"),
    (["export", "--ckpt_dir", "/no/such/folder"], "/no/such/folder"),
    (["export", "--ckpt_dir", "DIR"], "DIR"),
    (["export", "--ckpt_dir", "DIR", "--merge_lora", "false"], "--merge_lora false"),
    (["benchmark", "--against", "jax"], "argument --against: invalid choice: 'jax'"),
    (["benchmark", "--device", "abacus"], "'abacus'"),
    (["demo", "--model_type", "nope"], "'nope'"),
    (["pretrain", "--dtype", "int8"], "int8"),
    ([*SFT, "--dtype", "int8"], "int8"),
    # queries and regions
    (["infer", "--query", "<OD>"], "--query and --images must be given together"),
    (["infer", "--images", IMAGE], "--query and --images must be given together"),
    (["infer", "--query", "<ODD>", "--images", IMAGE], "unknown task '<ODD>'; did you mean '<OD>'?"),
    (["infer", "--query", "<OD>cats", "--images", IMAGE], "<OD> takes no input, but got 'cats'"),
    (["infer", "--query", "<REGION_TO_OCR>", "--images", IMAGE], "<REGION_TO_OCR> needs a region"),
    (["infer", "--query", "is <image> good", "--images", IMAGE], "<image>"),
    ([*REGION, "1", "2", "3"], "argument --region: expected 4 arguments"),
    ([*REGION, "a", "2", "3", "4"], "argument --region: invalid float value: 'a'"),
    ([*REGION, "nan", "2", "3", "4"], "(nan, 2, 3, 4)"),
    ([*REGION, "0.1", "0.2", "0.3", "0.4"], "norm_1"),
    ([*REGION, "30", "20", "3", "4"], "(30, 20, 3, 4)"),
    ([*REGION, "1", "2", "3", "4", "--region_format", "norm_1"], "(1, 2, 3, 4)"),
    ([*REGION, "1", "2", "3", "4", "--region_format", "yolo"], "argument --region_format: invalid choice: 'yolo'"),
    ([*ASK, "--region", "1", "2", "3", "4"], "<CAPTION> takes no input"),
    (["infer", "--region", "1", "2", "3", "4"], "--region needs --query and --images"),
    # output
    ([*ASK, "--overlay", "FILE"], "--overlay 'FILE' is not a folder that can be written to"),
    ([*ASK, "--overlay", "FILE/below"], "--overlay 'FILE/below' is not a folder that can be written to"),
    ([*ASK, "--overlay", LONG], "File name too long"),
    ([*ASK, "--result_dir", "FILE"], "--result_dir 'FILE' is not a folder that can be written to"),
    ([*ASK, "--result_dir", "/proc/new"], "--result_dir '/proc/new' is not a folder that can be written to"),
    ([*ASK, "--result_dir", "OF_A_DATASET"], "OF_A_DATASET has the answers to a dataset"),
    ([*EVAL, "--out", "FILE"], "--out 'FILE' is not a folder that can be written to"),
    (["demo", "--out", "FILE"], "--out 'FILE' is not a folder that can be written to"),
    (["scenes", "--out", "FILE"], "--out 'FILE' is not a folder that can be written to"),
    (["pretrain", "--out", "FILE"], "--out 'FILE' is not a folder that can be written to"),
    ([*SFT, "--output_dir", "FILE"], "--output_dir 'FILE' is not a folder that can be written to"),
    (["benchmark", "--json", "/proc/x/y.json"], "--json '/proc/x' is not a folder that can be written to"),
    (["benchmark", "--json", "DIR"], "--json 'DIR' is a folder; give the name of a file"),
    (["infer", "--query", "<OD>", "--images", IMAGE, "--caption_files"], "--caption_files needs a query"),
    (["infer", "--caption_files"], "--caption_files needs --query and --images"),
    (
        ["infer", "--caption_files", "--query", "<CAPTION>", "--images", f"{UNREACHABLE}/a.png"],
        f"{UNREACHABLE}/a.png is a URL or a frame of a video",
    ),
    # datasets
    (["infer", "--val_dataset", "scenes:1"], "--val_dataset needs --result_dir"),
    (["infer", "--val_dataset", "scenes:0", "--result_dir", "DIR"], "scenes:0"),
    (["infer", "--val_dataset", "nowhere.jsonl", "--result_dir", "DIR"], "nowhere.jsonl"),
    (["infer", "--val_dataset", "scenes:1", "--result_dir", "FILE"], "--result_dir 'FILE' is not a folder"),
    (["infer", "--val_dataset", "scenes:1", "--result_dir", "JUNK"], "JUNK/answers.jsonl, line 1"),
    *(
        (["infer", "--val_dataset", "scenes:1", "--result_dir", "DIR", *more], f"combined with {more[0]}")
        for more in (
            ["--query", "<OD>"],
            ["--images", IMAGE],
            ["--stream", "true"],
            ["--overlay", "DIR"],
            ["--caption_files"],
            ["--recursive"],
            ["--region", "1", "2", "3", "4"],
        )
    ),
    (["eval", "--dataset", "nope"], "'nope'"),
    (["eval", "--dataset", "scenes:x"], "scenes:x"),
    (["eval", "--dataset", "scenes:99999999999"], "scenes:99999999999"),
    (["eval", "--dataset", "scenes:1#0"], "scenes:1#0"),
    (["eval", "--dataset", "/dev/null"], "/dev/null"),
    ([*EVAL, "--tasks"], "argument --tasks: expected at least one argument"),
    ([*EVAL, "--tasks", "ODD"], "unknown task '<ODD>'"),
    (["sft"], "dataset"),
    (["sft", "--dataset", "nope"], "'nope'"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with what the table names."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "FILE").write_bytes(b"\xff\xfe\0\0")
    for name in ("DIR", "JUNK", "OF_A_DATASET"):
        (folder / name).mkdir()
    (folder / "JUNK/answers.jsonl").write_text("junk\n")
    (folder / "OF_A_DATASET/answers.settings.json").write_text(json.dumps({"model": "a"}))
    return folder


def show(value):
    return " ".join(word if len(word) < 40 else f"{word[:40]}..." for word in value) if isinstance(value, list) else ""


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=show)
def test_a_command_that_cannot_be_carried_out_is_refused_in_one_line(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    try:
        status = main(arguments)
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("florence-lab: ")
    assert message in err
    assert err.count("\n") == 1
    assert "internal error" not in err
    assert sorted(os.listdir("DIR")) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_word_that_is_not_an_option_is_refused_by_every_command(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main([command, "--no_such_option=1"])
    assert exit.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
