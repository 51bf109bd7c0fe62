"""TODO"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..exceptions import HubError, summarize_error, unknown_name
from ..network import run_with_timeout
from .files import _is_complete
from .registry import MODELS

PROBE_SECONDS = 4.0

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

# Folders below ModelScope's cache root in which its releases have kept a model, today's first. The plain one
# is also where a person puts files by hand: ModelScope itself looks there too.
BY_HAND = "models/{owner}/{safe_name}"

MODELSCOPE_LAYOUTS = (
    "models/{owner}--{name}/snapshots/master",
    BY_HAND,
    "models/{owner}--{name}/snapshots/*",
    "hub/models/{owner}/{safe_name}",
    "hub/{owner}/{safe_name}",
    "{owner}/{safe_name}",
)

REFUSALS = {
    401: "it does not exist, or needs a login ({token})",
    403: "access was refused; accept its terms on the hub, or log in ({token})",
    404: "there is no such model on this hub",
}


@dataclass(frozen=True)
class _Hub:
    title: str
    token: str
    endpoint: Callable[[], str]
    cached_folders: Callable[[str], Iterator[Path]]
    download: Callable[[str, list[str]], str]


def resolve(model_id_or_path: str | Path, hub: str | None = None) -> Path:
    """Give the folder on this machine that holds a model, downloading it only when no cache has it.

    Args:
        model_id_or_path: a `model_type` of the catalogue, a folder, or a hub id such as
            `"microsoft/Florence-2-base"`. A `Path` is always a folder.
        hub: `"modelscope"` or `"hf"`, where to look and download first; `None` means the environment variable
            `FLORENCE_LAB_HUB`, else `"modelscope"`. A model that ships with the package needs no hub.

    Raises:
        HubError: no such folder; or the model is in neither hub's cache and could not be downloaded.
        ValueError: neither a model type, a folder, nor a hub id; or an unknown hub.
    """
    hub = hub or os.environ.get("FLORENCE_LAB_HUB") or "modelscope"
    if hub not in HUBS:
        raise ValueError(unknown_name("hub", hub, HUBS))
    return find_cached(model_id_or_path, hub) or _download(_hub_ids(model_id_or_path), hub)


def find_cached(model_id_or_path: str | Path, hub: str = "modelscope") -> Path | None:
    """The folder on this machine that holds a model, None if it would have to be downloaded.

    Args, raises: as `resolve`; that `hub`'s cache is looked into first.
    """
    if model_id_or_path in MODELS:
        shipped = MODELS[model_id_or_path].path
        if shipped:
            return _existing_folder(shipped)
    elif _is_folder(model_id_or_path):
        return _existing_folder(Path(model_id_or_path))
    ids = _hub_ids(model_id_or_path)
    for name in sorted(HUBS, key=lambda name: name != hub):
        for folder in HUBS[name].cached_folders(ids[name]):
            if _is_complete(folder):
                return folder
    return None


def _is_folder(text: str | Path) -> bool:
    """Whether a person means a folder: it exists, or is spelled as only a path is."""
    if isinstance(text, Path):
        return True
    return bool(text) and (text.startswith((".", "/", "~", os.sep)) or "\\" in text or Path(text).exists())


def _existing_folder(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_dir():
        problem = "is a file: give the folder that holds it" if path.exists() else "does not exist"
        raise HubError(f"the model folder {path} {problem}")
    return path


def _hub_ids(name: str) -> dict[str, str]:
    """The model's id on each hub. A catalogued model's ids differ, and any of its names leads to them all."""
    for info in MODELS.values():
        if not info.path and name in (info.model_type, info.modelscope_id, info.hf_id):
            return {"modelscope": info.modelscope_id, "hf": info.hf_id}
    if HUB_ID.fullmatch(name):
        return dict.fromkeys(HUBS, name)
    known = unknown_name("model_type", name, MODELS)
    raise ValueError(f"{known}; an existing folder or a hub id 'organisation/name' would do too")


def _download(ids: dict[str, str], hub: str) -> Path:
    """Download from `hub`; where that fails, say why and what else a person can do."""
    try:
        _check_reachable(HUBS[hub])
        return _download_data(HUBS[hub], ids[hub])
    except HubError as error:
        by_hand = _modelscope_cache() / BY_HAND.format(**_id_parts(ids["modelscope"]))
        other = next(name for name in HUBS if name != hub)
        raise HubError(
            f"cannot download {ids[hub]} from {HUBS[hub].title}: {error}. What else would do: hub={other!r}; "
            "the model's files (config.json, the tokenizer's, and model.safetensors or pytorch_model.bin) "
            f"put by hand in {by_hand}, where the next call finds them; or 'florence-2-nano', which needs no "
            "network"
        ) from error.__cause__


def _check_reachable(hub: _Hub) -> None:
    """Raise `HubError` within seconds when there is no network; the libraries would retry for minutes."""
    import requests

    endpoint = hub.endpoint()
    try:
        run_with_timeout(PROBE_SECONDS, lambda: requests.head(endpoint, timeout=PROBE_SECONDS))
    except (requests.RequestException, TimeoutError) as error:
        raise HubError(f"{endpoint} cannot be reached ({summarize_error(error)})") from None


def _download_data(hub: _Hub, model_id: str) -> Path:
    """Bring a model's data here: safetensors where it has them, else PyTorch's weights; never its code."""
    try:
        for weights in ("*.safetensors", "pytorch_model*.bin"):
            folder = Path(hub.download(model_id, ["*.json", "*.txt", weights]))
            if _is_complete(folder):
                return folder
    except Exception as error:  # the libraries raise many unrelated kinds: HTTP, disk, integrity, their own
        refusal = REFUSALS.get(_status(error))
        reason = refusal.format(token=hub.token) if refusal else summarize_error(error)
        raise HubError(f"{reason} ({hub.endpoint()})") from error
    raise HubError(f"it has no config.json with weights beside it ({hub.endpoint()})")


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind a library's error, or `None`."""
    while error is not None:
        response = getattr(error, "response", None)
        status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
        if status:
            return status
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Let only errors through the named loggers; progress bars are no log messages and stay."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _id_parts(model_id: str) -> dict[str, str]:
    owner, name = model_id.split("/")
    return {"owner": owner, "name": name, "safe_name": name.replace(".", "___")}


