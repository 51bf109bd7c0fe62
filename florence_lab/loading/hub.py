"""Finding models on this machine and downloading them from ModelScope and Hugging Face."""

from __future__ import annotations

import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, HubError, shorten, summarize_error, unknown_name
from ..network import run_with_timeout
from .files import is_complete
from .registry import MODELS

PROBE_SECONDS = 4.0
"""Time limit for the first contact with a hub."""

_MAX_HUB_ID = 200
_HUB_ID_RE = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

# Folders below ModelScope's cache in which its releases have stored models, the current one first. The second is also where
# files can be placed by hand: ModelScope looks there too.
_MANUAL_LAYOUT = "models/{owner}/{safe_name}"
_MODELSCOPE_LAYOUTS = (
    "models/{owner}--{name}/snapshots/master",
    _MANUAL_LAYOUT,
    "models/{owner}--{name}/snapshots/*",
    "hub/models/{owner}/{safe_name}",
    "hub/{owner}/{safe_name}",
    "{owner}/{safe_name}",
)

_HTTP_ERRORS = {
    401: "the model does not exist, or requires a login ({token})",
    403: "access was denied; accept the model's terms on the hub, or log in ({token})",
    404: "the hub has no such model",
}


class _Hub(ABC):
    """A hub with its cache on this machine.

    Attributes:
        title: its name in messages.
        token: the environment variable of its access token.
    """

    title: str
    token: str

    @abstractmethod
    def endpoint(self) -> str:
        """Return the URL of the hub. Raises a HubError if the environment forbids the network."""

    @abstractmethod
    def cached_dirs(self, repo_id: str) -> Iterator[Path]:
        """Yield the folders of the cache that may contain a model, the most recent layout or revision first."""

    @abstractmethod
    def download(self, repo_id: str, patterns: list[str]) -> str:
        """Download the files that match the patterns and return their folder."""


class _ModelScope(_Hub):
    title = "ModelScope"
    token = "MODELSCOPE_API_TOKEN"

    def endpoint(self) -> str:
        endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or "modelscope.cn"
        return endpoint if "://" in endpoint else f"https://{endpoint}"

    def cached_dirs(self, repo_id: str) -> Iterator[Path]:
        # The layouts are listed here because importing modelscope takes seconds.
        for layout in _MODELSCOPE_LAYOUTS:
            yield from sorted(self.cache().glob(self.format_layout(layout, repo_id)))

    def download(self, repo_id: str, patterns: list[str]) -> str:
        from modelscope import snapshot_download

        with suppress_logs("modelscope", "modelscope_hub"):
            # Given explicitly, as the library keeps the cache and endpoint of its first use.
            folder = snapshot_download(
                repo_id, allow_patterns=patterns, cache_dir=str(self.cache()), endpoint=self.endpoint()
            )
        return str(folder)

    @staticmethod
    def cache() -> Path:
        return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()

    @staticmethod
    def format_layout(layout: str, repo_id: str) -> str:
        owner, name = repo_id.split("/")
        return layout.format(owner=owner, name=name, safe_name=name.replace(".", "___"))


class _HuggingFace(_Hub):
    title = "Hugging Face"
    token = "HF_TOKEN"

    def endpoint(self) -> str:
        from huggingface_hub import constants, is_offline_mode

        if is_offline_mode():
            raise HubError("HF_HUB_OFFLINE is set, which forbids network access")
        return str(constants.ENDPOINT)

    def cached_dirs(self, repo_id: str) -> Iterator[Path]:
        from huggingface_hub import constants, try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            main = try_to_load_from_cache(repo_id, "config.json", cache_dir=constants.HF_HUB_CACHE)
        except HFValidationError:  # not an id of this hub: ModelScope accepts more names
            return
        if isinstance(main, str):
            yield Path(main).parent
        repo = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
        yield from sorted(repo.glob("snapshots/*"))

    def download(self, repo_id: str, patterns: list[str]) -> str:
        from huggingface_hub import snapshot_download

        with suppress_logs("huggingface_hub"):
            return str(snapshot_download(repo_id, allow_patterns=patterns))


