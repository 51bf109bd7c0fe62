"""Situations that people report, in plain words: what they do, and what has to come of it."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import PHOTO, copy_of_tiny, edit_json

import florence_lab
from florence_lab import ArgumentError, CheckpointError, DatasetError, ImageError, PromptError, SftArguments
from florence_lab.cli import main
from florence_lab.data.datasets import load_examples
from florence_lab.data.validation import RowValidator
from florence_lab.loading.checkpoint import load_checkpoint
from florence_lab.loading.registry import MODELS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::florence_lab.exceptions.FlorenceLabWarning"),
]


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of the small checkpoint, in the published layout."""
    folder = copy_of_tiny(tmp_path / "checkpoint")
    edit_json(folder / "preprocessor_config.json", size={"height": 192, "width": 192}, image_seq_length=37)
    return folder


@pytest.fixture
def images(tmp_path):
    """A folder with two images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (100, 80), color).save(folder / name)
    return folder


def run(*arguments):
    """Run the command line and return its exit code."""
    try:
        return main([str(argument) for argument in arguments]) or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2


def load_rows(path, **validation):
    """Return the examples and errors of a dataset, for a model of 192 x 192 pixels."""
    validator = RowValidator(florence_lab.FlorenceTemplate(_tokenizer()), **validation)
    return load_examples([str(path)], validator)


def _tokenizer():
    return load_checkpoint(MODELS["florence-2-nano"].path)[1].tokenizer


# ---------------------------------------------------------------- regions and answers


@pytest.mark.parametrize(
    ("region", "region_format"),
    [
        ((10, 20, 90, 60), "xyxy"),
        ((10, 20, 80, 40), "xywh"),
        ((0.1, 0.25, 0.9, 0.75), "norm_1"),
        ((100, 250, 900, 750), "norm_1000"),
    ],
)
def test_a_region_is_given_in_four_units(small, images, region, region_format):
    prompt = small.build_prompt((100, 80), "<REGION_TO_CATEGORY>", region, region_format)
    assert prompt.text == "<loc_100><loc_250><loc_900><loc_750>"


def test_a_region_of_four_numbers_below_one_is_refused_in_pixels(small, images):
    with pytest.raises(PromptError, match="norm_1"):
        small.predict(images / "a.png", "<REGION_TO_CATEGORY>", (0.1, 0.2, 0.5, 0.6))


def test_a_region_that_rounding_moved_one_pixel_out_of_the_image_is_clipped(small):
    text = small.build_prompt((100, 80), "<REGION_TO_CATEGORY>", (-0.5, 0, 100.7, 80.9)).text
    assert text == "<loc_0><loc_0><loc_999><loc_999>"


def test_an_answer_that_reached_the_limit_is_truncated(small, images):
    with pytest.warns(florence_lab.FlorenceLabWarning, match="truncated"):
        assert small.predict(images / "a.png", "<OD>", max_new_tokens=2).truncated


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "8", None, True])
def test_a_batch_size_that_means_nothing_is_refused(small, images, batch_size):
    for call in (
        lambda: small.predict_batch(images, "<CAPTION>", batch_size=batch_size),
        lambda: small.predict_tasks(images / "a.png", ["<OD>"], batch_size=batch_size),
        lambda: florence_lab.evaluate(small, [], batch_size),
    ):
        with pytest.raises(ArgumentError, match="batch_size"):
            call()


def test_one_image_in_place_of_a_list_is_one_image(small, images):
    image = Image.open(images / "a.png")
    assert [
        len(small.predict_batch(source, "<CAPTION>", max_new_tokens=2)) for source in (image, np.asarray(image))
    ] == [
        1,
        1,
    ]


def test_a_broken_image_between_others_does_not_lose_their_answers(small, images):
    sources = [images / "a.png", torch.zeros(3, 9, 9, device="meta"), Image.new("RGB", (0, 0)), images / "b.png"]
    answers = small.predict_batch(sources, "<CAPTION>", max_new_tokens=2)
    assert [isinstance(answer, ImageError) for answer in answers] == [False, True, True, False]


def test_half_a_character_in_a_question_is_refused(small, images):
    with pytest.raises(PromptError, match="surrogate"):
        small.predict(images / "a.png", "what is \ud800 this?")


# ---------------------------------------------------------------- checkpoints and adapters


def published_adapter(folder, base):
    """Write a LoRA adapter of all query projections in the names of the published modelling code."""
    published = load_file(base / "model.safetensors")
    names = [name for name in published if "language_model" in name and name.endswith("q_proj.weight")]
    generator, tensors = torch.Generator().manual_seed(1), {}
    for name in names:
        out_features, in_features = published[name].shape
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{stem}.lora_A.weight"] = torch.randn(2, in_features, generator=generator)
        tensors[f"{stem}.lora_B.weight"] = torch.randn(out_features, 2, generator=generator)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 32, "target_modules": ["q_proj"]}
    content = settings | {"base_model_name_or_path": str(base), "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return folder


def test_an_adapter_in_the_published_names_changes_the_answers(checkpoint, tmp_path):
    adapter = published_adapter(tmp_path / "adapter", checkpoint)
    question = {"image": PHOTO, "task": "<OD>", "max_new_tokens": 30}
    base, adapted = (
        florence_lab.load(folder, device="cpu").predict(**question).raw for folder in (checkpoint, adapter)
    )
    assert adapted != base


def test_an_adapter_with_weights_that_find_no_place_is_refused(checkpoint, tmp_path):
    adapter = published_adapter(tmp_path / "adapter", checkpoint)
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({f"x.{name}": tensor for name, tensor in tensors.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError):
        florence_lab.load(adapter, device="cpu")


def test_the_base_of_an_adapter_of_another_machine_is_given(checkpoint, tmp_path):
    adapter = published_adapter(tmp_path / "adapter", checkpoint)
    edit_json(adapter / "adapter_config.json", base_model_name_or_path="/home/someone/else")
    with pytest.raises(florence_lab.FlorenceLabError, match="base"):
        florence_lab.load(adapter, device="cpu")
    assert florence_lab.load(adapter, device="cpu", base=checkpoint).model is not None


def test_an_adapter_of_itself_is_refused(checkpoint, tmp_path):
    adapter = published_adapter(tmp_path / "adapter", checkpoint)
    edit_json(adapter / "adapter_config.json", base_model_name_or_path=str(adapter))
    with pytest.raises(CheckpointError, match="adapter"):
        florence_lab.load(adapter, device="cpu")


def weights_only(source, folder):
    """Copy weights and config, as `Trainer.save_model` leaves them."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, folder / name)
    return folder


