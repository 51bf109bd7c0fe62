"""`resolve`: folders, the caches of both hubs, downloads from a fake repository, and no network."""

import errno
import fnmatch
import json
import re
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import modelscope
import pytest
from huggingface_hub import constants

from florence_lab.exceptions import ArgumentError, HubError
from florence_lab.loading import hub
from florence_lab.loading.hub import HUBS, find_cached, resolve
from florence_lab.loading.registry import get_model_info

MODEL = "florence-2-base"
MODELSCOPE_ID = "AI-ModelScope/Florence-2-base"
HF_ID = "microsoft/Florence-2-base"
HF_SNAPSHOT = "models--microsoft--Florence-2-base/snapshots/abc123"
MODELSCOPE_SNAPSHOT = "models/AI-ModelScope--Florence-2-base/snapshots/master"


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Empty caches, and hubs at a local port without a server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    monkeypatch.delenv("FLORENCE_LAB_HUB", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))  # read from HF_HOME when imported
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    use_endpoint(monkeypatch, dead)
    return {"modelscope": tmp_path / "ms", "hf": tmp_path / "hf"}


def use_endpoint(monkeypatch, endpoint):
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)


@pytest.fixture
def empty_hubs(monkeypatch):
    """Both hubs respond with status 404."""

    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), NotFound)
    Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    use_endpoint(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def fill(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def test_an_existing_folder_is_returned(tmp_path):
    folder = fill(tmp_path / "mine")
    assert resolve(str(folder)) == resolve(folder) == folder
    assert resolve("mine") == Path("mine")  # a plain name that is a folder here


def test_the_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = fill(tmp_path / "mine")
    assert resolve("~/mine") == folder


def test_a_local_folder_takes_precedence_over_a_hub_id(tmp_path):
    fill(tmp_path / HF_ID)
    assert resolve(HF_ID) == Path(HF_ID)


def test_a_shipped_model_needs_no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "HUBS", dict.fromkeys(HUBS))
    info = get_model_info("florence-2-nano")
    if info.path.is_dir():
        assert resolve("florence-2-nano") == info.path
    else:
        with pytest.raises(HubError, match=re.escape(str(info.path))):
            resolve("florence-2-nano")


@pytest.mark.parametrize("path", ["./nope", "../nope/model", "/nope", "~/nope", "runs\\nope", Path("nope")])
def test_a_path_that_does_not_exist_is_refused(path):
    with pytest.raises(HubError, match=r"nope.* does not exist"):
        resolve(path)


def test_a_file_is_not_a_model_folder(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(HubError, match=r"model.safetensors is a file; pass the folder"):
        resolve("model.safetensors")


@pytest.mark.parametrize("word", ["florence-2-lagre", "", "a/b/c", "org/..", "org/", "org/x?y"])
def test_an_unknown_name_is_answered_with_what_is_accepted(word):
    with pytest.raises(ValueError, match=r"florence-2-large.*folder.*hub id") as caught:
        resolve(word)
    assert repr(word) in str(caught.value)


@pytest.mark.parametrize("model", ["some/model--v1", "some/model..v1", "some/model.", "some/model.git"])
def test_an_id_that_hugging_face_forbids_is_searched_on_modelscope(caches, model):
    layout = "models/" + model.replace(".", "___")
    folder = fill(caches["modelscope"] / layout)
    assert resolve(model, "modelscope") == resolve(model, "hf") == folder


@pytest.mark.parametrize("name", HUBS)
def test_an_id_that_hugging_face_forbids_is_a_hub_error_if_it_is_not_cached(empty_hubs, name):
    with pytest.raises(HubError, match=f"cannot download some/model--v1 from {HUBS[name].title}"):
        resolve("some/model--v1", name)


def test_an_unknown_hub_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'github'.*modelscope, hf"):
        resolve(MODEL, hub="github")


@pytest.mark.parametrize(
    ("argument", "variable", "title"),
    [
        (None, None, "ModelScope"),
        (None, "hf", "Hugging Face"),
        ("modelscope", "hf", "ModelScope"),
        ("hf", None, "Hugging Face"),
    ],
)
def test_the_hub_is_the_argument_else_the_variable_else_modelscope(monkeypatch, argument, variable, title):
    if variable:
        monkeypatch.setenv("FLORENCE_LAB_HUB", variable)
    with pytest.raises(HubError, match=f"from {title}:"):
        resolve(MODEL, hub=argument)


@pytest.mark.parametrize("chosen", ["modelscope", "hf"])
@pytest.mark.parametrize(
    ("cache", "layout"),
    [
        ("hf", HF_SNAPSHOT),
        ("modelscope", MODELSCOPE_SNAPSHOT),
        ("modelscope", "models/AI-ModelScope--Florence-2-base/snapshots/v1.0"),
        ("modelscope", "models/AI-ModelScope/Florence-2-base"),
        ("modelscope", "hub/models/AI-ModelScope/Florence-2-base"),
        ("modelscope", "hub/AI-ModelScope/Florence-2-base"),
        ("modelscope", "AI-ModelScope/Florence-2-base"),
    ],
)
def test_a_model_in_either_cache_is_found_under_any_of_its_names(caches, chosen, cache, layout):
    folder = fill(caches[cache] / layout)
    assert resolve(MODEL, chosen) == resolve(HF_ID, chosen) == resolve(MODELSCOPE_ID, chosen) == folder


def test_the_cache_layouts_are_those_of_the_libraries(caches):
    """Models are found where each library finds them."""
    fill(caches["hf"] / HF_SNAPSHOT)
    fill(caches["hf"] / HF_SNAPSHOT / "../../refs", "x")
    (caches["hf"] / HF_SNAPSHOT / "../../refs/main").write_text("abc123")
    assert str(resolve(MODEL, "hf")) == huggingface_hub.snapshot_download(HF_ID, local_files_only=True)
    for layout in (MODELSCOPE_SNAPSHOT, "models/some/model___v1"):
        fill(caches["modelscope"] / layout)
    for name in (MODELSCOPE_ID, "some/model.v1"):
        theirs = modelscope.snapshot_download(name, local_files_only=True, cache_dir=caches["modelscope"])
        assert resolve(name) == Path(theirs)


def test_the_cache_of_the_given_hub_is_searched_first(caches):
    folders = {
        "hf": fill(caches["hf"] / HF_SNAPSHOT),
        "modelscope": fill(caches["modelscope"] / MODELSCOPE_SNAPSHOT),
    }
    assert {name: resolve(MODEL, name) for name in folders} == folders


def test_the_main_revision_is_preferred(caches):
    repo = caches["hf"] / "models--org--m"
    fill(repo / "snapshots" / "aaa")
    main = fill(repo / "snapshots" / "bbb")
    fill(repo / "refs", "x")
    (repo / "refs" / "main").write_text("bbb")
    assert resolve("org/m", "hf") == main


def write_index(folder, name, shards):
    (folder / name).write_text(json.dumps({"weight_map": {f"w{i}": shard for i, shard in enumerate(shards)}}))


@pytest.mark.parametrize(
    ("files", "complete"),
    [
        (["config.json", "model.safetensors"], True),
        (["config.json", "pytorch_model.bin"], True),
        (["config.json", "a.bin", "b.bin"], True),
        (["config.json", "a.bin"], False),
        (["config.json"], False),
        (["model.safetensors"], False),
        (["config.json", "model.safetensors.incomplete"], False),
    ],
)
@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_an_incomplete_copy_is_ignored(caches, files, complete, index):
    folder = fill(caches["modelscope"] / MODELSCOPE_SNAPSHOT, *files)
    write_index(folder, index, ["a.bin", "b.bin", "a.bin"])
    if complete:
        assert resolve(MODEL) == folder
    else:
        with pytest.raises(HubError):
            resolve(MODEL)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 3}', "not json"])
def test_a_copy_with_an_invalid_index_is_ignored(caches, text):
    folder = fill(caches["modelscope"] / MODELSCOPE_SNAPSHOT, "config.json")
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(HubError):
        resolve(MODEL)


@pytest.fixture
def repository(monkeypatch, caches):
    """The files of a repository on both hubs, and the list of ids that were downloaded."""
    files, requested = {"config.json", "tokenizer.json", "vocab.txt", "modeling_florence2.py", "README.md"}, []

    def fake_download(cache, layout):
        def snapshot_download(model_id, allow_patterns, cache_dir=None, endpoint=None):
            requested.append(model_id)
            wanted = {name for name in files for pattern in allow_patterns if fnmatch.fnmatch(name, pattern)}
            return str(fill(caches[cache] / layout, *wanted))

        return snapshot_download

    monkeypatch.setattr(hub, "check_reachable", lambda hub: None)
    monkeypatch.setattr(modelscope, "snapshot_download", fake_download("modelscope", MODELSCOPE_SNAPSHOT))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake_download("hf", HF_SNAPSHOT))
    return files, requested