HUBS: dict[str, _Hub] = {"modelscope": _ModelScope(), "hf": _HuggingFace()}
"""Name of a hub -> the hub."""


@validate_arguments
def resolve(model_type_or_path: str | Path, hub: str | None = None) -> Path:
    """Return the folder of a model on this machine. It is downloaded only if neither hub's cache contains it.

    Args:
        model_type_or_path: one of `available_models()`, a folder, or a hub id such as `"microsoft/Florence-2-base"`. A `Path`
            is always a folder.
        hub: `"modelscope"` or `"hf"`, whose cache is searched first and from which the model is downloaded; by default the
            environment variable `FLORENCE_LAB_HUB`, else ModelScope. A model that ships with the package needs no hub.

    Raises:
        HubError: if the folder does not exist, or if the model cannot be downloaded.
        ArgumentError: if the name is neither a known model, a folder nor a hub id; or for an unknown hub.
    """
    hub = _choose_hub(hub)
    found = find_cached(model_type_or_path, hub)
    if found is not None:
        return found
    return _download(_hub_ids(str(model_type_or_path)), hub, "; or 'florence-2-nano', which needs no network")


@validate_arguments
def resolve_other(kind: str, name: str | Path, known: Mapping[str, str], hub: str | None = None) -> Path:
    """Return the folder of a model of another kind than Florence-2 on this machine, such as SAM 2; see `resolve`.

    Args:
        kind: the kind, for messages.
        name: a key of `known`, a folder, or a hub id.
        known: short name -> hub id.
        hub: as for `resolve`.

    Raises:
        HubError, ArgumentError: as `resolve`.
    """
    hub = _choose_hub(hub)
    if str(name) not in known and _is_path(name):
        return _existing_folder(Path(name))
    repo_id = known.get(str(name), str(name))
    if not _is_hub_id(repo_id):
        raise ArgumentError(_unknown_model(kind, repo_id, known))
    ids = dict.fromkeys(HUBS, repo_id)
    return _find_in_caches(ids, hub) or _download(ids, hub)


@validate_arguments
def find_cached(model_type_or_path: str | Path, hub: str = "modelscope") -> Path | None:
    """Return the folder of a model on this machine; None if it would have to be downloaded.

    Args, Raises: as `resolve`; the cache of `hub` is searched first.
    """
    info = MODELS.get(str(model_type_or_path))
    if info is not None and info.path is not None:
        return _existing_folder(info.path)
    if info is None and _is_path(model_type_or_path):
        return _existing_folder(Path(model_type_or_path))
    return _find_in_caches(_hub_ids(str(model_type_or_path)), hub)


def _choose_hub(hub: str | None) -> str:
    variable = None if hub is not None else os.environ.get("FLORENCE_LAB_HUB")
    hub = hub if hub is not None else variable or "modelscope"
    if hub not in HUBS:
        raise ArgumentError(unknown_name("FLORENCE_LAB_HUB" if variable else "hub", hub, HUBS))
    return hub


def _find_in_caches(ids: dict[str, str], hub: str) -> Path | None:
    for name in sorted(HUBS, key=lambda name: name != hub):
        for folder in HUBS[name].cached_dirs(ids[name]):
            if is_complete(folder):
                return folder
    return None


def _is_path(text: str | Path) -> bool:
    """Whether a name is a path: it exists, or is spelled as only a path can be."""
    if isinstance(text, Path):
        return True
    try:
        return bool(text.strip()) and (text.startswith((".", "/", "~", os.sep)) or "\\" in text or Path(text).exists())
    except OSError:  # a name that is too long
        return False


