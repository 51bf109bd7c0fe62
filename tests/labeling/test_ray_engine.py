"""Labelling with Ray Data. Ray takes half a minute to start, so these tests are slow, apart from the arithmetic."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from stand_in import draw_images

from florence_lab import label
from florence_lab.exceptions import ArgumentError
from florence_lab.labeling import ray_engine
from florence_lab.labeling.ray_engine import RaySettings, make_units, size_actors
from florence_lab.labeling.sources import Source

TESTS = Path(__file__).parents[1]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")

SCRIPT = """
import functools, sys
from florence_lab.detection.ontology import Ontology
from florence_lab.labeling.assembly import DatasetLayout
from florence_lab.labeling.labelling import label_sources
from florence_lab.labeling import ray_engine
from florence_lab.labeling.ray_engine import RaySettings
from florence_lab.labeling.sources import list_label_sources
from stand_in import NAMES, StandIn

images, out, engine, actors, pids, gate = sys.argv[1:]
print(label_sources(
    functools.partial(StandIn, pid_file=pids, gate=gate), list_label_sources(images), out,
    DatasetLayout("coco", Ontology.from_classes(NAMES)), 4,
    None if engine == "local" else RaySettings(num_actors=int(actors)),
))
"""


ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}


PATIENCE = 600
"""Seconds without progress after which a test gives up: Ray starts in half a minute, and in minutes on a busy machine."""


class Run:
    """A process of its own, in a session of its own, that labels images. All processes of the session end with the block."""

    def __init__(self, images, out, engine="local", actors=1, pids="", gate=""):
        self.out = Path(out)
        words = [sys.executable, "-c", SCRIPT, *map(str, (images, out, engine, actors, pids, gate))]
        self.process = subprocess.Popen(
            words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.shown = ["", ""]
        pipes = (self.process.stdout, self.process.stderr)
        self.readers = [
            threading.Thread(target=self._read, args=(i, pipe), daemon=True) for i, pipe in enumerate(pipes)
        ]
        for reader in self.readers:
            reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end_session(self.process.pid)
        self.process.wait()

    def wait_for(self, condition):
        """Wait until a condition holds, as long as parts of the output are written or messages printed now and then."""
        state, deadline = None, time.monotonic() + PATIENCE
        while not condition():
            if (now := (num_rows(self.out), *map(len, self.shown))) != state:
                state, deadline = now, time.monotonic() + PATIENCE
            assert time.monotonic() < deadline, f"no progress: {self.shown[1][-2000:]}"
            time.sleep(0.05)

    def finish(self):
        """Wait until the process ends, and return what it has printed."""
        self.wait_for(lambda: self.process.poll() is not None)
        for reader in self.readers:
            reader.join(10)
        assert self.process.returncode == 0, self.shown[1][-2000:]
        return self.shown[0]

    def wait_for_rows(self, count):
        """Wait until images are labelled."""
        self.wait_for(lambda: num_rows(self.out) >= count or self.process.poll() is not None)
        assert num_rows(self.out) >= count, self.shown[1][-2000:]

    def _read(self, index, pipe):
        for line in pipe:
            self.shown[index] += line


def run(*arguments, **options):
    with Run(*arguments, **options) as started:
        return started.finish()


def num_rows(out):
    return sum(len(part.read_text().splitlines()) for part in (out / ".parts").glob("part-*.jsonl"))


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


class FakeRay:
    """The functions of Ray that start it. `failures` are raised by the first calls of `init`."""

    def __init__(self, *failures):
        self.failures, self.options = list(failures), []

    def is_initialized(self):
        return False

    def init(self, **options):
        self.options.append(options)
        if self.failures:
            raise self.failures.pop(0)

    def shutdown(self):
        pass


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Start a stand-in for Ray, and return the addresses that it is given."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(address, *failures):
        ray = FakeRay(*failures)
        ray_engine.start_ray(ray, address)
        return [options["address"] for options in ray.options]

    return run


def test_ray_on_this_machine_does_not_look_for_a_cluster_of_an_earlier_run(start):
    assert start(None) == ["local"]


def test_a_start_that_fails_on_a_busy_machine_is_tried_again(start):
    assert start(None, RuntimeError("The current node timed out during startup")) == ["local", "local"]
    with pytest.raises(ArgumentError, match="Ray does not start: no"):
        start(None, *[RuntimeError("no")] * 9)


def test_a_cluster_that_answers_is_joined(start, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"{address}\n")
        assert start(address) == [address]
        assert start(f"ray://{address}") == [f"ray://{address}"]
        assert start("auto") == ["auto"]
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert start(None) == [address]


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9", "ray://127.0.0.1:9", "[::1]:9", "nowhere", "", "x:y", "a:99999", "auto"]
)
def test_a_cluster_that_does_not_answer_is_named_at_once(start, tmp_path, address, monkeypatch):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # for the empty address
    begin = time.monotonic()
    with pytest.raises(ArgumentError, match=r"there is no Ray cluster at .*ray start --head"):
        start(address)
    assert time.monotonic() - begin < 10


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("actors", [1, 2])
def test_200_images_get_the_labels_of_the_local_engine(tmp_path, actors):
    """With two actors, also: on two CPUs they hold both, and nothing else must need one."""
    images = draw_images(tmp_path / "images", 200)
    (images / "broken.png").write_bytes(b"no image")
    run(images, tmp_path / "ray", "ray", actors=actors)
    run(images, tmp_path / "local")
    for name in ("labels.jsonl", "errors.jsonl", "train/_annotations.coco.json"):
        assert (tmp_path / "ray" / name).read_text() == (tmp_path / "local" / name).read_text()


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_give_the_labels_of_the_local_engine(tmp_path, kind):
    paths = sorted(draw_images(tmp_path / "images", 20).iterdir())
    for number in range(2):
        SHARD_WRITERS[kind](tmp_path / f"{number}.{kind}", paths[number::2])
    pattern = tmp_path / f"*.{kind}"
    run(pattern, tmp_path / "ray", "ray")
    run(pattern, tmp_path / "local")
    labels = (tmp_path / "ray" / "labels.jsonl").read_text()
    assert len(labels.splitlines()) == 20
    assert labels == (tmp_path / "local" / "labels.jsonl").read_text()


def write_tar(path, images):
    with tarfile.open(path, "w") as archive:
        for image in images:
            archive.add(image, image.name)


def write_parquet(path, images):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [{"bytes": image.read_bytes(), "path": image.name} for image in images]}), path)


SHARD_WRITERS = {"tar": write_tar, "parquet": write_parquet}


@needs_ray
@pytest.mark.slow
def test_a_killed_actor_loses_nothing(tmp_path):
    images, pids, gate = draw_images(tmp_path / "images", 40), tmp_path / "pids", tmp_path / "gate"
    with Run(images, tmp_path / "data", "ray", pids=pids, gate=gate) as started:
        started.wait_for_rows(4)
        actor = int(pids.read_text().split()[-1])  # the driver has written its own before
        assert actor != started.process.pid
        os.kill(actor, signal.SIGKILL)
        gate.touch()
        assert "40 images (40 train)" in started.finish()
    assert len(pids.read_text().split()) >= 3  # another actor has started
    assert len((tmp_path / "data" / "labels.jsonl").read_text().splitlines()) == 40


@needs_ray
@pytest.mark.slow
def test_a_killed_driver_loses_at_most_one_batch_of_each_actor(tmp_path):
    images, out, pids, gate = (
        draw_images(tmp_path / "images", 60),
        tmp_path / "data",
        tmp_path / "pids",
        tmp_path / "gate",
    )
    with Run(images, out, "ray", pids=pids, gate=gate) as started:
        started.wait_for_rows(4)
        actor = int(pids.read_text().split()[-1])
        started.process.send_signal(signal.SIGKILL)
        started.process.wait()
        started.wait_for(lambda: not is_alive(actor))
        assert num_rows(out) == 4
    assert "60 images (60 train), 56 asked in this run" in run(images, out)


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
