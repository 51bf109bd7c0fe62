"""Labelling with Ray Data. Ray takes half a minute to start, so these tests are slow, apart from the arithmetic."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_in import draw_images

from florence_lab import label
from florence_lab.exceptions import ArgumentError
from florence_lab.labeling.ray_engine import RaySettings, make_units, size_actors
from florence_lab.labeling.sources import Source

TESTS = Path(__file__).parents[1]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")

SCRIPT = """
import functools, sys
from florence_lab.detection.ontology import Ontology
from florence_lab.labeling.assembly import DatasetLayout
from florence_lab.labeling.labelling import label_sources
from florence_lab.labeling.ray_engine import RaySettings
from florence_lab.labeling.sources import list_label_sources
from stand_in import NAMES, StandIn

images, out, engine, seconds, actors, pids = sys.argv[1:]
print(label_sources(
    functools.partial(StandIn, seconds=float(seconds), pid_file=pids), list_label_sources(images), out,
    DatasetLayout("coco", Ontology.from_classes(NAMES)), 4,
    None if engine == "local" else RaySettings(num_actors=int(actors)),
))
"""


ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}


def command(images, out, engine="local", seconds=0.0, actors=1, pids=""):
    return [sys.executable, "-c", SCRIPT, *map(str, (images, out, engine, seconds, actors, pids))]


def run(words):
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout


def num_rows(out):
    return sum(len(part.read_text().splitlines()) for part in (out / ".parts").glob("part-*.jsonl"))


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("cluster", "settings", "expected"),
    [
        ({"CPU": 8}, RaySettings(), (7, {"num_cpus": 1})),
        ({"CPU": 1}, RaySettings(), (1, {"num_cpus": 1})),
        ({"CPU": 2}, RaySettings(num_actors=2), (2, {"num_cpus": 1})),
        ({"CPU": 8, "GPU": 2}, RaySettings(), (2, {"num_gpus": 1.0, "num_cpus": 0.5})),
        ({"CPU": 8, "GPU": 2}, RaySettings(gpus_per_actor=0.25), (8, {"num_gpus": 0.25, "num_cpus": 0.5})),
        ({"CPU": 8, "GPU": 2}, RaySettings(gpus_per_actor=0), (7, {"num_cpus": 1})),
    ],
)
def test_actors_leave_a_cpu_free_or_share_the_gpus(cluster, settings, expected):
    assert size_actors(cluster, settings, 100) == expected


def test_no_more_actors_start_than_there_is_work():
    assert size_actors({"CPU": 64}, RaySettings(), 3)[0] == 3


@pytest.mark.parametrize(
    ("cluster", "settings", "message"),
    [
        ({"CPU": 2}, RaySettings(num_actors=3), "3 actors, but the cluster has room for 2"),
        ({"CPU": 2}, RaySettings(gpus_per_actor=0.5), "0 GPUs"),
        ({"CPU": 1, "GPU": 8}, RaySettings(num_actors=3), "room for 2"),
    ],
)
def test_actors_that_do_not_fit_are_refused_instead_of_waiting_for_ever(cluster, settings, message):
    with pytest.raises(ArgumentError, match=message):
        size_actors(cluster, settings, 100)


def test_a_unit_of_work_is_a_few_batches_of_files_or_a_shard():
    files = [Source(f"/{i}.png", f"{i}.png") for i in range(5)]
    units = make_units([*files, Source("/s.tar", "s.tar")], {"/s.tar#a.png"}, 3)
    assert [unit["size"] for unit in units] == [3, 2, 1]
    assert units[2]["done"] == ["/s.tar#a.png"]


@pytest.mark.parametrize(("num_files", "num_actors", "size"), [(8, 1, 4), (64, 1, 16), (64, 4, 4), (4000, 4, 32)])
def test_each_actor_gets_several_units(num_files, num_actors, size):
    units = make_units([Source(f"/{i}.png", f"{i}.png") for i in range(num_files)], set(), 4, num_actors)
    assert {unit["size"] for unit in units} == {size}


def test_a_predictor_cannot_travel_to_the_actors(tmp_path, small, monkeypatch):
    monkeypatch.setattr("florence_lab.labeling.labelling.import_ray", lambda: None)
    with pytest.raises(ArgumentError, match="pass its name or folder"):
        label(draw_images(tmp_path / "images", 1), ["cat"], tmp_path / "data", model=small, engine="ray")


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ArgumentError, match=r"florence_lab\[ray\]"):
        label(draw_images(tmp_path / "images", 1), ["cat"], tmp_path / "data", engine="ray")


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("actors", [1, 2])
def test_200_images_get_the_labels_of_the_local_engine(tmp_path, actors):
    """With two actors, also: on two CPUs they hold both, and nothing else must need one."""
    images = draw_images(tmp_path / "images", 200)
    (images / "broken.png").write_bytes(b"no image")
    run(command(images, tmp_path / "ray", "ray", actors=actors))
    run(command(images, tmp_path / "local"))
    for name in ("labels.jsonl", "errors.jsonl", "train/_annotations.coco.json"):
        assert (tmp_path / "ray" / name).read_text() == (tmp_path / "local" / name).read_text()


@needs_ray
@pytest.mark.slow
def test_shards_give_the_labels_of_the_local_engine(tmp_path):
    import tarfile

    images = draw_images(tmp_path / "images", 20)
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for path in sorted(images.iterdir())[number::2]:
                archive.add(path, path.name)
    run(command(tmp_path / "*.tar", tmp_path / "ray", "ray"))
    run(command(tmp_path / "*.tar", tmp_path / "local"))
    assert (tmp_path / "ray" / "labels.jsonl").read_text() == (tmp_path / "local" / "labels.jsonl").read_text()


@needs_ray
@pytest.mark.slow
def test_a_killed_actor_loses_nothing(tmp_path):
    images, out, pids = draw_images(tmp_path / "images", 40), tmp_path / "data", tmp_path / "pids"
    process = subprocess.Popen(
        command(images, out, "ray", seconds=0.1, pids=pids),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    wait_for(lambda: num_rows(out) >= 8)
    actor = int(pids.read_text().split()[-1])  # the driver has written its own before
    assert actor != process.pid
    os.kill(actor, signal.SIGKILL)
    shown = process.communicate(timeout=300)[0]
    assert process.returncode == 0
    assert len(pids.read_text().split()) >= 3  # another actor has started
    assert "40 images (40 train)" in shown
    rows = (out / "labels.jsonl").read_text().splitlines()
    assert len(rows) == 40


@needs_ray
@pytest.mark.slow
def test_a_killed_driver_loses_at_most_one_batch_of_each_actor(tmp_path):
    images, out, pids = draw_images(tmp_path / "images", 60), tmp_path / "data", tmp_path / "pids"
    process = subprocess.Popen(
        command(images, out, "ray", seconds=0.1, pids=pids),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: num_rows(out) >= 12)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert 12 <= num_rows(out) < 60
        wait_for(lambda: not is_alive(int(pids.read_text().split()[-1])), 120)
        kept = num_rows(out)
    finally:
        end_session(process.pid)
    shown = run(command(images, out))
    assert f"60 images (60 train), {60 - kept} asked in this run" in shown


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end_session(session):
    """End the processes of a session, which a killed driver of Ray leaves behind. `ray stop` would end those of others, too."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_member = os.getsid(int(entry.name)) == session
        except OSError:
            continue
        if is_member:
            try:
                os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