@pytest.mark.parametrize(
    ("name", "model_id", "layout"),
    [("modelscope", MODELSCOPE_ID, MODELSCOPE_SNAPSHOT), ("hf", HF_ID, HF_SNAPSHOT)],
)
@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ({"model.safetensors", "pytorch_model.bin"}, {"model.safetensors"}),
        ({"pytorch_model.bin"}, {"pytorch_model.bin"}),
    ],
)
def test_data_and_one_kind_of_weights_are_downloaded(repository, caches, name, model_id, layout, weights, wanted):
    files, requested = repository
    files |= weights
    folder = resolve(MODEL, name)
    assert folder == caches[name] / layout
    assert {file.name for file in folder.iterdir()} == {"config.json", "tokenizer.json", "vocab.txt"} | wanted
    assert set(requested) == {model_id}
    requested.clear()
    assert resolve(MODEL, name) == folder
    assert not requested  # found in the cache


def test_a_repository_without_weights_is_refused(repository):
    with pytest.raises(HubError, match=r"no config.json with weights"):
        resolve(MODEL)


def test_a_full_disk_is_an_error_in_one_line(repository, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device {model}")

    monkeypatch.setattr(modelscope, "snapshot_download", full)
    with pytest.raises(HubError, match=r"No space left on device \{model\}") as caught:
        resolve(MODEL)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["modelscope", "hf"])
