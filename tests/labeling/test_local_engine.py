"""Labelling in this process: batches, resuming, and what a kill loses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_in import StandIn, draw_images

from florence_lab.exceptions import ArgumentError


def num_rows(out):
    return sum(len(part.read_text().splitlines()) for part in (out / ".parts").glob("part-*.jsonl"))


def test_each_batch_is_a_part(images, tmp_path, run):
    run(images, batch_size=10)
    assert run.model.calls == [10, 10, 3]
    assert len(list((tmp_path / "data" / ".parts").glob("part-*.jsonl"))) == 3


def test_a_second_run_asks_nothing(images, run):
    run(images)
    report = run(images)
    assert (run.model.asked, report.num_asked) == (0, 0)
    assert sum(report.num_images.values()) == 23


def test_only_added_and_changed_images_are_asked_about(images, run):
    run(images)
    draw_images(images, 2, first=100)
    draw_images(images, 1, size=(20, 20))
    report = run(images)
    assert report.num_asked == 3
    assert sum(report.num_images.values()) == 25


def test_removed_images_leave_the_dataset(images, run):
    run(images)
    (images / "00003.png").unlink()
    assert sum(run(images).num_images.values()) == 22


def test_a_broken_image_is_tried_again(images, run):
    (images / "00003.png").write_bytes(b"no image")
    assert run(images).num_errors == 1
    draw_images(images, 1, first=3)
    report = run(images)
    assert (report.num_errors, report.num_asked, sum(report.num_images.values())) == (0, 1, 23)


def test_an_error_of_the_model_keeps_the_batches_before(images, tmp_path, run):
    class Failing(StandIn):
        def label(self, images):
            if self.asked >= 8:
                raise RuntimeError("out of memory")
            return super().label(images)

    with pytest.raises(RuntimeError, match="out of memory"):
        run(images, model=Failing())
    assert num_rows(tmp_path / "data") == 8
    assert run(images).num_asked == 15


def test_changed_settings_are_named_before_anything_is_asked(images, run):
    run(images)
    with pytest.raises(ArgumentError, match="masks was False, now True"):
        run(images, has_masks=True)
    assert run.model.asked == 0


def test_the_bar_shows_images_per_second_and_errors(images, run, capsys):
    (images / "00003.png").write_bytes(b"no image")
    run(images)
    shown = capsys.readouterr().err
    assert "image/s" in shown
    assert "errors=1" in shown


@pytest.mark.slow
def test_a_kill_loses_at_most_one_batch(tmp_path):
    images, out = draw_images(tmp_path / "images", 60), tmp_path / "data"
    tests = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    command = [sys.executable, str(tests / "stand_in.py"), str(images), str(out), "0.05", "4"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while (not out.exists() or num_rows(out) < 20) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = num_rows(out)
    assert 20 <= kept < 60
    assert not (out / "train").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"60 images (60 train), {60 - kept} asked in this run" in done.stdout
    annotations = json.loads((out / "train" / "_annotations.coco.json").read_text())
    assert len({image["file_name"] for image in annotations["images"]}) == len(annotations["images"]) == 60
