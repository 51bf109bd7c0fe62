"""Whether image features are cached."""

import json
from collections import namedtuple

import pytest
from safetensors.torch import load_file

from florence_lab.exceptions import TrainingError
from florence_lab.finetuning import training_rows
from florence_lab.finetuning.run import sft

pytestmark = pytest.mark.usefixtures("one_thread")

Usage = namedtuple("Usage", "free")
FEATURES_MB = 4 * 5 * 32 * 4 / 1e6  # 4 images of 5 tokens of 32 float32


@pytest.fixture
def disk(monkeypatch):
    """Set the free disk space."""
    return lambda megabytes: monkeypatch.setattr(
        training_rows.shutil, "disk_usage", lambda path: Usage(int(megabytes * 1e6))
    )


@pytest.fixture
def decide(arguments, tmp_path):
    """Run one step and return whether image features were cached, as the run and the disk have it."""

    def run(**changes):
        changes = {"feature_dir": str(tmp_path / "features"), "max_steps": 1} | changes
        checkpoint = sft(arguments(**changes))
        stored = json.loads((checkpoint.parent / "args.json").read_text())["cache_image_features"]
        assert stored == any((tmp_path / "features").rglob("*.safetensors"))
        return stored

    return run


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"cache_image_features": False}, False),
        ({"sft_type": "full"}, False),
        ({"freeze_aligner": False, "lora_target_modules": "ALL"}, False),
        ({"modules_to_save": "image_projection"}, False),
    ],
    ids=["LoRA", "refused", "full", "projector with LoRA", "projector saved"],
)
def test_features_are_cached_where_training_leaves_them_as_they_are(decide, changes, expected):
    assert decide(**changes) is expected


@pytest.mark.parametrize(("free", "expected"), [(2.1 * FEATURES_MB, True), (1.9 * FEATURES_MB, False)])
def test_features_take_half_of_the_free_disk_at_most(decide, disk, caplog, free, expected):
    disk(free)
    assert decide() is expected
    (line,) = [record.message for record in caplog.records if record.name == training_rows.__name__]
    assert "4 images" in line
    assert "\n" not in line
    assert ("are not cached" in line) is not expected
    assert ("--feature_dir" in line) is not expected


def test_a_folder_that_cannot_be_written_to_is_not_used(decide, tmp_path, caplog):
    (tmp_path / "file").touch()
    assert decide(feature_dir=str(tmp_path / "file")) is False
    assert "file" in caplog.text


def test_a_resumed_run_keeps_to_what_it_decided(arguments, interrupt_run, disk, tmp_path):
    whole = sft(arguments(max_steps=3, output_dir=tmp_path / "whole"))
    interrupt_run(arguments(max_steps=3), steps=1)
    disk(0)
    resumed = sft(arguments(max_steps=3, resume_from_checkpoint=True))
    a, b = (load_file(path / "adapter_model.safetensors") for path in (whole, resumed))
    assert all((a[name] == b[name]).all() for name in a)
    with pytest.raises(TrainingError, match="--cache_image_features was True and is False"):
        sft(arguments(max_steps=3, resume_from_checkpoint=True, cache_image_features=False))
