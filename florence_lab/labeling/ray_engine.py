"""Labelling on many machines with Ray Data."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm.auto import tqdm

from ..exceptions import ArgumentError, summarize_error
from .batches import BatchCount, label_items, missing_items
from .labeler import BatchLabeler
from .parts import PartStore
from .sources import Source

logger = logging.getLogger(__name__)

_CPUS_BESIDE_GPU = 0.5
_UNITS_PER_ACTOR = 4
_START_ATTEMPTS = 3  # Ray gives up after 30 s, which a busy machine may need
_PROBE_SECONDS = 5.0  # for the first contact with a cluster
_MAX_BATCHES = 8  # in a unit of work

LoadLabeler = Callable[[], BatchLabeler]
"""Loads the model in an actor."""


@dataclass(frozen=True)
class RaySettings:
    """How the work is distributed.

    Attributes:
        address: of a running cluster, or `"auto"`; None takes the environment variable `RAY_ADDRESS`, or else starts Ray on this
            machine.
        num_actors: processes with a model; by default one for each share of a GPU, or one for each CPU but one.
        gpus_per_actor: the share of a GPU for each actor; None is 1 where the cluster has GPUs, else 0.
    """

    address: str | None = None
    num_actors: int | None = None
    gpus_per_actor: float | None = None


def import_ray() -> ModuleType:
    """Import Ray.

    Raises:
        ArgumentError: if it is not installed.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ArgumentError('--engine ray needs Ray: pip install "florence_lab[ray]"') from error
    return ray


def run_with_ray(
    load_labeler: LoadLabeler,
    sources: Sequence[Source],
    done: set[str],
    store: PartStore,
    batch_size: int,
    settings: RaySettings,
) -> BatchCount:
    """Label all images that have no labels yet, and return their number and that of errors.

    A row of the dataset is a unit of work: the paths of a few batches of images, or a shard. An actor reads the images itself, so that
    no task of Ray waits for a CPU that the actors hold, and writes the part of each batch itself, so that a killed driver or
    actor loses at most one batch of each actor. The files and the output folder are on a file system that all machines share.

    Args:
        load_labeler: loads the model, once in each actor. It must be picklable.
        sources, done, store, batch_size: as in `run_locally`.
        settings: how the work is distributed.

    Raises:
        ArgumentError: without Ray, for a cluster that cannot be reached, and for actors that do not fit into it.
    """
    ray = import_ray()
    sources = [source for source in sources if not source.is_file or source.path not in done]
    if not sources:
        return BatchCount(0, 0)
    is_own = not ray.is_initialized()
    start_ray(ray, settings.address)
    try:
        num_actors, resources = size_actors(ray.cluster_resources(), settings, len(sources))
        units = make_units(sources, done, batch_size, num_actors)
        logger.info("ray: %d actors with %s each, %d units of work", num_actors, resources, len(units))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        dataset = ray.data.from_items(units, override_num_blocks=len(units)).map_batches(
            _LabelUnits,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=num_actors, max_tasks_in_flight_per_actor=2),
            fn_constructor_args=(load_labeler, str(store.folder), store.run, batch_size),
            **resources,
        )
        return _consume(dataset, sum(unit["size"] for unit in units), any(unit["is_open"] for unit in units))
    finally:
        if is_own:
            ray.shutdown()


class _LabelUnits:
    """The actor: holds a model, and labels one unit of work at a call."""

    def __init__(self, load_labeler: LoadLabeler, folder: str, run: str, batch_size: int) -> None:
        import ray
        import torch

        if not ray.get_gpu_ids():
            torch.set_num_threads(1)  # an actor has one CPU
        self.labeler = load_labeler()
        self.store = PartStore(Path(folder), run)
        self.batch_size = batch_size

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[int]]:
        """Label the unit of work in a batch of one row."""
        num_images = num_errors = 0
        for sources, done in zip(rows["sources"], rows["done"], strict=True):
            items = missing_items([Source(*source) for source in sources], set(done))
            for count in label_items(self.labeler, items, self.store, self.batch_size):
                num_images += count.images
                num_errors += count.errors
        return {"images": [num_images], "errors": [num_errors]}