def _modelscope_cache() -> Path:
    return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()


def _modelscope_folders(model_id: str) -> Iterator[Path]:
    # Its layouts are listed here because asking the library costs seconds of import for each cached load.
    for layout in MODELSCOPE_LAYOUTS:
        yield from sorted(_modelscope_cache().glob(layout.format(**_id_parts(model_id))))


def _modelscope_endpoint() -> str:
    endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or "modelscope.cn"
    return endpoint if "://" in endpoint else f"https://{endpoint}"


def _modelscope_download(model_id: str, patterns: list[str]) -> str:
    from modelscope import snapshot_download

    with _quiet("modelscope", "modelscope_hub"):
        # Said outright, since the library keeps the cache and the endpoint that it read when first used.
        where = {"cache_dir": str(_modelscope_cache()), "endpoint": _modelscope_endpoint()}
        return snapshot_download(model_id, allow_patterns=patterns, **where)


def _hf_folders(model_id: str) -> Iterator[Path]:
    from huggingface_hub import constants

    repo = Path(constants.HF_HUB_CACHE) / f"models--{model_id.replace('/', '--')}"
    main = repo / "refs" / "main"
    if main.is_file():
        yield repo / "snapshots" / main.read_text(encoding="utf-8").strip()
    yield from sorted(repo.glob("snapshots/*"))


def _hf_endpoint() -> str:
    from huggingface_hub import constants, is_offline_mode

    if is_offline_mode():
        raise HubError("HF_HUB_OFFLINE is set, which forbids the network")
    return constants.ENDPOINT


def _hf_download(model_id: str, patterns: list[str]) -> str:
    from huggingface_hub import snapshot_download

    with _quiet("huggingface_hub"):
        return snapshot_download(model_id, allow_patterns=patterns)


HUBS = {
    "modelscope": _Hub(
        "ModelScope", "MODELSCOPE_API_TOKEN", _modelscope_endpoint, _modelscope_folders, _modelscope_download
    ),
    "hf": _Hub("Hugging Face", "HF_TOKEN", _hf_endpoint, _hf_folders, _hf_download),
}