def test_a_model_that_the_hub_lacks_is_an_error(empty_hubs, name):
    with pytest.raises(HubError, match=r"no/such .*the hub has no such model") as caught:
        resolve("no/such", name)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(("name", "model_id"), [("modelscope", MODELSCOPE_ID), ("hf", HF_ID)])
def test_without_network_an_error_with_alternatives_is_raised_in_time(caches, name, model_id):
    started = time.monotonic()
    with pytest.raises(HubError) as caught:
        resolve(MODEL, name)
    assert time.monotonic() - started < 2
    message = str(caught.value)
    manual_dir = caches["modelscope"] / "models" / "AI-ModelScope" / "Florence-2-base"
    for part in (model_id, constants.ENDPOINT, "refused", str(manual_dir), "'florence-2-nano'"):
        assert part in message, part
    assert "\n" not in message
    assert caught.value.__suppress_context__  # one traceback, not five
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["modelscope", "hf"])
@pytest.mark.parametrize("model", [MODEL, HF_ID, "some/model.v1"])
def test_files_placed_where_the_error_says_are_found(name, model):
    with pytest.raises(HubError) as caught:
        resolve(model, name)
    folder = Path(re.search(r"placed in (\S+),", str(caught.value))[1])
    fill(folder)
    assert resolve(model, name) == folder


def test_a_hub_that_does_not_answer_times_out(monkeypatch):
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        use_endpoint(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(HubError, match="is not reachable"):
            resolve(MODEL)
    assert time.monotonic() - started < 2


def test_hf_hub_offline_is_respected(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):  # not that the hub is unreachable
        resolve(MODEL, "hf")


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, "https://modelscope.cn"),
        ({"MODELSCOPE_DOMAIN": "modelscope.ai"}, "https://modelscope.ai"),
        ({"MODELSCOPE_ENDPOINT": "http://mirror:1"}, "http://mirror:1"),
    ],
)
def test_the_endpoint_of_modelscope_is_configurable(monkeypatch, variables, endpoint):
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    monkeypatch.delenv("MODELSCOPE_DOMAIN", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert HUBS["modelscope"].endpoint() == endpoint


ODD_NAMES = {
    "number": (3, ArgumentError, "got 3"),
    "nothing": (None, ArgumentError, "got None"),
    "list": ([], ArgumentError, r"got \[\]"),
    "bytes": (b"x", ArgumentError, "got b'x'"),
    "empty": ("", ArgumentError, "variable of the shell"),
    "blank": ("  ", ArgumentError, "variable of the shell"),
    "long": ("x" * 5000, ArgumentError, "unknown model_type"),
    "long id": ("x/" + "x" * 5000, ArgumentError, "unknown model_type"),
    "long path": ("./" + "x" * 5000, HubError, "xxx"),
    "user who does not exist": ("~nouser/x", HubError, "nouser.*does not exist"),
    "null byte": ("a\0b", ArgumentError, "null byte"),
    "path with a null byte": (Path("a\0b"), ArgumentError, "null byte"),
    "lone surrogate": ("\ud800", ArgumentError, "surrogate"),
}


@pytest.mark.parametrize("function", [resolve, find_cached])
@pytest.mark.parametrize(("name", "error", "message"), ODD_NAMES.values(), ids=ODD_NAMES)
def test_an_odd_name_is_refused(function, name, error, message):
    with pytest.raises(error, match=message) as caught:
        function(name)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["", "huggingface", 3, [1], b"hf"])
def test_an_odd_hub_is_refused(name):
    with pytest.raises(ArgumentError, match="hub"):
        resolve("florence-2-base", name)


def test_an_unknown_hub_in_the_environment_is_refused_by_the_name_of_the_variable(monkeypatch):
    monkeypatch.setenv("FLORENCE_LAB_HUB", "huggingface")
    with pytest.raises(ArgumentError, match="FLORENCE_LAB_HUB 'huggingface'"):
        resolve("florence-2-base")