def make_units(sources: Sequence[Source], done: set[str], batch_size: int, num_actors: int = 1) -> list[dict[str, Any]]:
    """Return the units of work as rows for Ray: a few batches of files, and each shard or video by itself.

    Args:
        sources: what is labelled, without files that have labels.
        done, batch_size: as in `run_with_ray`.
        num_actors: who share the work. Each gets several units, so that all finish at about the same time.
    """
    files = [source for source in sources if source.is_file]
    num_batches = -(-len(files) // batch_size)
    size = batch_size * min(_MAX_BATCHES, max(1, num_batches // (_UNITS_PER_ACTOR * num_actors)))
    groups = [files[start : start + size] for start in range(0, len(files), size)]
    groups += [[source] for source in sources if not source.is_file]
    return [
        {
            "sources": [[source.path, source.name, source.signature] for source in group],
            "done": [] if group[0].is_file else [key for key in done if key.startswith(f"{group[0].path}#")],
            "size": len(group),
            "is_open": not group[0].is_file,
        }
        for group in groups
    ]


def start_ray(ray: ModuleType, address: str | None) -> None:
    """Join a cluster, or start Ray on this machine, unless this process has done so already.

    Args:
        ray: the module.
        address: see `RaySettings`.

    Raises:
        ArgumentError: if there is no cluster at the address, or if Ray does not start.
    """
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        _check_reachable(address)
    # "local", as Ray looks for a cluster by default, and waits for minutes for one whose processes were killed
    options: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
    for attempt in range(1, _START_ATTEMPTS + 1):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # Ray raises its own types and those of networks
            ray.shutdown()
            if address:
                raise ArgumentError(f"there is no Ray cluster at {address}: {summarize_error(error)}") from error
            if attempt == _START_ATTEMPTS:
                raise ArgumentError(f"Ray does not start: {summarize_error(error)}") from error
        else:
            return


def _check_reachable(address: str) -> None:
    """Raise an ArgumentError within seconds if nothing listens at an address. Ray waits for minutes."""
    place = address
    if address == "auto":
        folder = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray"  # noqa: S108  # it is only read
        try:
            place = (folder / "ray_current_cluster").read_text(encoding="utf-8").strip()
        except OSError:
            return  # Ray has no address to wait for, and says so
    host, _, port = place.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PROBE_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        described = address if place == address else f"{address}, which is {place}"
        raise ArgumentError(
            f"there is no Ray cluster at {described}: {summarize_error(error)}. Start one with 'ray start --head', or leave the "
            "address out to start Ray on this machine"
        ) from error


def size_actors(cluster: Mapping[str, float], settings: RaySettings, num_sources: int) -> tuple[int, dict[str, float]]:
    """Return the number of actors, and the resources of each. On CPUs one is left free for Ray's own tasks.

    Args:
        cluster: resource -> amount, as `ray.cluster_resources` gives it.
        settings: what was asked for.
        num_sources: files to label, each of which is work for one actor at most.

    Raises:
        ArgumentError: for more actors than fit, which would wait for ever.
    """
    cpus, gpus = cluster.get("CPU", 1.0), cluster.get("GPU", 0.0)
    share = settings.gpus_per_actor if settings.gpus_per_actor is not None else float(gpus >= 1)
    if share > gpus:
        raise ArgumentError(f"{share:g} of a GPU for each actor, but the cluster has {gpus:g} GPUs")
    fitting = int(min(gpus / share + 1e-6, cpus / _CPUS_BESIDE_GPU)) if share else int(cpus)
    default = fitting if share else max(1, fitting - 1)
    num_actors = settings.num_actors or min(default, num_sources)
    if num_actors > fitting:
        raise ArgumentError(
            f"{num_actors} actors, but the cluster has room for {fitting} ({cpus:g} CPUs, {gpus:g} GPUs)"
        )
    return num_actors, {"num_gpus": share, "num_cpus": _CPUS_BESIDE_GPU} if share else {"num_cpus": 1}


def _consume(dataset: Any, total: int, is_open: bool) -> BatchCount:
    """Run the dataset with a progress bar."""
    num_images = num_errors = 0
    with tqdm(total=None if is_open else total, desc="label", unit="image") as bar:
        for batch in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            num_errors += int(sum(batch["errors"]))
            count = int(sum(batch["images"]))
            num_images += count
            bar.set_postfix(errors=num_errors, refresh=False)
            bar.update(count)
    return BatchCount(num_images, num_errors)
