"""`loop`: a run that can be interrupted anywhere, and what it exports."""

import errno
import json
import math
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from support import TINY
from transformers import AutoProcessor, Florence2ForConditionalGeneration

from florence_lab import load
from florence_lab.exceptions import ArgumentError, CheckpointError, FlorenceLabWarning, TrainingError
from florence_lab.images import GENERATOR_TAG
from florence_lab.pretraining import loop
from florence_lab.pretraining.arguments import PretrainArguments
from florence_lab.pretraining.loop import TrainingState, append_log, export_checkpoint, pretrain
from florence_lab.scenes import draw_scene
from florence_lab.tasks import TASKS
from florence_lab.template.template import FlorenceTemplate

pytestmark = pytest.mark.usefixtures("one_thread")


def losses_of(folder):
    return [json.loads(line)["loss"] for line in Path(folder, "log.jsonl").read_text().splitlines()]


@pytest.fixture
def checkpoint(short_run, tokenizer):
    """`last.pt` of a run that has not taken a step, on images of 48 pixels."""
    arguments = short_run("fresh")
    path = Path(arguments.out, "last.pt")
    TrainingState(arguments, tokenizer).save(path)
    return path


def test_a_checkpoint_has_the_keys_that_runs_are_resumed_from(checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    assert set(state) == {
        *("step", "image_size", "learner", "ema", "optimizer", "scheduler", "dice", "cuda_dice", "arguments")
    }
    heads = {name for name in state["learner"] if name.startswith("helper.")}
    assert heads == {f"helper.{head}.{part}" for head in ("tokens", "halfway", "fine") for part in ("weight", "bias")}


def test_an_exported_model_says_what_it_was_trained_on(checkpoint, tmp_path):
    """`Predictor` warns about photographs by this field."""
    folder = export_checkpoint(checkpoint, tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["trained_on"] == GENERATOR_TAG
    with pytest.warns(UserWarning, match="was trained on"):
        load(folder, device="cpu").predict(Image.new("RGB", (32, 32)), "<OD>", max_new_tokens=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*was trained on")
        load(folder, device="cpu").predict(draw_scene(0, 32).image, "<OD>", max_new_tokens=2)


def test_an_exported_model_is_an_ordinary_checkpoint(checkpoint, tmp_path, tokenizer):
    """transformers loads it in fp16, with the moving average of the weights, and answers as florence_lab does."""
    folder = export_checkpoint(checkpoint, tmp_path / "model")
    model = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    assert len(processor.tokenizer) == len(tokenizer) == model.config.text_config.vocab_size
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert (model.generation_config.num_beams, model.generation_config.no_repeat_ngram_size) == (1, 0)

    scene = draw_scene(5, 128)
    inputs = processor(text="<OD>", images=scene.image, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 48, 48)
    ids = model.generate(**inputs, max_length=20)
    ours = load(folder, device="cpu").predict(scene.image, "<OD>", max_length=20)
    assert FlorenceTemplate(processor.tokenizer).decode(ids[0].tolist()) == ours.raw
    state = torch.load(checkpoint, weights_only=True)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert all(torch.equal(state["ema"][name].half(), value.half()) for name, value in model.state_dict().items())


def test_the_auxiliary_heads_are_not_exported(checkpoint, tmp_path):
    folder = export_checkpoint(checkpoint, tmp_path / "model")
    names = Florence2ForConditionalGeneration.from_pretrained(folder).state_dict()
    assert not [name for name in names if "helper" in name]


def test_initial_weights_that_do_not_fit_leave_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="the layers are not those of florence-2-nano"):
        pretrain(PretrainArguments(out=str(tmp_path / "run"), init_from=str(TINY), device="cpu"))
    assert not list((tmp_path / "run").iterdir())


def test_a_step_logs_losses_and_trains_the_heads(short_run, tokenizer):
    arguments = short_run("step")
    state = TrainingState(arguments, tokenizer)
    entry = state.train_step(loop.StepDataset(arguments, tokenizer)[0], 48)
    assert set(entry) == {"step", "loss", "helper", "norm", "lr", "tasks"}
    assert (entry["step"], state.step) == (1, 1)
    assert entry["loss"] > 0
    assert state.auxiliary_heads.tokens.weight.any()


@pytest.mark.slow
def test_a_resumed_state_continues_exactly(short_run, tokenizer, tmp_path):
    """Two steps in one go, and two with a checkpoint between them, which the image size changes with."""
    arguments = short_run("resumed")
    steps = loop.StepDataset(arguments, tokenizer)
    straight, interrupted = TrainingState(arguments, tokenizer), TrainingState(arguments, tokenizer)
    expected = [straight.train_step(steps[2], 48), straight.train_step(steps[3], 64)]
    first = interrupted.train_step(steps[2], 48)
    interrupted.save(tmp_path / "last.pt")
    resumed = TrainingState(arguments, tokenizer)
    assert resumed.load(tmp_path / "last.pt")
    assert [first, resumed.train_step(steps[3], 64)] == expected
    for name, value in straight.ema.module.state_dict().items():
        assert torch.equal(value, resumed.ema.module.state_dict()[name]), name


def test_a_missing_checkpoint_is_not_resumed(short_run, tokenizer, tmp_path):
    assert not TrainingState(short_run("none"), tokenizer).load(tmp_path / "last.pt")


def test_log_entries_are_appended_as_json_lines(tmp_path):
    for step in (1, 2):
        append_log(tmp_path / "log.jsonl", {"step": step})
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda:99"}, "--device cuda:99"),
        ({"out": "{tmp}/file"}, "--out .*file"),
        ({"out": "/proc/nowhere"}, "--out '/proc/nowhere"),
        ({"seed": 400}, "--seed 400"),
        ({"steps": 10**9}, "--steps 1000000000"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(loop, "load_or_build_tokenizer", None)
    (tmp_path / "file").touch()
    changes = {"out": str(tmp_path / "run")} | changes
    with pytest.raises(ArgumentError, match=message):
        pretrain(PretrainArguments(**changes | {"out": changes["out"].format(tmp=tmp_path)}))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_is_not_finite_stops_and_keeps_its_checkpoint(short_run, tokenizer, tmp_path, value):
    arguments = short_run("broken")
    state = TrainingState(arguments, tokenizer)
    path = tmp_path / "last.pt"
    state.save(path)
    before = path.read_bytes()
    state.model.lm_head.weight.data[0] = value
    with pytest.raises(TrainingError, match=r"at step 0: the weights .*language_model.*--lr is 0\.001.*last\.pt keeps"):
        state.save(path)
    with pytest.raises(TrainingError, match=r"broken: training stopped at step 1: the loss is nan"):
        state.train_step(loop.StepDataset(arguments, tokenizer)[0], 48)
    assert path.read_bytes() == before
    assert not path.with_suffix(".tmp").exists()


@pytest.mark.slow
def test_an_absurd_learning_rate_is_named(short_run):
    with pytest.raises(TrainingError, match=r"--lr is 1e\+30"):
        pretrain(short_run("absurd", lr=1e30, warmup=0, steps=6))


def test_a_full_disk_keeps_the_checkpoint(short_run, tokenizer, tmp_path, monkeypatch):
    state = TrainingState(short_run("full"), tokenizer)
    path = tmp_path / "last.pt"
    path.write_bytes(b"good")

    def fail(state, file):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(TrainingError, match=r"last\.pt cannot be written: .*No space left"):
        state.save(path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.glob("last.*")] == [("last.pt", b"good")]


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("broken_in",)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"text"),
        lambda path: torch.save([1], path),
        lambda path: torch.save(torch.load(path, weights_only=True) | {"learner": {}}, path),
        lambda path: torch.save(Malicious(), path),
        lambda path: path.write_bytes(pickle.dumps(Malicious())),
    ],
)
def test_a_damaged_checkpoint_is_named(short_run, tokenizer, checkpoint, tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    damage(checkpoint)
    with pytest.raises(TrainingError, match=r"last\.pt is damaged"):
        TrainingState(short_run("fresh"), tokenizer).load(checkpoint)
    assert not (tmp_path / "broken_in").exists()


def test_other_arguments_of_a_run_are_told(short_run, tokenizer, checkpoint):
    state = TrainingState(short_run("fresh", lr=0.5, workers=1, measure_every=7), tokenizer)
    with pytest.warns(FlorenceLabWarning, match=r"with other arguments .*: --lr was 0\.001 and is 0\.5$"):
        assert state.load(checkpoint)


def test_fewer_steps_than_were_taken_are_refused(short_run, tokenizer, tmp_path):
    state = TrainingState(short_run("long", steps=9), tokenizer)
    state.step = 7
    state.save(tmp_path / "last.pt")
    with pytest.raises(TrainingError, match=r"has 7 steps already: --steps must be at least that, got 5"):
        TrainingState(short_run("long", steps=5), tokenizer).load(tmp_path / "last.pt")


def test_a_log_is_cut_to_the_step_that_is_resumed(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "lo')
    loop.truncate_log(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    loop.truncate_log(tmp_path / "none.jsonl", 2)


def test_a_damaged_tokenizer_is_named(short_run):
    arguments = short_run("tokenizer")
    folder = Path(arguments.out, "tokenizer")
    for path in folder.iterdir():
        path.write_text("{")
    with pytest.raises(TrainingError, match="tokenizer is damaged"):
        pretrain(arguments)


def test_weights_beyond_fp16_are_not_exported(short_run, tokenizer, tmp_path):
    state = TrainingState(short_run("large"), tokenizer)
    next(state.ema.module.parameters()).data.fill_(1e6)
    path = Path(state.arguments.out, "last.pt")
    state.save(path)
    with pytest.raises(TrainingError, match="beyond fp16"):
        export_checkpoint(path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_errors_of_the_processes_that_draw_are_one_line(short_run, tmp_path):
    arguments = short_run("blocked", workers=1)
    Path(arguments.out, "drawn").touch()
    with pytest.raises(TrainingError, match=r"blocked: .*drawn") as caught:
        pretrain(arguments)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.slow
def test_a_finished_run_is_exported_again_and_not_trained(short_run, monkeypatch):
    first = pretrain(short_run("done", steps=2))
    before = (first.parent / "last.pt").read_bytes()
    weights = (first / "model.safetensors").read_bytes()
    monkeypatch.setattr(TrainingState, "train_step", None)
    assert pretrain(short_run("done", steps=2)) == first
    assert (first.parent / "last.pt").read_bytes() == before
    assert (first / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_a_killed_run_continues_as_if_it_had_not_been_killed(short_run, monkeypatch):
    straight = short_run("straight")
    exported = pretrain(straight)

    killed = short_run("killed")

    def fail_in_step_3(path, entry):
        if entry["step"] == 3:
            raise KeyboardInterrupt
        append_log(path, entry)

    monkeypatch.setattr(loop, "append_log", fail_in_step_3)
    with pytest.raises(KeyboardInterrupt):
        pretrain(killed)
    monkeypatch.setattr(loop, "append_log", append_log)
    assert len(losses_of(killed.out)) == 2
    resumed = pretrain(killed)

    assert losses_of(killed.out) == losses_of(straight.out)
    weights = [Florence2ForConditionalGeneration.from_pretrained(f).state_dict() for f in (exported, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_a_run_starts_from_initial_weights_in_the_last_stage(short_run, tokenizer):
    first = pretrain(short_run("first", steps=2))
    state = TrainingState(short_run("second", init_from=str(first)), tokenizer)
    assert state.image_size == 64
    source = load(first, device="cpu").model
    tower = source.model.vision_tower.state_dict()
    for name, weight in state.model.model.vision_tower.state_dict().items():
        assert torch.equal(weight, tower[name]), name
    before, after = (m.model.language_model.encoder.embed_positions.weight for m in (source, state.model))
    assert torch.allclose(after[3 + 15], before[3 + 8], atol=1e-5), "the last position of 4 x 4 is that of 3 x 3"


@pytest.mark.slow
def test_evaluation_does_not_change_the_training(short_run):
    plain, evaluated = short_run("plain"), short_run("evaluated", measure_every=2, measured=2)
    pretrain(plain)
    entries = []
    pretrain(evaluated, on_log=entries.append)
    assert [(e["step"], "picture" in e) for e in entries] == [(1, False), (2, True), (3, False), (4, True)]
    assert losses_of(evaluated.out) == losses_of(plain.out)
    rows = [json.loads(line) for line in Path(evaluated.out, "measures.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert set(rows[0]) - {"step", "<REGION_TO_OCR>"} == set(TASKS) - {"<REGION_TO_OCR>"}
    for step in (2, 4):
        with Image.open(f"{evaluated.out}/answers-{step}.png") as figure:
            assert figure.width > 1000