def test_a_folder_of_weights_and_config_takes_another_processor(checkpoint, tmp_path, unreachable_hubs):
    folder = weights_only(checkpoint, tmp_path / "weights")
    with pytest.raises(CheckpointError, match="processor="):
        florence_lab.load(folder, device="cpu")
    predictor = florence_lab.load(folder, device="cpu", processor=checkpoint)
    assert predictor.predict(PHOTO, "<CAPTION>", max_new_tokens=5).raw is not None


def test_a_folder_of_weights_and_config_takes_the_processor_of_the_matching_model(tmp_path, unreachable_hubs):
    folder = weights_only(MODELS["florence-2-nano"].path, tmp_path / "weights")
    answers = [florence_lab.load(name, device="cpu").predict(PHOTO, "<OD>").raw for name in (folder, "florence-2-nano")]
    assert answers[0] == answers[1]


def test_a_short_generation_config_is_completed(checkpoint):
    (checkpoint / "generation_config.json").write_text('{"num_beams": 3, "early_stopping": false}')
    assert florence_lab.load(checkpoint, device="cpu").predict(PHOTO, "<OD>", max_new_tokens=5).raw is not None


def test_a_quantized_checkpoint_is_refused_with_its_method(checkpoint):
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True, "_load_in_4bit": True}
    edit_json(checkpoint / "config.json", quantization_config=settings)
    with pytest.raises(CheckpointError, match=r"(?s)bitsandbytes.*4|4.*bitsandbytes"):
        florence_lab.load(checkpoint, device="cpu")


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        ("preprocessor_config.json", {"size": {"height": 1024, "width": 1024}}, "size"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "image_mean"),
        ("generation_config.json", {"num_beams": 0}, "num_beams"),
        ("generation_config.json", {"decoder_start_token_id": 99999}, "decoder_start_token_id"),
    ],
)
def test_a_wrong_setting_is_refused_at_load_with_its_name(checkpoint, file, changes, named):
    edit_json(checkpoint / file, **changes)
    with pytest.raises(CheckpointError, match=named):
        florence_lab.load(checkpoint, device="cpu")


