"""Fine-tuning: the published convention, what is trained, whole checkpoints, runs that are killed, and what comes after."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import Florence2ForConditionalGeneration

from florence_lab import load
from florence_lab.cli import main
from florence_lab.data.examples import Example
from florence_lab.exceptions import CheckpointError, TrainingError
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.collator import IGNORED, Florence2DataCollator, Row
from florence_lab.finetuning.feature_cache import FeatureCache, read_features
from florence_lab.finetuning.lora import add_lora, freeze_vision, lora_targets
from florence_lab.finetuning.run import _training_arguments, sft
from florence_lab.finetuning.run_directory import last_checkpoint
from florence_lab.finetuning.trainer import Florence2Trainer
from florence_lab.loading.checkpoint import load_checkpoint
from florence_lab.scenes import HELD_OUT_SEEDS, TRAIN_SEEDS, draw_scene

NANO = "florence-2-nano"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with `train.jsonl`, 8 rows about 4 pictures, `val.jsonl`, 4 rows about 2, and the pictures."""
    folder = tmp_path_factory.mktemp("data")
    for name, seeds in (("train", TRAIN_SEEDS[-4:]), ("val", HELD_OUT_SEEDS[:2])):
        rows = []
        for seed in seeds:
            scene = draw_scene(seed, 128)
            scene.image.save(folder / f"{seed}.png")
            for task in ("<OD>", "<CAPTION>"):
                rows.append({"query": task, "response": scene.answer(task).raw, "images": [f"{seed}.png"]})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def arguments(data, tmp_path):
    """Arguments of a run of four steps that writes a checkpoint every second one."""

    def make(**changes) -> SftArguments:
        chosen = {
            "dataset": (str(data / "train.jsonl"),),
            "output_dir": str(tmp_path / "output"),
            "feature_dir": str(data / "features"),
            "cache_image_features": True,
            "max_steps": 4,
            "eval_steps": 2,
            "batch_size": 2,
            "logging_steps": 1,
            "learning_rate": 1e-3,
            "dataloader_num_workers": 0,
            "dtype": "fp32",
            "device": "cpu",
        }
        return SftArguments(**(chosen | changes))

    return make


@pytest.fixture(scope="module")
def nano():
    return load_checkpoint(load(NANO).processor.tokenizer.name_or_path)