def _existing_folder(path: Path) -> Path:
    try:
        path = path.expanduser()
        if not path.is_dir():
            problem = "is a file; pass the folder that contains it" if path.exists() else "does not exist"
            raise HubError(f"the model folder {_display(path)} {problem}")
    except RuntimeError as error:  # ~user of a user who does not exist
        raise HubError(f"the model folder {_display(path)} does not exist: {error}") from None
    except OSError as error:
        if isinstance(error, HubError):
            raise
        raise HubError(f"the model folder {_display(path)} cannot be read: {error.strerror}") from error
    return path


def _display(path: Path) -> str:
    text = str(path)
    return text if len(text) < 300 and text.isprintable() else shorten(text)


def _hub_ids(name: str) -> dict[str, str]:
    """The id of a model on each hub. Known models have different ids, and any of their names leads to both."""
    for info in MODELS.values():
        if info.modelscope_id and info.hf_id and name in (info.model_type, info.modelscope_id, info.hf_id):
            return {"modelscope": info.modelscope_id, "hf": info.hf_id}
    if _is_hub_id(name):
        return dict.fromkeys(HUBS, name)
    raise ArgumentError(_unknown_model("model_type", name, MODELS))


def _is_hub_id(name: str) -> bool:
    return len(name) <= _MAX_HUB_ID and _HUB_ID_RE.fullmatch(name) is not None


def _unknown_model(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is neither known, nor a folder, nor a hub id."""
    message = unknown_name(kind, name if len(name) <= _MAX_HUB_ID else shorten(name)[1:-1], known)
    hint = "" if name.strip() else ". An empty name is what a variable of the shell gives that is not set"
    return f"{message}; an existing folder or a hub id 'organization/name' is accepted too{hint}"


def _download(ids: dict[str, str], hub: str, further: str = "") -> Path:
    """Download a model. `further` is what else would do, for the message of an error."""
    try:
        check_reachable(HUBS[hub])
        return _download_files(HUBS[hub], ids[hub])
    except HubError as error:
        manual_dir = _ModelScope.cache() / _ModelScope.format_layout(_MANUAL_LAYOUT, ids["modelscope"])
        other = next(name for name in HUBS if name != hub)
        raise HubError(
            f"cannot download {ids[hub]} from {HUBS[hub].title}: {error}. Alternatives: hub={other!r}; the files of the model "
            f"(config.json, the tokenizer, and model.safetensors or pytorch_model.bin) placed in {manual_dir}, where they are "
            f"found by the next call{further}"
        ) from error.__cause__


def check_reachable(hub: _Hub) -> None:
    """Raise a HubError within seconds if the hub is not reachable. The libraries retry for minutes."""
    import requests

    endpoint = hub.endpoint()
    try:
        run_with_timeout(PROBE_SECONDS, lambda: requests.head(endpoint, timeout=PROBE_SECONDS))
    except (requests.RequestException, TimeoutError) as error:
        raise HubError(f"{endpoint} is not reachable ({summarize_error(error)})") from None


def _download_files(hub: _Hub, repo_id: str) -> Path:
    """Download configuration, tokenizer and weights: safetensors if there are any, else PyTorch's. Never code."""
    try:
        for weights in ("*.safetensors", "pytorch_model*.bin"):
            folder = Path(hub.download(repo_id, ["*.json", "*.txt", weights]))
            if is_complete(folder):
                return folder
    except Exception as error:  # the libraries raise many unrelated types: HTTP, disk, integrity, their own
        template = _HTTP_ERRORS.get(_http_status(error) or 0)
        reason = template.format(token=hub.token) if template else summarize_error(error)
        raise HubError(f"{reason} ({hub.endpoint()})") from error
    raise HubError(f"the repository has no config.json with weights ({hub.endpoint()})")


def _http_status(error: BaseException | None) -> int | None:
    """The HTTP status of a library's error, or None."""
    while error is not None:
        response = getattr(error, "response", None)
        status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
        if status:
            return int(status)
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def suppress_logs(*names: str) -> Iterator[None]:
    """Show only errors of the named loggers. Progress bars are not log messages and stay."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