# ---------------------------------------------------------------- training files


ROW = {"images": ["a.png"], "query": "<OD>", "response": "cat<loc_1><loc_2><loc_300><loc_400>"}
MESSAGES = {
    "messages": [
        {"role": "user", "content": "<image><OD>"},
        {"role": "assistant", "content": "cat<loc_1><loc_2><loc_300><loc_400>"},
    ],
    "images": ["a.png"],
}
LLAVA = {
    "image": "a.png",
    "conversations": [{"from": "human", "value": "<image>\n<CAPTION>"}, {"from": "gpt", "value": "a red square"}],
}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("row", [ROW, MESSAGES, LLAVA], ids=["ms-swift 2", "ms-swift 3", "LLaVA"])
def test_rows_of_other_programs_are_read(images, row):
    examples = load_rows(write_lines(images / "rows.jsonl", [row])).require_valid()
    assert [example.prompt.task.token for example in examples] in (["<OD>"], ["<CAPTION>"])


def test_a_csv_file_is_read(images):
    text = io.StringIO()
    csv.writer(text).writerows([["image", "prefix", "suffix"], ["a.png", "<CAPTION>", "a red square"]])
    (images / "rows.csv").write_text(text.getvalue())
    (example,) = load_rows(images / "rows.csv").require_valid()
    assert example.target == "a red square"


def test_a_yolo_folder_is_read(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / "data" / part / "train").mkdir(parents=True)
    Image.new("RGB", (100, 80)).save(tmp_path / "data/images/train/a.png")
    (tmp_path / "data/labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.5\n")
    (tmp_path / "data/data.yaml").write_text("train: images/train\nval: images/train\nnames: [cat]\n")
    (example,) = load_rows(f"yolo:{tmp_path / 'data'}").require_valid()
    assert example.target == "cat<loc_400><loc_250><loc_600><loc_750>"


@pytest.mark.parametrize(
    "response",
    [
        "cat<loc_0010><loc_2><loc_3><loc_4>",
        "cat<loc_1><loc_2><loc_3><loc_1000>",
        "cat<loc_1><loc_2><loc_3>",
        "cat 1 2 3 4",
        "cat<loc_300><loc_2><loc_1><loc_4>",
        "cat\ud800<loc_1><loc_2><loc_3><loc_4>",
    ],
)
def test_a_target_that_is_no_whole_answer_is_a_row_error(images, response):
    loaded = load_rows(write_lines(images / "rows.jsonl", [ROW, ROW | {"response": response}]))
    with pytest.raises(DatasetError, match=r"rows.jsonl, (row|line) 2"):
        loaded.require_valid()


def test_a_null_answer_teaches_absence_and_a_list_is_a_row_each(images):
    rows = [ROW | {"response": None}, {"image": "a.png", "prefix": "what?", "suffix": ["a", "b"]}]
    examples = load_rows(write_lines(images / "rows.jsonl", rows)).require_valid()
    assert [example.target for example in examples] == ["", "a", "b"]


def test_a_latin_1_line_is_a_row_error_and_the_others_are_read(images):
    lines = [json.dumps(ROW).encode(), '{"images": ["a.png"], "query": "<CAPTION>", "response": "é"}'.encode("latin-1")]
    (images / "rows.jsonl").write_bytes(b"\n".join(lines))
    loaded = load_rows(images / "rows.jsonl")
    assert len(loaded.examples) == 1
    assert len(loaded.errors) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_the_encoding_of_a_file_is_recognised(images, encoding):
    (images / "rows.jsonl").write_text(json.dumps(ROW), encoding=encoding)
    assert len(load_rows(images / "rows.jsonl").require_valid()) == 1


def test_a_line_separator_within_an_answer_does_not_end_its_row(images):
    row = ROW | {"query": "<CAPTION>", "response": "a\u2028b"}
    (images / "rows.jsonl").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert len(load_rows(images / "rows.jsonl").require_valid()) == 1


