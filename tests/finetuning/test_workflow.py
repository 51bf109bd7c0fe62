"""From training rows to a fine-tuned florence-2-nano at the command line."""

import json

import pytest

from florence_lab import load
from florence_lab.cli import main
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.run import sft
from florence_lab.scenes import HELD_OUT_SEEDS, TRAIN_SEEDS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def adapter(rows_folder, tmp_path_factory):
    """An adapter that changes the answers of florence-2-nano."""
    arguments = SftArguments(
        dataset=str(rows_folder / "train.jsonl"),
        output_dir=str(tmp_path_factory.mktemp("adapter")),
        lora_target_modules="ALL",
        max_steps=30,
        eval_steps=30,
        learning_rate=1e-2,
        dataloader_num_workers=0,
        dtype="fp32",
        device="cpu",
    )
    return sft(arguments)


def test_the_loss_decreases(adapter):
    lines = map(json.loads, (adapter.parent / "logging.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-2:]) < 0.7 * sum(losses[:2])


def test_export_merges_the_adapter(adapter, rows_folder, capsys):
    assert main(["export", "--ckpt_dir", str(adapter), "--merge_lora", "true"]) == 0
    merged = adapter.with_name(f"{adapter.name}-merged")
    assert str(merged) in capsys.readouterr().out
    image = rows_folder / f"{TRAIN_SEEDS[-1]}.png"
    adapted, whole, before = (load(m).predict(image, "<OD>") for m in (adapter, merged, "florence-2-nano"))
    assert adapted.raw == whole.raw != before.raw
    assert adapted.scores == pytest.approx(whole.scores, abs=1e-3)


def test_infer_uses_the_adapter(adapter, rows_folder, capsys):
    image = str(rows_folder / f"{HELD_OUT_SEEDS[0]}.png")
    assert main(["infer", "--ckpt_dir", str(adapter), "--query", "<CAPTION>", "--images", image]) == 0
    assert load(adapter).predict(image, "<CAPTION>").text in capsys.readouterr().out


def test_infer_answers_a_dataset_with_the_adapter(adapter, rows_folder, tmp_path):
    dataset = str(rows_folder / "val.jsonl")
    assert main(["infer", "--ckpt_dir", str(adapter), "--val_dataset", dataset, "--result_dir", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (rows_folder / "val.jsonl").read_text().splitlines()]
    assert [(line["query"], line["label"]) for line in lines] == [(row["query"], row["response"]) for row in rows]


def test_eval_measures_the_adapter(adapter, rows_folder, tmp_path, capsys):
    out = str(tmp_path / "eval")
    assert main(["eval", "--ckpt_dir", str(adapter), "--dataset", str(rows_folder / "train.jsonl"), "--out", out]) == 0
    assert "mAP@0.5" in capsys.readouterr().out
    assert (tmp_path / "eval" / "metrics.json").is_file()


def test_no_option_of_export_is_silently_ignored(adapter):
    assert main(["export", "--ckpt_dir", str(adapter), "--merge_lora", "false"]) == 2