def losses_of(run: Path) -> list[float]:
    lines = map(json.loads, (run / "logging.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    (path,) = [*checkpoint.glob("adapter_model.safetensors"), *checkpoint.glob("model.safetensors")]
    return load_file(path)


def assert_same_weights(a: Path, b: Path) -> None:
    a, b = weights_of(a), weights_of(b)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------------- the published convention


def test_the_loss_is_that_of_the_answers_logits(small):
    """Decoder inputs are the labels shifted by one behind the start token; padding is no part of the loss."""
    small.model.eval()
    examples = [
        Example(Image.new("RGB", (64, 48), color), "<CAPTION>", "", "What does the image describe?", answer, "")
        for color, answer in (("red", "a dog"), ("blue", "a much longer answer than that<loc_1><loc_2>"))
    ]
    batch = Florence2DataCollator(small.processor)([Row(example) for example in examples])
    assert (batch["labels"][0] == IGNORED).any(), "the shorter answer is padded"
    with torch.no_grad():
        loss = small.model(**batch).loss
        alone = []
        for example in examples:
            answer = small.processor.tokenizer(example.response, return_tensors="pt")["input_ids"]
            read = small._read([small.encode_image(example.image)], [example.prompt])
            start = torch.tensor([[small.model.config.text_config.decoder_start_token_id]])
            logits = small.model(**read, decoder_input_ids=torch.cat([start, answer[:, :-1]], dim=1)).logits
            alone.append(F.cross_entropy(logits[0], answer[0], reduction="none"))
    assert torch.allclose(loss, torch.cat(alone).mean(), atol=1e-5)


def test_cached_tokens_train_as_the_pictures_do(nano, tmp_path):
    model, processor = nano
    cache = FeatureCache(model, processor, root=tmp_path)
    scenes = [draw_scene(seed, 128) for seed in TRAIN_SEEDS[:3]]
    examples = [Example(s.image, "<OD>", "", "Locate the objects.", s.answer("<OD>").raw, "") for s in scenes]
    paths = cache.compute(example.image for example in examples)
    pictures = Florence2DataCollator(processor)([Row(example) for example in examples])
    cached = Florence2DataCollator(processor)(
        [Row(example, path) for example, path in zip(examples, paths, strict=True)]
    )
    assert "pixel_values" not in cached
    assert "image_tokens" not in pictures
    trainer = Florence2Trainer(model, _training_arguments(SftArguments(device="cpu"), tmp_path, False))
    with torch.no_grad():
        a, b = (trainer.compute_loss(model, batch) for batch in (pictures, cached))
    assert torch.allclose(a, b, atol=1e-5)


# ---------------------------------------------------------------------- image tokens on disk


def test_a_picture_is_encoded_once_under_whatever_name(nano, tmp_path, monkeypatch):
    model, processor = nano
    cache = FeatureCache(model, processor, root=tmp_path / "cache")
    draw_scene(5, 64).image.save(tmp_path / "a.png")
    draw_scene(5, 64).image.save(tmp_path / "b.png")
    draw_scene(6, 64).image.save(tmp_path / "c.png")
    a, b, c = cache.compute([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"])
    assert a == b != c
    seen = load(NANO).encode_image(tmp_path / "a.png")
    assert torch.allclose(read_features([a]), seen.tokens, atol=1e-5)

    monkeypatch.setattr(model, "get_image_features", None)  # nothing is left to do
    assert FeatureCache(model, processor, root=tmp_path / "cache").compute([tmp_path / "c.png"]) == [c]
    draw_scene(7, 64).image.save(tmp_path / "a.png")
    assert cache.path(Image.open(tmp_path / "a.png")) not in (a, c), "another picture under the old name"


def test_other_weights_or_pixels_have_files_of_their_own(tmp_path):
    model, processor = load_checkpoint(load(NANO).processor.tokenizer.name_or_path)
    folders = {FeatureCache(model, processor, root=tmp_path).folder}
    folders.add(FeatureCache(model, processor, torch.bfloat16, tmp_path).folder)
    processor.image_processor.image_mean = [0.5, 0.5, 0.5]
    folders.add(FeatureCache(model, processor, root=tmp_path).folder)
    model.model.multi_modal_projector.image_projection.weight.data[0, 0] += 1e-6
    folders.add(FeatureCache(model, processor, root=tmp_path).folder)
    assert len(folders) == 4


# ---------------------------------------------------------------------- what is trained


@pytest.mark.parametrize(
    ("chosen", "frozen", "last"),
    [
        (("DEFAULT",), True, {"q_proj", "k_proj", "v_proj", "out_proj"}),
        (("DEFAULT",), False, {"q_proj", "k_proj", "v_proj", "out_proj", "qkv", "proj"}),
        (("ALL",), True, {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
        (("v_proj", "fc1"), True, {"v_proj", "fc1"}),
    ],
)
def test_lora_is_where_it_was_asked_for(nano, chosen, frozen, last):
    model, _ = load_checkpoint(nano[1].tokenizer.name_or_path)
    if frozen:
        freeze_vision(model)
    targets = lora_targets(model, chosen)
    assert {name.rpartition(".")[2] for name in targets} == last
    assert any("vision_tower" in name for name in targets) == (not frozen)
    peft = add_lora(model, chosen, 4, 8, 0.0)
    trained = {name for name, weight in peft.named_parameters() if weight.requires_grad}
    assert all("lora_" in name for name in trained)
    assert len(trained) == 2 * len(targets)


def test_names_that_no_layer_has_are_refused(nano):
    with pytest.raises(ValueError, match=r"q_porj: give DEFAULT, ALL, or some of fc1, .*q_proj"):
        lora_targets(nano[0], ["q_porj"])


def test_lora_trains_its_matrices_and_writes_them_alone(arguments):
    watched = []
    checkpoint = sft(arguments(), watched.append)
    assert checkpoint.name == "checkpoint-4"
    run = checkpoint.parent
    assert run.name.startswith("v0-")
    assert run.parent.name == NANO
    losses = losses_of(run)
    assert [line["loss"] for line in watched] == losses
    assert {"step", "loss", "lr"} <= watched[0].keys()
    weights = weights_of(checkpoint)
    assert all("lora_" in name for name in weights)
    assert sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")) < 2e6
    assert json.loads((run / "args.json").read_text())["max_steps"] == 4
    assert Image.open(run / "images" / "loss.png").width > 300
    assert list((run / "runs").rglob("events*")), "for TensorBoard"
    early = sft(arguments(max_steps=2, eval_steps=1, logging_steps=2))
    assert early.parent.name.startswith("v1-"), "and no harm is done by a checkpoint before the first line of the log"


def test_all_of_it_is_trained_but_the_frozen_tower(arguments, nano):
    checkpoint = sft(arguments(sft_type="full", freeze_vision=True, max_steps=2))
    before, after = nano[0].state_dict(), Florence2ForConditionalGeneration.from_pretrained(checkpoint).state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    vision = {name for name in before if "vision_tower" in name or "multi_modal_projector" in name}
    assert vision <= same
    assert "model.language_model.shared.weight" not in same
    assert load(checkpoint).predict(draw_scene(3).image, "<CAPTION>").text


def test_the_tower_is_trained_with_the_rest(arguments, nano):
    checkpoint = sft(arguments(sft_type="full", cache_image_features=False, max_steps=2, gradient_checkpointing=True))
    before, after = nano[0].state_dict(), weights_of(checkpoint)
    assert not torch.equal(
        before["model.vision_tower.convs.0.conv.weight"], after["model.vision_tower.convs.0.conv.weight"]
    )


# ---------------------------------------------------------------------- rows and arguments that won't do


def test_faulty_rows_stop_the_run_before_it_starts(arguments, data, tmp_path, capsys):
    rows = (data / "train.jsonl").read_text()
    bad = json.dumps({"query": "<OD>", "response": "", "images": [str(data / f"{HELD_OUT_SEEDS[0]}.png")]})
    lost = json.dumps({"query": "<OD>", "response": "cat<loc_1>", "images": ["nowhere.png"]})
    (data / "bad.jsonl").write_text(f"{rows}{bad}\n{lost}\n")
    chosen = arguments(dataset=(str(data / "bad.jsonl"),), max_steps=1)
    with pytest.raises(TrainingError, match=r"2 faulty rows; .*--skip_bad_rows(?s:.*)row 9: the answer is empty"):
        sft(chosen)
    assert not (tmp_path / "output").exists()
    assert main(command_of(chosen)) == 2
    lines = capsys.readouterr().err.strip().splitlines()[-4:]
    assert lines[0] == "1 x the answer is empty"
    assert "bad.jsonl, row 10: no picture: " in lines[3]
    run = sft(dataclasses.replace(chosen, skip_bad_rows=True)).parent
    listed = (run / "bad_rows.txt").read_text().splitlines()
    assert [line.split(", ")[1].split(":")[0] for line in listed] == ["row 9", "row 10"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": ()}, "--dataset: give at least one"),
        ({"sft_type": "qlora"}, "--sft_type qlora: give lora or full"),
        ({"freeze_vision": False}, "--freeze_vision true"),
        ({"early_stopping_patience": 2}, "--val_dataset"),
        ({"metric_for_best_model": "OD/mAP@0.5"}, "--val_dataset"),
        ({"dataset": ("nowhere.jsonl",)}, "nowhere.jsonl can't be read"),
        ({"lora_target_modules": ("head",)}, "head: give DEFAULT, ALL"),
        ({"model_type": "florence-3"}, "florence-3"),
        ({"resume_from_checkpoint": "true"}, "there is no run of florence-2-nano"),
        ({"resume_from_checkpoint": "elsewhere"}, "neither the folder of a run"),
    ],
)
def test_what_does_not_go_together_is_said(arguments, changes, message):
    with pytest.raises((ValueError, TrainingError), match=message):
        sft(arguments(**changes))


def test_a_metric_that_the_rows_have_not_is_refused(arguments, data):
    chosen = arguments(val_dataset=(str(data / "val.jsonl"),), metric_for_best_model="OCR/word_accuracy")
    with pytest.raises(ValueError, match=r"give loss or one of OD/mAP@0.5, .*CAPTION/rouge_l"):
        sft(chosen)


# ---------------------------------------------------------------------- measured, and the best kept


def test_the_best_checkpoint_by_a_tasks_metric_is_kept(arguments, data, monkeypatch):
    values = iter([0.3, 0.9, 0.2, 0.1, 0.1])
    measured = Florence2Trainer._measured
    monkeypatch.setattr(Florence2Trainer, "_measured", lambda self: measured(self) | {"OD/mAP@0.5": next(values)})
    chosen = arguments(
        val_dataset=(str(data / "val.jsonl"),),
        metric_for_best_model="OD/mAP@0.5",
        max_steps=10,
        early_stopping_patience=2,
        save_total_limit=1,
    )
    best = sft(chosen)
    assert best.name == "checkpoint-4"
    assert sorted(path.name for path in best.parent.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-8"]
    lines = [json.loads(line) for line in (best.parent / "logging.jsonl").read_text().splitlines()]
    seen = [line for line in lines if "eval_OD/mAP@0.5" in line]
    assert [line["step"] for line in seen] == [2, 4, 6, 8], "two without a better one, and it stops"
    assert {"eval_loss", "eval_OD/F1@0.5", "eval_CAPTION/rouge_l"} <= seen[0].keys()
    assert Image.open(best.parent / "images" / "metrics.png").width > 300


# ---------------------------------------------------------------------- killed

KILLED = """
import os, signal, sys, torch
from florence_lab.cli import main
from florence_lab.training import sft

def die(): os.kill(os.getpid(), signal.SIGKILL)

def in_a_step(self, model, inputs, *more, step=FlorenceTrainer.training_step):
    if self.state.global_step == 3:
        self.optimizer.step()
        die()
    return step(self, model, inputs, *more)

def in_a_checkpoint(state, path, *more, save=torch.save, **options):
    save(state, path, *more, **options)
    if "checkpoint-4" in str(path):
        os.truncate(path, os.path.getsize(path) // 2)
        die()

when = sys.argv.pop(1)
if when == "step": FlorenceTrainer.training_step = in_a_step
if when == "checkpoint": torch.save = in_a_checkpoint
sys.exit(main(sys.argv[1:]))
"""


def command_of(arguments: SftArguments) -> list[str]:
    command = ["sft"]
    for name, value in dataclasses.asdict(arguments).items():
        if value not in (None, "", ()):
            command += [f"--{name}", *(map(str, value) if isinstance(value, (list, tuple)) else [str(value)])]
    return command


def run_command(*command: str, **environment: str) -> subprocess.CompletedProcess:
    root = str(Path(__file__).parents[1])
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": root} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("sft_type", ["lora", "full"])
def test_a_killed_run_ends_as_an_undisturbed_one(arguments, tmp_path, sft_type):
    changes = {"max_steps": 6, "sft_type": sft_type, "freeze_vision": True}
    whole = sft(arguments(**changes))
    for when, done in (("step", 2), ("checkpoint", 2)):
        chosen = arguments(**changes, output_dir=str(tmp_path / when))
        killed = run_command("-c", KILLED, when, *command_of(chosen))
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
        (run,) = (tmp_path / when / NANO).iterdir()
        assert last_checkpoint(run).name == f"checkpoint-{done}"
        assert (run / "checkpoint-4").exists() == (when == "checkpoint")
        resumed = sft(dataclasses.replace(chosen, resume_from_checkpoint="true"))
        assert resumed == run / "checkpoint-6"
        assert_same_weights(resumed, whole)
        assert losses_of(run) == losses_of(whole.parent)


def test_a_run_goes_on_with_its_own_arguments_only(arguments):
    sft(arguments())
    with pytest.raises(TrainingError, match=r"--learning_rate was 0\.001 and is 0\.1; --seed was 42 and is 1"):
        sft(arguments(learning_rate=0.1, seed=1, resume_from_checkpoint="true"))


def test_a_full_disk_leaves_the_last_good_checkpoint(arguments, monkeypatch):
    write = torch.save

    def full(state, path, *more, **options):
        if "checkpoint-4" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(state, path, *more, **options)

    whole = sft(arguments())
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        TrainingError, match=r"checkpoint-4 can't be written .*No space left.*MB are free.*checkpoint-2; "
    ):
        sft(arguments())
    monkeypatch.undo()
    resumed = sft(arguments(resume_from_checkpoint="true"))
    assert resumed.parent.name.startswith("v1-")
    assert_same_weights(resumed, whole)


# ---------------------------------------------------------------------- several processes


def test_two_processes_are_one_with_twice_the_batch(arguments, tmp_path):
    alone = sft(arguments(batch_size=4, lora_dropout=0.0))
    chosen = arguments(batch_size=2, lora_dropout=0.0, output_dir=str(tmp_path / "two"))
    done = run_command("-m", "florence_lab.cli", *command_of(chosen), NPROC_PER_NODE="2", MASTER_PORT="29517")
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = (tmp_path / "two" / NANO).iterdir()
    assert losses_of(run) == pytest.approx(losses_of(alone.parent), rel=1e-4)
    a, b = weights_of(alone), weights_of(run / "checkpoint-4")
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)


# ---------------------------------------------------------------------- afterwards


@pytest.fixture(scope="module")
def adapter(data, tmp_path_factory):
    """A checkpoint of LoRA that changed the model's answers."""
    chosen = SftArguments(
        dataset=(str(data / "train.jsonl"),),
        output_dir=str(tmp_path_factory.mktemp("adapter")),
        lora_target_modules=("ALL",),
        max_steps=30,
        eval_steps=30,
        learning_rate=1e-2,
        dataloader_num_workers=0,
        dtype="fp32",
        device="cpu",
    )
    return sft(chosen)


def test_it_learns_its_rows(adapter):
    losses = losses_of(adapter.parent)
    assert sum(losses[-2:]) < 0.7 * sum(losses[:2])


def test_merged_and_not_it_answers_the_same(adapter, capsys):
    assert main(["export", "--ckpt_dir", str(adapter), "--merge_lora", "true"]) == 0
    merged = adapter.with_name(f"{adapter.name}-merged")
    assert str(merged) in capsys.readouterr().out
    beside, whole, before = load(adapter), load(merged), load(NANO)
    image = draw_scene(TRAIN_SEEDS[-1], 128).image
    answers = [predictor.predict(image, "<OD>") for predictor in (beside, whole, before)]
    assert answers[0].raw == answers[1].raw != answers[2].raw
    assert answers[0].scores == pytest.approx(answers[1].scores, abs=1e-3)
    Florence2ForConditionalGeneration.from_pretrained(merged)


def test_a_checkpoint_is_asked_at_the_prompt(adapter, data, capsys):
    picture = str(data / f"{HELD_OUT_SEEDS[0]}.png")
    assert main(["infer", "--ckpt_dir", str(adapter), "--query", "<CAPTION>", "--images", picture]) == 0
    answer = load(adapter).predict(picture, "<CAPTION>").text
    assert capsys.readouterr().out == f"{{'What does the image describe?': '{answer}'}}\n"


def test_what_is_no_adapter_is_not_merged(adapter, tmp_path, capsys):
    assert main(["export", "--ckpt_dir", str(tmp_path)]) == 2
    assert "adapter_config.json" in capsys.readouterr().err
    assert main(["export", "--ckpt_dir", str(adapter), "--merge_lora", "false"]) == 2
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors"):
        load(broken)
    (broken / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="can't be read as an adapter of florence-2-nano"):
        load(broken)


def test_an_adapter_is_no_place_to_start_from(adapter, arguments):
    with pytest.raises(ValueError, match="make a whole model of it first"):
        sft(arguments(model_id_or_path=str(adapter)))