# ---------------------------------------------------------------- training runs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", float("inf")),
        ("learning_rate", 0),
        ("weight_decay", float("nan")),
        ("num_train_epochs", 0),
        ("batch_size", 0),
        ("lora_dropout", -1),
        ("save_total_limit", 0),
        ("eval_steps", -1),
        ("max_grad_norm", float("nan")),
    ],
)
def test_a_number_that_means_nothing_is_refused_before_training(name, value):
    with pytest.raises(ArgumentError, match=name):
        SftArguments(**{name: value})


def test_a_finished_run_that_is_resumed_returns_its_checkpoint(checkpoint, images, tmp_path):
    rows = write_lines(images / "rows.jsonl", [ROW] * 4)
    settings = {
        "model_id_or_path": str(checkpoint),
        "dataset": (str(rows),),
        "output_dir": str(tmp_path / "out"),
        "max_steps": 2,
        "batch_size": 1,
        "eval_steps": 1,
        "device": "cpu",
        "dataloader_num_workers": 0,
    }
    first = florence_lab.sft(SftArguments(**settings))
    files = {path.name: path.stat().st_mtime_ns for path in Path(first).iterdir()}
    again = florence_lab.sft(SftArguments(**settings, resume_from_checkpoint="true"))
    assert Path(again) == Path(first)
    assert {path.name: path.stat().st_mtime_ns for path in Path(first).iterdir()} == files


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize("option", ["--ckpt_dir", "--model_id_or_path"])
def test_an_unset_shell_variable_is_no_model(images, capsys, option):
    assert run("infer", option, "", "--images", images / "a.png", "--query", "<CAPTION>") != 0
    assert option in capsys.readouterr().err


def test_a_batch_size_of_zero_does_not_overwrite_results(checkpoint, images, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "metrics.json").write_text("{}")
    rows = write_lines(images / "rows.jsonl", [ROW])
    assert run("eval", "--model_id_or_path", checkpoint, "--dataset", rows, "--out", out, "--batch_size", 0) != 0
    assert "batch_size" in capsys.readouterr().err
    assert (out / "metrics.json").read_text() == "{}"


def test_answers_of_another_model_are_not_taken_for_ones_own(checkpoint, images, tmp_path, capsys):
    rows = write_lines(images / "rows.jsonl", [ROW])
    out = tmp_path / "out"
    common = ("--val_dataset", rows, "--result_dir", out, "--max_new_tokens", 4)
    assert run("infer", "--model_id_or_path", checkpoint, *common) == 0
    before = (out / "answers.jsonl").read_text()
    assert run("infer", "--model_type", "florence-2-nano", *common) != 0
    assert (out / "answers.jsonl").read_text() == before


def test_a_broken_file_in_a_folder_is_an_error_row_and_in_the_exit_code(checkpoint, images, tmp_path):
    (images / "c.png").write_bytes(b"no image")
    out = tmp_path / "out"
    common = ("--model_id_or_path", checkpoint, "--query", "<CAPTION>", "--max_new_tokens", 3)
    assert run("infer", *common, "--images", images, "--result_dir", out) != 0
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text(encoding="utf-8").split("\n") if line]
    assert [bool(row.get("error")) for row in rows] == [False, False, True]


@pytest.mark.parametrize(
    "arguments",
    [
        ("scenes", "--size", 1_000_000, "--count", 1),
        ("scenes", "--size", 0),
        ("infer", "--query", "\udcff", "--images", PHOTO),
        ("infer", "--device", "hpu", "--query", "<OD>", "--images", PHOTO),
        ("eval", "--dataset", "scenes:1", "--tasks", ""),
        ("pretrain", "--steps", 0),
        ("sft", "--dataset", "/nonexistent.jsonl", "--num_train_epochs", "inf"),
    ],
    ids=lambda arguments: " ".join(ascii(argument) for argument in arguments[:3]),
)
def test_the_command_line_ends_in_one_line(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) not in (0, None)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out


def test_an_overlay_without_an_image_has_the_size_of_the_image_and_is_transparent(small, images):
    result = small.predict(images / "a.png", "<OD>", max_new_tokens=3)
    overlay = Image.open(io.BytesIO(florence_lab.visualization.to_png(None, result)))
    assert (overlay.mode, overlay.size) == ("RGBA", (100, 80))
    assert overlay.getpixel((0, 0))[3] == 0
